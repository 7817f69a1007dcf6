//! Where connections may go: to Services, to single workloads, to addresses that nobody knows; and where they end.

use super::{World, files, lines, say, say_from, workload};
use crate::support::{Stack, until};

const ANY: &str = "0.0.0.0";

#[test]
fn a_service_is_reached_by_its_address_with_mutual_tls_and_nothing_of_it_in_the_application() {
    let world = World::start(Stack::V4);
    world.service("web", "10.96.0.10", &[(80, 8080, "")]);
    let web = world.pod(workload("web", &[(8080, "")]));
    let client = world.pod(workload("client", &[]));
    let _app = files(&web, &world.mesh, ANY.parse().expect("literal"), 8080);
    let answer = client.curl(&["http://10.96.0.10/hello.txt"]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello\n"), "{}", answer.message);
    let peer = ("peer", "spiffe://cluster.local/ns/shop/sa/web");
    let labels = [("destination", "web.shop:80"), ("tls", "mutual"), peer];
    until("the request is counted", || client.sidecar.metric("pillion_requests_total", &labels) == 1.0);
    // The application's own calls to itself: by its Service through the mesh, by its own address without it.
    assert_eq!(web.curl(&["http://10.96.0.10/hello.txt"]).status, 200);
    let inbound = || web.sidecar.metric("pillion_requests_total", &[("direction", "inbound")]);
    until("both are counted", || inbound() == 2.0);
    assert_eq!(web.curl(&[&format!("http://{}:8080/hello.txt", web.host.ip())]).status, 200);
    assert_eq!(web.curl(&["http://127.0.0.1:8080/hello.txt"]).status, 200);
    assert_eq!(inbound(), 2.0, "its own address is not intercepted");
}

#[test]
fn a_workload_is_reached_by_its_own_address_on_any_port_that_it_does_not_hide() {
    let world = World::start(Stack::V4);
    let server = world.pod(workload("server", &[(7000, ""), (7001, "")]));
    let client = world.pod(workload("client", &[]));
    let ip = server.host.ip();
    let _on_loopback = lines(&server, "127.0.0.1:7000", "from loopback");
    let _on_its_address = lines(&server, &format!("{ip}:7001"), "from the address");
    let _undeclared = lines(&server, &format!("{ANY}:7002"), "undeclared");
    let _hidden = lines(&server, "127.0.0.1:7003", "hidden");
    assert_eq!(say(&client, ip, 7000, &[])["answer"], "from loopback");
    assert_eq!(say(&client, ip, 7001, &[])["answer"], "from the address");
    assert_eq!(say(&client, ip, 7002, &[])["answer"], "undeclared");
    let hidden = say(&client, ip, 7003, &[]);
    assert_eq!((&hidden["answer"], &hidden["error"]), (&"".into(), &"Connection reset by peer".into()));
    let mutual = |destination: &str| {
        client.sidecar.metric("pillion_tcp_connections_total", &[("destination", destination), ("tls", "mutual")])
    };
    for port in 7000..7003 {
        until("it went with mutual TLS", || mutual(&format!("{ip}:{port}")) == 1.0);
    }
}

#[test]
fn two_services_that_share_a_port_have_nothing_else_in_common() {
    let world = World::start(Stack::V4);
    world.service("one", "10.96.0.1", &[(80, 8080, "http")]);
    world.service("two", "10.96.0.2", &[(80, 8080, "tcp")]);
    let one = world.pod(workload("one", &[(8080, "")]));
    let two = world.pod(workload("two", &[(8080, "")]));
    let client = world.pod(workload("client", &[]));
    let _one = files(&one, &world.mesh, ANY.parse().expect("literal"), 8080);
    let _two = lines(&two, &format!("{ANY}:8080"), "two");
    assert_eq!(client.curl(&["http://10.96.0.1/hello.txt"]).status, 200);
    assert_eq!(say(&client, "10.96.0.2", 80, &[])["answer"], "two");
    // What a request calls its host does not change where its connection goes.
    assert_eq!(client.curl(&["http://10.96.0.1/hello.txt", "-H", "Host: two.shop"]).text(), "hello\n");
}

#[test]
fn an_unknown_address_is_passed_through_or_refused_as_the_policy_says() {
    let world = World::start(Stack::V4);
    let outside = world.network.host("outside");
    let client = world.pod(workload("client", &[]));
    let strict = world.pod(workload("strict", &[]).setting("unknown_destinations", "refuse"));
    let mut server = crate::support::python();
    server.arg(crate::support::in_workspace("tests/e2e/apps/lines.py"));
    let address = format!("{}:7000", outside.ip());
    let mut server =
        crate::support::Process::spawn("lines.py", &mut outside.wrap(server.arg(&address).arg("outside saw {peer}")));
    server.ready();
    let ip = outside.ip();
    assert_eq!(say(&client, ip, 7000, &[])["answer"], format!("outside saw {}", client.host.ip()));
    assert_eq!(say(&client, ip, 7001, &[])["error"], "Connection reset by peer", "nobody listens there");
    let unknown = [("destination", "unknown"), ("tls", "none")];
    until("both are counted", || client.sidecar.metric("pillion_tcp_connections_total", &unknown) == 2.0);
    assert_eq!(say(&strict, ip, 7000, &[])["error"], "Connection reset by peer");
    let refused = [("reason", "unknown_destination")];
    until("it is counted", || strict.sidecar.metric("pillion_connections_refused_total", &refused) == 1.0);
}

#[test]
fn from_outside_the_mesh_a_strict_port_is_closed_and_a_permissive_one_open_declared_or_not() {
    let world = World::start(Stack::V4);
    let server =
        world.pod(workload("server", &[(8080, ""), (8081, "access: permissive"), (7000, "access: permissive")]));
    let outside = world.network.host("outside");
    for port in [8080, 8081] {
        // Elsewhere than on loopback it would begin with a question to DNS, and wait for the answer.
        let process = files(&server, &world.mesh, "127.0.0.1".parse().expect("literal"), port);
        std::mem::forget(process); // It ends with the namespace.
    }
    let _greets = lines(&server, &format!("{ANY}:7000"), "hello {peer}");
    let _undeclared = lines(&server, &format!("{ANY}:7001"), "undeclared");
    let url = |port: u16| format!("http://{}:{port}/hello.txt", server.host.ip());
    let refused = outside.curl(&[&url(8080)]);
    assert_eq!((refused.status, refused.reason()), (403, "plaintext_refused"));
    assert_eq!(outside.curl(&[&url(8081)]).text(), "hello\n");
    let greeted = say_from(&outside, server.host.ip(), 7000, &[]);
    assert_eq!(greeted["answer"], format!("hello {}", server.host.ip()), "REDIRECT: it comes from its own sidecar");
    let plain = [("reason", "plaintext_refused")];
    let count = || server.sidecar.metric("pillion_connections_refused_total", &plain);
    assert_eq!(count(), 0.0);
    assert_eq!(say_from(&outside, server.host.ip(), 7001, &["hello"])["error"], "Connection reset by peer");
    until("it is counted", || count() == 1.0);
}
