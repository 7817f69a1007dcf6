//! Deadlines of requests and tries.

use serde_json::Value;

use super::actor::{Act, Actor};
use super::{ask, logged, policy, says, treated};
use crate::support::{Mesh, Sidecar, Workload, eventually, in_workspace, python, python_app, run, until};

struct One {
    mesh: Mesh,
    actor: Actor,
    _server: Sidecar,
    client: Sidecar,
}

/// An application that hangs at `/hang`, stalls at `/stall`, and answers otherwise; under a policy.
fn hanging(spec: &str, wanted: impl Fn(&Value) -> bool) -> One {
    let mesh = Mesh::start();
    let actor = Actor::start(mesh.ip(), |request| match request.path() {
        "/hang" => Act::Hang,
        "/stall" => Act::Stall,
        _ => Act::Answer(200, String::new()),
    });
    mesh.service("echo", &[("web", 80, "http")]);
    policy(&mesh, "echo", spec);
    let server = mesh.workload(Workload::new("echo").port("web", actor.address));
    let client = mesh.workload(Workload::new("client"));
    treated(&client, "echo.shop:80", wanted);
    One { mesh, actor, _server: server, client }
}

#[test]
fn a_request_that_takes_too_long_is_a_504_and_is_cancelled() {
    let one = hanging("timeouts: { request: 300ms }", |told| told["request_ms"] == 300);
    let response = ask(&one.client, "http://echo.shop/hang", &[]);
    assert_eq!((response.status, response.reason()), (504, "request_timeout"), "{response:?}");
    assert_eq!(logged(&one.client, "/hang"), says("request_timeout", "UT"));
    until("the application sees its caller leave", || one.actor.gone() == ["/hang"]);
    assert_eq!(one.client.metric("pillion_requests_total", &[("reason", "request_timeout"), ("status", "504")]), 1.0);
    assert_eq!(ask(&one.client, "http://echo.shop/", &[]).status, 200);
    policy(&one.mesh, "echo", "timeouts: { request: 20s, connect: 2s }");
    treated(&one.client, "echo.shop:80", |told| told["request_ms"] == 20_000);
}

#[test]
fn the_deadline_of_a_request_covers_the_body_of_its_response() {
    let one = hanging("timeouts: { request: 300ms }", |told| told["request_ms"] == 300);
    let response = ask(&one.client, "http://echo.shop/stall", &[]);
    assert!(response.exit != 0 && response.status == 200, "cut, and not to be taken for whole: {response:?}");
    assert_eq!(logged(&one.client, "/stall"), says("request_timeout", "UT"));
    until("the application sees its caller leave", || one.actor.gone() == ["/stall"]);
}

#[test]
fn one_try_has_its_own_limit_and_the_next_one_a_new_one() {
    let one = hanging("retries: { on: [ reset ], attempts: 2, perTry: 200ms }\n  timeouts: { request: 20s }", |told| {
        told["per_try_ms"] == 200 && told["request_ms"] == 20_000
    });
    let response = ask(&one.client, "http://echo.shop/hang", &[]);
    assert_eq!((response.status, response.reason()), (504, "try_timeout"), "{response:?}");
    assert_eq!(one.actor.seen("/hang").len(), 3);
    assert_eq!(logged(&one.client, "/hang"), says("try_timeout", "URX"));
    until("every try was cancelled", || one.actor.gone().len() == 3);
}

#[test]
fn a_route_says_it_as_gateway_api_has_it() {
    let one = hanging("timeouts: { request: 20s }", |told| told["request_ms"] == 20_000);
    one.mesh.write(
        "route.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: echo, namespace: shop }\n\
         spec:\n  parentRefs: [ { group: \"\", kind: Service, name: echo } ]\n  rules:\n  \
         - timeouts: { request: 400ms, backendRequest: 200ms }\n    retry: { codes: [ 503 ], attempts: 1, backoff: 10ms }\n    \
         backendRefs: [ { name: echo, port: 80 } ]\n",
    );
    treated(&one.client, "echo.shop:80", |told| told["request_ms"] == 400 && told["per_try_ms"] == 200);
    let response = ask(&one.client, "http://echo.shop/hang", &[]);
    assert_eq!(response.status, 504, "{response:?}");
    assert_eq!(one.actor.seen("/hang").len(), 2, "no answer to one try is a reason for another");
}

#[test]
fn a_grpc_call_is_told_in_its_own_terms_and_its_server_learns_the_time_that_is_left() {
    let mesh = Mesh::start();
    let server = python_app(&mesh, "grpc_streams_server.py", &[]);
    mesh.service("streams", &[("grpc", 50051, "grpc")]);
    policy(&mesh, "streams", "timeouts: { request: 700ms }");
    let _server_sidecar = mesh.workload(Workload::new("streams").port("grpc", server.address));
    let client = mesh.workload(Workload::new("client"));
    treated(&client, "streams.shop:50051", |told| told["request_ms"] == 700);
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/grpc_call.py")).arg(client.outbound().to_string());
    command.args(["streams.shop:50051", "/streams.Streams/Linger"]);
    let said: Value = serde_json::from_str(&run(&mut command)).expect("JSON");
    // It waits for 20 s itself. Who notices first, its sidecar or the server, is chance.
    assert_eq!(said["code"], "DEADLINE_EXCEEDED", "{said}");
    let lingering = eventually("the server began", std::time::Duration::from_secs(20), || {
        let said = server.process.stdout();
        said.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|said| said["event"] == "lingering")
    });
    let left = lingering["left"].as_f64().expect("a deadline that the client did not set");
    assert!(left <= 0.7, "{lingering}");
}
