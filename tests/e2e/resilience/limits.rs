//! Bulkheads: what is over a limit is told so at once, and places come back.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::support::{App, Curl, Mesh, Sidecar, Workload, connect, curl, nginx, python_app, tcp_server, until};

/// A policy for a Service; `section` is the YAML of its sections.
pub(super) fn policy(mesh: &Mesh, service: &str, section: &str) {
    mesh.write(
        &format!("policy-{service}.yaml"),
        &format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: {service}, namespace: shop }}\n\
             spec:\n  targetRefs: [ {{ kind: Service, name: {service} }} ]\n  {section}\n"
        ),
    );
}

/// Asks for `http://SERVICE.shop/PATH` through the sidecar.
pub(super) fn ask(client: &Sidecar, service: &str, path: &str) -> Curl {
    curl(&[&format!("http://{}{path}", client.outbound()), "-H", &format!("Host: {service}.shop")])
}

/// What `/clusters` says of a Service's port 80.
pub(super) fn cluster(client: &Sidecar, service: &str) -> Value {
    let page: Value = serde_json::from_str(&client.admin_page("/clusters")).expect("JSON");
    page[format!("{service}.shop:80")].clone()
}

fn in_background(client: &Sidecar, service: &str, path: &str) -> JoinHandle<Curl> {
    let (url, host) = (format!("http://{}{path}", client.outbound()), format!("Host: {service}.shop"));
    thread::spawn(move || curl(&[&url, "-H", &host]))
}

fn in_use(client: &Sidecar, service: &str, limit: &str) -> f64 {
    client.metric("pillion_limit_in_use", &[("cluster", &format!("{service}.shop:80")), ("limit", limit)])
}

/// An application whose requests to `/gather/N` wait until N of them are there; one Service and one client.
fn gathering(section: &str) -> (Mesh, App, Sidecar, Sidecar) {
    let mesh = Mesh::start();
    let app = python_app(&mesh, "http1.py", &[]);
    mesh.service("slow", &[("web", 80, "http")]);
    policy(&mesh, "slow", section);
    let server = mesh.workload(Workload::new("slow").port("web", app.address));
    let client = mesh.workload(Workload::new("client"));
    (mesh, app, server, client)
}

/// The last one that others wait for, around the sidecars.
fn release(app: SocketAddr, count: u32) {
    assert_eq!(curl(&[&format!("http://{app}/gather/{count}")]).status, 200);
}

fn assert_overflow(answer: &Curl, code: &str) {
    assert_eq!((answer.status, answer.reason()), (503, code), "{answer:?}");
    assert!(answer.head.to_lowercase().contains("x-envoy-overloaded: true"), "{answer:?}");
}

#[test]
fn requests_over_the_limit_are_told_so_and_places_come_back() {
    let (mesh, app, _server, client) = gathering("limits: { requests: 2 }");
    let held = [in_background(&client, "slow", "/gather/3"), in_background(&client, "slow", "/gather/3")];
    until("both have a place", || in_use(&client, "slow", "requests") == 2.0);
    assert_overflow(&ask(&client, "slow", "/"), "overflow");
    let url = format!("http://{}/", client.outbound());
    let grpc = curl(&[&url, "-H", "Host: slow.shop", "-H", "Content-Type: application/grpc"]);
    assert!(grpc.head.contains("grpc-status: 14"), "{grpc:?}");
    let labels = [("cluster", "slow.shop:80"), ("limit", "requests")];
    assert_eq!(client.metric("pillion_limit_overflows_total", &labels), 2.0);
    assert_eq!(cluster(&client, "slow")["limits"]["requests"]["in_use"], 2);

    release(app.address, 3);
    for answer in held {
        assert_eq!(answer.join().unwrap().status, 200);
    }
    until("the places are back", || in_use(&client, "slow", "requests") == 0.0);
    assert_eq!(ask(&client, "slow", "/").status, 200);
    let log = client.access_log();
    let flags: Vec<&str> = log.iter().filter_map(|line| line["response_flags"].as_str()).collect();
    assert_eq!(flags.iter().filter(|flag| **flag == "UO").count(), 2, "{log:?}");

    mesh.remove("policy-slow.yaml");
    until("without the policy there is no limit", || cluster(&client, "slow")["limits"].is_null());
}

