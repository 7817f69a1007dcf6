//! Many connections, after which nothing is left of them.

use std::fs;
use std::process::Command;
use std::rc::Rc;

use super::{World, app, detections, json, nginx_in, workload};
use crate::support::{Host, Pod, Stack, Workload, run, tool, until};

const OPAQUE: usize = 9000;
const HTTP: usize = 1000;
const AT_ONCE: usize = 50;

#[test]
fn of_ten_thousand_connections_no_socket_process_rule_or_namespace_is_left() {
    let world = World::start(Stack::V4);
    world.service("many", "10.96.0.10", &[(7, 7000, ""), (80, 8080, "")]);
    let hosts = ["many", "client"].map(|name| Rc::new(world.network.host(name)));
    let rules = hosts.each_ref().map(|host| rules(host));
    let [server, client] = hosts.each_ref().map(|host| {
        let name = if Rc::ptr_eq(host, &hosts[0]) { "many" } else { "client" };
        let ports: &[(u16, &str)] = if name == "many" { &[(7000, ""), (8080, "")] } else { &[] };
        start(&world, Rc::clone(host), workload(name, ports))
    });
    let echo = app(&server, "many.py", &["serve", "127.0.0.1:7000"]);
    let site = nginx_in(&server, &world.mesh, "127.0.0.1:8080", "location / { return 200 hi; }");
    // What is made once and kept: pooled connections, threads.
    dial(&client, "7", 2 * AT_ONCE, &[]);
    dial(&client, "80", 2 * AT_ONCE, &["http"]);
    let pods = [&server, &client];
    let idle =
        || pods.iter().all(|pod| pod.sidecar.metric("pillion_connections_open", &[("listener", "outbound")]) == 0.0);
    until("all are closed", idle);
    let sockets = pods.map(sockets);
    let processes = pods.map(|pod| pod.host.processes().len());

    dial(&client, "7", OPAQUE, &[]);
    dial(&client, "80", HTTP, &["http"]);
    until("all are closed", idle);
    for ((pod, before), processes) in pods.into_iter().zip(sockets).zip(processes) {
        until(&format!("there are {before} sockets as before"), || self::sockets(pod) <= before);
        assert_eq!(pod.host.processes().len(), processes);
    }
    let tunnels = server.sidecar.metric("pillion_connections_open", &[("listener", "mesh")]);
    assert!((1.0..=4.0).contains(&tunnels), "a few connections have carried them all: {tunnels}");
    let mutual = |metric: &str| client.sidecar.metric(metric, &[("tls", "mutual"), ("reason", "")]);
    until("all went with mutual TLS", || {
        let all = [OPAQUE + 2 * AT_ONCE, HTTP + 2 * AT_ONCE].map(|count| count as f64);
        [mutual("pillion_tcp_connections_total"), mutual("pillion_requests_total")] == all
    });
    let found = ["opaque", "http1"].map(|result| detections(&client, result) as usize);
    assert_eq!(found, [OPAQUE + 2 * AT_ONCE, HTTP + 2 * AT_ONCE]);

    for (host, before) in hosts.iter().zip(rules) {
        assert!(host.init(&["--undo"]).status.success());
        assert_eq!(self::rules(host), before);
    }
    let names: Vec<String> = hosts.iter().map(|host| host.name().to_owned()).collect();
    let own = names[0].rsplit_once('-').expect("a name").0.rsplit_once('-').expect("a name").0.to_owned();
    drop((echo, site, server, client, hosts));
    drop(world);
    let left = run(Command::new(tool("ip", "iproute2")).args(["netns", "list"]));
    assert!(!left.contains(&own), "{own}: {left}");
}

fn start(world: &World, host: Rc<Host>, workload: Workload) -> Pod {
    // Pooled connections that nobody uses are closed soon: what is left then has been forgotten.
    let workload = workload.setting("upstream_idle_timeout", "1s").setting("access_log", "errors");
    let workload = workload.setting("intercept", "redirect");
    Pod::start_on(&world.mesh, host, workload, &[])
}

fn dial(client: &Pod, port: &str, count: usize, more: &[&str]) {
    let (total, at_once) = (count.to_string(), AT_ONCE.to_string());
    let said = json(&client.host, "many.py", &[&["dial", "10.96.0.10", port, &total, &at_once], more].concat());
    assert_eq!((&said["good"], &said["bad"]), (&count.into(), &serde_json::json!({})), "{more:?}");
}

/// How many sockets a sidecar has.
fn sockets(pod: &Pod) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", pod.sidecar.process.pid())).expect("root may");
    let targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

fn rules(host: &Host) -> String {
    run(host.command(tool("nft", "nftables")).args(["-s", "list", "ruleset"]))
}
