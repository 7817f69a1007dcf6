//! Destinations whose endpoints are the sidecar itself: a request ends there, and does not go round.

use std::io::Read as _;

use super::ask;
use crate::support::{Mesh, Sidecar, Workload, connect, until};

/// Lines of the access log that speak of `key` being `value`.
fn lines(sidecar: &Sidecar, key: &str, value: &str) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    until("the access log tells", || {
        found = sidecar.access_log();
        found.retain(|line| line[key] == value);
        !found.is_empty()
    });
    found
}

#[test]
fn what_leads_back_to_the_outbound_ports_is_refused_at_once() {
    let mesh = Mesh::start();
    let client = mesh.workload(Workload::new("client").tcp("turn.shop:9000"));
    mesh.service("ring", &[("http", 80, "http")]);
    mesh.outsider(Workload::new("ring").port("http", client.outbound()));
    mesh.service("turn", &[("tcp", 9000, "tcp")]);
    mesh.outsider(Workload::new("turn").port("tcp", client.tcp("turn.shop:9000")));

    let known = |service: &str| {
        let _asked = ask(&client, &format!("http://{service}/first"), &["--max-time", "5"]);
        let clusters: serde_json::Value = serde_json::from_str(&client.admin_page("/clusters")).expect("JSON");
        clusters[service]["hosts"].as_array().is_some_and(|hosts| hosts.len() == 1)
    };
    until("both are known", || known("ring.shop:80") && known("turn.shop:9000"));
    let answer = ask(&client, "http://ring.shop/round", &[]);
    assert_eq!((answer.status, answer.reason()), (508, "own_port"), "{answer:?}");
    assert_eq!(lines(&client, "path", "/round").len(), 1, "it came once");
    let mut stream = connect(client.tcp("turn.shop:9000"));
    let _ended = stream.read_to_end(&mut Vec::new());
    let refused = || {
        let mut all = lines(&client, "destination", "turn.shop:9000");
        all.retain(|line| line["reason"] != "wrong_protocol");
        all
    };
    until("it has ended", || !refused().is_empty());
    let ended = refused();
    let [only] = ended.as_slice() else { panic!("it came more than once: {ended:?}") };
    assert_eq!(only["reason"], "own_port", "{only}");
}

#[test]
fn an_application_that_is_the_sidecar_itself_is_refused() {
    let mesh = Mesh::start();
    let own = mesh.free_address();
    mesh.service("self", &[("http", 80, "http")]);
    let server = Workload::new("self").setting("outbound_http", own.to_string()).port("http", own);
    let server = mesh.workload(server);
    let client = mesh.workload(Workload::new("client"));
    let answer = ask(&client, "http://self.shop/round", &[]);
    assert_eq!((answer.status, answer.reason()), (508, "own_port"), "{answer:?}");
    assert_eq!(lines(&server, "path", "/round").len(), 1, "it came once");
}