#[test]
fn the_queue_is_bounded_and_has_a_deadline() {
    let (mesh, app, _server, client) = gathering("limits: { requests: 1, pending: 1, pendingTimeout: 20s }");
    let held = in_background(&client, "slow", "/gather/2");
    until("it has the place", || in_use(&client, "slow", "requests") == 1.0);
    let waits = in_background(&client, "slow", "/");
    until("another waits", || in_use(&client, "slow", "pending_requests") == 1.0);
    assert_overflow(&ask(&client, "slow", "/"), "overflow");
    release(app.address, 2);
    assert_eq!((held.join().unwrap().status, waits.join().unwrap().status), (200, 200));

    mesh.edit("policy-slow.yaml", "20s", "50ms");
    until("the policy is in force", || {
        cluster(&client, "slow")["limits"]["pending"]["timeout_seconds"].as_f64() == Some(0.05)
    });
    let held = in_background(&client, "slow", "/gather/4"); // Two have been there already.
    until("it has the place", || in_use(&client, "slow", "requests") == 1.0);
    assert_overflow(&ask(&client, "slow", "/"), "pending_timeout");
    release(app.address, 4);
    assert_eq!(held.join().unwrap().status, 200);
    until("all is given back", || {
        in_use(&client, "slow", "requests") == 0.0 && in_use(&client, "slow", "pending_requests") == 0.0
    });
}

#[test]
fn a_slow_destination_takes_nothing_from_another() {
    let (mesh, app, _server, client) = gathering("limits: { requests: 3, perEndpoint: { requests: 2 } }");
    let fast = python_app(&mesh, "http1.py", &[]);
    mesh.service("fast", &[("web", 80, "http")]);
    let _fast = mesh.workload(Workload::new("fast").port("web", fast.address));
    assert_eq!(ask(&client, "fast", "/").status, 200);

    let held = [in_background(&client, "slow", "/gather/3"), in_background(&client, "slow", "/gather/3")];
    until("the endpoint has as many as it may", || {
        cluster(&client, "slow")["hosts"][0]["limits_in_use"]["requests"] == 2
    });
    for _ in 0..20 {
        assert_eq!(ask(&client, "fast", "/").status, 200, "untouched");
        assert_overflow(&ask(&client, "slow", "/"), "overflow");
    }
    let labels = [("cluster", "slow.shop:80"), ("limit", "endpoint_requests")];
    assert_eq!(client.metric("pillion_limit_overflows_total", &labels), 20.0, "there was a place, but no endpoint");
    assert_eq!(cluster(&client, "slow")["hosts"][0]["in_flight"], 2, "nothing piled up");
    release(app.address, 3);
    for answer in held {
        assert_eq!(answer.join().unwrap().status, 200);
    }
    until("its places are back", || ask(&client, "slow", "/").status == 200);
}

#[test]
fn tcp_connections_over_the_limit_are_reset_and_places_come_back() {
    let mesh = Mesh::start();
    let echo = tcp_server(&mesh, |mut stream| {
        let mut back = stream.try_clone().expect("a socket");
        let _ended = std::io::copy(&mut stream, &mut back);
    });
    mesh.service("ledger", &[("tcp", 7000, "tcp")]);
    policy(&mesh, "ledger", "limits: { connections: 1 }");
    let _server = mesh.workload(Workload::new("ledger").port("tcp", echo));
    let client = mesh.workload(Workload::new("client").tcp("ledger.shop:7000"));
    let open = || {
        let mut stream = connect(client.tcp("ledger.shop:7000"));
        let mut answer = [0; 2];
        let echoed = stream.write_all(b"hi").is_ok() && stream.read_exact(&mut answer).is_ok();
        (echoed, stream)
    };
    let (first, held) = open();
    assert!(first);
    assert!(!open().0, "the second is over the limit");
    until("the log says why", || client.access_log().iter().any(|line| line["reason"] == "overflow"));
    drop(held);
    until("the place is back", || open().0);
}

#[test]
fn retries_over_the_limit_are_not_made() {
    let mesh = Mesh::start();
    let up = nginx(&mesh, "location / { return 200 up; }");
    mesh.service("app", &[("http", 80, "http")]);
    policy(&mesh, "app", "limits: { retries: 0 }");
    let _down = mesh.workload(Workload::new("app-1").port("http", mesh.free_address()));
    let _up = mesh.workload(Workload::new("app-2").port("http", up.address));
    let client = mesh.workload(Workload::new("client"));
    until("the one that is down is asked, and no other", || ask(&client, "app", "/").reason() == "connect_failure");
    assert!(client.metric("pillion_limit_overflows_total", &[("limit", "retries")]) >= 1.0);
    mesh.remove("policy-app.yaml");
    until("the policy is gone", || cluster(&client, "app")["limits"].is_null());
    assert!((0..20).all(|_| ask(&client, "app", "/").text() == "up"));
}
