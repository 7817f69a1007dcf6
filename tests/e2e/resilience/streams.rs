//! Silence, long streams, and connections at rest.

use serde_json::Value;

use super::actor::{Act, Actor};
use super::{ask, logged, policy, says, treated};
use crate::support::{Mesh, Workload, in_workspace, python, python_app, run, until};

#[test]
fn a_silent_stream_and_a_long_one_are_ended() {
    for (spec, key, reason, flag) in [
        ("streamIdle: 300ms", "stream_idle_ms", "stream_idle", "SI"),
        ("maxDuration: 300ms", "max_duration_ms", "max_duration", "UMSDR"),
    ] {
        let mesh = Mesh::start();
        let actor = Actor::start(mesh.ip(), |request| match request.path() {
            "/hang" => Act::Hang,
            "/stall" => Act::Stall,
            _ => Act::Answer(200, String::new()),
        });
        mesh.service("echo", &[("web", 80, "http")]);
        policy(&mesh, "echo", &format!("timeouts: {{ {spec} }}"));
        let _server = mesh.workload(Workload::new("echo").port("web", actor.address));
        let client = mesh.workload(Workload::new("client"));
        treated(&client, "echo.shop:80", |told| told[key] == 300);
        let response = ask(&client, "http://echo.shop/hang", &[]);
        assert_eq!((response.status, response.reason()), (504, reason), "{response:?}");
        assert_eq!(logged(&client, "/hang"), says(reason, flag));
        let response = ask(&client, "http://echo.shop/stall", &[]);
        assert!(response.exit != 0 && response.status == 200, "{response:?}");
        assert_eq!(logged(&client, "/stall"), says(reason, flag));
        until("the application sees its callers leave", || actor.gone().len() == 2);
    }
}

#[test]
fn a_silent_grpc_stream_is_ended_in_its_own_terms() {
    let mesh = Mesh::start();
    let server = python_app(&mesh, "grpc_streams_server.py", &[]);
    mesh.service("streams", &[("grpc", 50051, "grpc")]);
    policy(&mesh, "streams", "timeouts: { streamIdle: 500ms }");
    let _server_sidecar = mesh.workload(Workload::new("streams").port("grpc", server.address));
    let client = mesh.workload(Workload::new("client"));
    treated(&client, "streams.shop:50051", |told| told["stream_idle_ms"] == 500);
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/grpc_call.py")).arg(client.outbound().to_string());
    // It begins with a message, and then says nothing.
    command.args(["streams.shop:50051", "/streams.Streams/LingerStream"]);
    let said: Value = serde_json::from_str(&run(&mut command)).expect("JSON");
    assert_eq!(said["code"], "DEADLINE_EXCEEDED", "{said}");
    assert_eq!(logged(&client, "/streams.Streams/LingerStream"), says("stream_idle", "SI"));
    until("the server sees its client leave", || server.process.stdout().contains("\"gone\""));
}

#[test]
fn a_retry_does_not_cost_the_connection() {
    let mesh = Mesh::start();
    let actor = Actor::start(mesh.ip(), |request| {
        Act::Answer(if request.path() == "/fail" { 503 } else { 200 }, String::new())
    });
    mesh.service("echo", &[("web", 80, "http")]);
    policy(&mesh, "echo", "retries: { on: [ 5xx ], attempts: 3, backoff: { base: 20ms } }");
    mesh.outsider(Workload::new("echo").port("web", actor.address));
    let client = mesh.workload(Workload::new("client"));
    treated(&client, "echo.shop:80", |told| told["retry"]["attempts"] == 3);
    assert_eq!(ask(&client, "http://echo.shop/fail", &[]).status, 503);
    assert_eq!((actor.seen("/fail").len(), actor.closed()), (4, 0));
}

#[test]
fn a_connection_that_rested_too_long_is_closed() {
    let mesh = Mesh::start();
    let actor = Actor::answering(mesh.ip(), 200);
    mesh.service("echo", &[("web", 80, "http")]);
    policy(&mesh, "echo", "timeouts: { idle: 50ms, streamIdle: 1h }");
    mesh.outsider(Workload::new("echo").port("web", actor.address));
    let client = mesh.workload(Workload::new("client"));
    treated(&client, "echo.shop:80", |told| told["stream_idle_ms"] == 3_600_000);
    assert_eq!(ask(&client, "http://echo.shop/", &[]).status, 200);
    until("it is closed, long before the sidecar's own default", || actor.closed() >= 1);
}
