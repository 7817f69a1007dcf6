//! gRPC through two sidecars: Python's grpcio as client and as server.

use std::time::Duration;

use serde_json::Value;

use crate::support::{App, Mesh, Sidecar, Workload, eventually, in_workspace, python, python_app, run, until};

const DEADLINE: Duration = Duration::from_secs(20);
const AUTHORITY: &str = "streams.shop:50051";

/// A mesh with the server behind one sidecar and a client's sidecar.
struct Streams {
    client: Sidecar,
    _server_sidecar: Sidecar,
    server: App,
    _mesh: Mesh,
}

impl Streams {
    fn start() -> Self {
        let mesh = Mesh::start();
        let server = python_app(&mesh, "grpc_streams_server.py", &[]);
        mesh.service("streams", &[("grpc", 50051, "grpc")]);
        let server_sidecar = mesh.workload(Workload::new("streams").port("grpc", server.address));
        let client = mesh.workload(Workload::new("client"));
        Self { client, _server_sidecar: server_sidecar, server, _mesh: mesh }
    }

    /// The client's script holds the claims of each case.
    fn check(&self, case: &str) -> String {
        call(&self.client, case)
    }

    fn server_says(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        eventually(what, DEADLINE, || {
            let said = self.server.process.stdout();
            said.lines().filter_map(|line| serde_json::from_str(line).ok()).find(&matches)
        })
    }
}

fn call(client: &Sidecar, case: &str) -> String {
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/grpc_streams_client.py"));
    run(command.arg(client.outbound().to_string()).arg(AUTHORITY).arg(case))
}

#[test]
fn grpc_calls_of_every_kind_keep_messages_metadata_and_statuses() {
    let streams = Streams::start();
    for case in ["kinds", "bidi", "metadata", "statuses"] {
        streams.check(case);
    }
    let peer = "spiffe://cluster.local/ns/shop/sa/streams";
    let labels = [("direction", "outbound"), ("peer", peer), ("tls", "mutual"), ("status", "200"), ("reason", "")];
    until("all nine calls travelled over mutual TLS and count as answered by the application", || {
        streams.client.metric("pillion_requests_total", &labels) == 9.0
    });
}

#[test]
fn grpc_messages_of_8_mib_pass_both_ways() {
    Streams::start().check("large");
}

#[test]
fn a_grpc_deadline_and_a_cancellation_end_the_call_at_the_server() {
    let streams = Streams::start();
    streams.check("deadline");
    let lingering = streams.server_says("the call began", |said| said["event"] == "lingering");
    let left = lingering["left"].as_f64().unwrap();
    assert!(left > 0.0 && left <= 0.3, "the server learned the deadline: {lingering}");
    let gone = streams.server_says("the call ended", |said| said["event"] == "gone" && said["call"] == "deadline");
    assert!(gone["after"].as_f64().unwrap() < 20.0, "{gone}");

    streams.check("cancel");
    let gone =
        streams.server_says("the call was cancelled", |said| said["event"] == "gone" && said["call"] == "cancel");
    assert!(gone["after"].as_f64().unwrap() < 20.0, "{gone}");
}

#[test]
fn a_grpc_client_is_told_unavailable_and_why_when_the_application_is_down() {
    let mesh = Mesh::start();
    mesh.service("streams", &[("grpc", 50051, "grpc")]);
    let _server = mesh.workload(Workload::new("streams").port("grpc", mesh.free_address()));
    let client = mesh.workload(Workload::new("client"));
    let told: Value = serde_json::from_str(&call(&client, "unavailable")).unwrap();
    assert_eq!(told["code"], "UNAVAILABLE", "{told}");
    assert_eq!(told["reason"], "connect_failure", "{told}");
    assert!(told["details"].as_str().unwrap().contains("cannot connect"), "{told}");
}

#[test]
fn a_grpc_stream_whose_server_dies_ends_in_an_error_and_not_as_if_complete() {
    let streams = Streams::start();
    streams.check("broken");
    until("it is logged as the server's doing", || {
        let log = streams.client.access_log();
        log.iter().any(|line| line["path"] == "/streams.Streams/Die" && line["reason"] == "upstream_reset")
    });
}
