//! DNS for the application: names of the mesh lead to the mesh, whatever nameserver is configured.

use std::rc::Rc;

use super::{World, files, workload};
use crate::support::{Host, Pod, Process, Stack, in_workspace, python, run, until};

/// A pod whose DNS is answered by its sidecar, and which is told to ask `nameserver`.
fn asking(world: &World, nameserver: &str) -> Pod {
    let host: Rc<Host> = Rc::new(world.network.host("client"));
    host.etc("resolv.conf", &format!("nameserver {nameserver}\noptions timeout:5 attempts:1\n"));
    let client = workload("client", &[]).setting("intercept", "redirect").setting("dns", "127.0.0.1:15053");
    Pod::start_on(&world.mesh, host, client, &["--capture-dns"])
}

fn dig(pod: &Pod, arguments: &[&str]) -> String {
    let mut command = pod.command(crate::support::tool("dig", "bind9-dnsutils"));
    run(command.args(["+short", "+tries=1", "+timeout=15"]).args(arguments)).trim().to_owned()
}

#[test]
fn a_service_without_an_address_of_its_own_is_reached_by_every_form_of_its_name() {
    let world = World::start(Stack::Dual);
    world.mesh.service("web", &[("p8080", 80, "")]);
    let server = world.pod(workload("web", &[(8080, "")]));
    let _app = files(&server, &world.mesh, "127.0.0.1".parse().expect("literal"), 8080);
    // Nobody answers there, and nobody has to.
    let client = asking(&world, "192.0.2.53");
    for name in ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "WEB.Shop"] {
        for family in ["-4", "-6"] {
            let answer = client.curl(&[family, &format!("http://{name}/hello.txt"), "--connect-timeout", "5"]);
            assert_eq!(answer.text(), "hello\n", "{name} {family}: {}", answer.message);
        }
    }
    let mutual = [("destination", "web.shop:80"), ("tls", "mutual"), ("peer", "spiffe://cluster.local/ns/shop/sa/web")];
    assert!(client.sidecar.metric("pillion_requests_total", &mutual) >= 9.0);
}

#[test]
fn workloads_of_a_headless_service_are_reached_by_the_services_name_and_by_their_own() {
    let world = World::start(Stack::V4);
    world.service("db", "None", &[(7000, 7000, "")]);
    let pods = ["db-1", "db-2"].map(|name| world.pod(workload(name, &[(7000, "")])));
    let _apps: Vec<Process> =
        pods.iter().zip(["one", "two"]).map(|(pod, text)| super::lines(pod, "0.0.0.0:7000", text)).collect();
    let client = asking(&world, "192.0.2.53");
    assert_eq!(super::say(&client, "db-1.db.shop.svc", 7000, &[])["answer"], "one");
    assert_eq!(super::say(&client, "db-2.db.shop.svc.cluster.local", 7000, &[])["answer"], "two");
    let answer = super::say(&client, "db.shop", 7000, &[]);
    assert!(answer["answer"] == "one" || answer["answer"] == "two", "{answer}");
    let mut all: Vec<String> = dig(&client, &["db.shop"]).lines().map(str::to_owned).collect();
    all.sort_unstable();
    assert_eq!(all, pods.each_ref().map(|pod| pod.host.ip().to_string()));
    let mutual = [("tls", "mutual"), ("peer", "spiffe://cluster.local/ns/shop/sa/db")];
    until("all went through the mesh", || client.sidecar.metric("pillion_tcp_connections_total", &mutual) == 3.0);
}

#[test]
fn other_names_go_to_the_nameserver_and_its_answer_outlives_it() {
    let world = World::start(Stack::V4);
    let nameserver = world.network.host("nameserver");
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/nameserver.py")).arg(format!("{}:53", nameserver.ip())).arg("203.0.113.9");
    let mut process = Process::spawn("nameserver.py", &mut nameserver.wrap(&command));
    process.ready();
    let client = asking(&world, &nameserver.ip().to_string());
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(dig(&client, &[transport, "www.example.com"]), "203.0.113.9");
    }
    // Whomever the application asks, it is the sidecar that answers, and the sidecar asks whom it was told to.
    assert_eq!(dig(&client, &["@192.0.2.99", "www.example.com"]), "203.0.113.9");
    process.kill();
    assert_eq!(dig(&client, &["www.example.com"]), "203.0.113.9", "what was said before is better than nothing");
    let count = |result| client.sidecar.metric("pillion_dns_queries_total", &[("result", result)]);
    assert_eq!((count("forwarded"), count("stale")), (3.0, 1.0));
}
