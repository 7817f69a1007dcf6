//! gRPC in plaintext HTTP/2, of which the sidecars are told nothing.

use super::{World, app, detections, workload};
use crate::support::{APPLICATION, Pod, Stack, in_workspace, python, run, until};

/// The client's script holds the claims of each case.
fn call(client: &Pod, server: &str, case: &str) {
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/grpc_streams_client.py")).args([server, server, case]);
    run(&mut client.host.wrap_as(APPLICATION, &[], &command));
}

#[test]
fn unary_calls_and_streams_pass_undeclared_by_service_and_by_pod_address() {
    let world = World::start(Stack::V4);
    world.service("streams", "10.96.0.10", &[(80, 50051, "")]);
    let server = world.pod(workload("streams", &[(50051, "")]));
    let client = world.pod(workload("client", &[]));
    let _grpc = app(&server, "grpc_streams_server.py", &["127.0.0.1:50051"]);
    let by_address = format!("{}:50051", server.host.ip());
    call(&client, "10.96.0.10:80", "kinds");
    call(&client, "10.96.0.10:80", "statuses");
    call(&client, &by_address, "bidi");
    let peer = ("peer", "spiffe://cluster.local/ns/shop/sa/streams");
    let count = |destination: &str| {
        let labels = [("destination", destination), peer, ("tls", "mutual"), ("status", "200"), ("reason", "")];
        client.sidecar.metric("pillion_requests_total", &labels)
    };
    until("each call is a request", || count("streams.shop:80") >= 6.0 && count(&by_address) == 1.0);
    assert_eq!(detections(&client, "http2"), 3.0, "one connection for each client");
    assert_eq!(client.sidecar.metric("pillion_tcp_connections_total", &[]), 0.0, "nothing went as bytes");
}
