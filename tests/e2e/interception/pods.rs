//! What the tests of interception stand on: pods that reach each other through their sidecars.

use std::process::Command;
use std::rc::Rc;

use crate::support::{APPLICATION, Mesh, Network, Pod, Process, Stack, Workload, python, run, sweep, until};

#[test]
fn pods_on_one_network_reach_each_other_and_leave_nothing_behind() {
    let namespaces = || std::fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.file_name());
    let own = format!("pillion-test-{}-", std::process::id());
    let left = || namespaces().filter(|name| name.to_string_lossy().starts_with(&own)).count();
    for stack in [Stack::Dual, Stack::V6] {
        let network = Network::start(stack);
        let mesh = Mesh::start_on(Rc::new(network.host("control")), &[]);
        mesh.service("web", &[("http", 80, "http")]);
        let web = Pod::start(&mesh, &network, Workload::new("web").port("http", "127.0.0.1:8080".parse().unwrap()));
        let mut files = python();
        files.args(["-m", "http.server", "8080", "--bind", "127.0.0.1", "--directory", "/etc/apt"]);
        let _files = web.spawn("http.server", &files);
        until("the application listens", || web.curl(&["http://127.0.0.1:8080/"]).status == 200);

        let client = Pod::start(&mesh, &network, Workload::new("client"));
        let response = client.curl(&["http://127.0.0.1:15001/", "-H", "Host: web.shop"]);
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(web.sidecar.access_log().len(), 1);
        assert_eq!(left(), 4);
    }
    assert_eq!(left(), 0);
}

#[test]
fn a_pods_rules_lead_to_its_sidecar_and_verification_sees_it() {
    let network = Network::start(Stack::Dual);
    let mesh = Mesh::start_on(Rc::new(network.host("control")), &[]);
    for (name, mode) in [("redirected", "redirect"), ("transparent", "tproxy")] {
        let port: u16 = 8080;
        let application = ([127, 0, 0, 1], port).into();
        let workload = Workload::new(name).port_with("http", application, "protocol: http").setting("intercept", mode);
        let web = Pod::start(&mesh, &network, workload);
        let proved = web.host.init(&["--verify-only", "--mode", mode]);
        let said = String::from_utf8_lossy(&proved.stdout);
        for arrived in
            ["192.0.2.1:80 arrives at port 15001: the listener there", "[2001:db8::1]:80 arrives at port 15001"]
        {
            assert!(said.contains(arrived), "{mode}: {proved:?}");
        }
        // Plaintext from outside the mesh: the sidecar, and not the application, answers.
        let outsider = network.host("outsider");
        for ip in web.host.ips() {
            let response = outsider.curl(&[&format!("http://{}/", std::net::SocketAddr::new(ip, port))]);
            assert_eq!(response.reason(), "plaintext_refused", "{mode}: {response:?}");
        }
        assert!(!web.host.processes().is_empty());
        let who = web.command("id").args(["-u"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&who.stdout).trim(), APPLICATION.to_string());
    }
}

#[test]
fn nothing_stays_of_a_test_that_panics_or_is_killed() {
    let names = || run(Command::new("ip").args(["netns", "list"]));
    let own = format!("pillion-test-{}-", std::process::id());
    let panicked = std::thread::spawn(|| {
        let network = Network::start(Stack::V4);
        let host = network.host("panicking");
        let _process = Process::spawn("sleep", host.command("sleep").arg("600"));
        assert!(host.name().is_empty(), "as intended");
    });
    assert!(panicked.join().is_err());
    assert!(!names().contains(&own), "{}", names());

    // No process has this id: the kernel's limit is 2^22.
    let left = "pillion-test-9999999-0-left";
    run(Command::new("ip").args(["netns", "add", left]));
    let mut forgotten = Command::new("ip").args(["netns", "exec", left, "sleep", "600"]).spawn().unwrap();
    until("the process is in its namespace", || !run(Command::new("ip").args(["netns", "pids", left])).is_empty());
    sweep();
    assert!(!names().contains(left), "{}", names());
    assert!(!forgotten.wait().unwrap().success());
}
