//! Answers that a proxy makes: each says why, to the client, in the log, and to gRPC clients in their own words.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Pair, echoed, http1, http2, through};
use crate::support::{App, Mesh, Sidecar, Workload, in_workspace, python, python_app, run, until};

/// The access log's line for a path, once it is there: (reason, flag, status).
fn logged(sidecar: &Sidecar, path: &str) -> (String, String, u64) {
    let mut found = None;
    until("the access log has the request", || {
        found = sidecar.access_log().into_iter().find(|line| line["path"] == path);
        found.is_some()
    });
    let line = found.unwrap_or_default();
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("response_flags"), line["response_code"].as_u64().unwrap_or_default())
}

fn says(reason: &str, flag: &str, status: u64) -> (String, String, u64) {
    (reason.to_owned(), flag.to_owned(), status)
}

/// An application that is not there.
fn absent(mesh: &Mesh) -> App {
    let mut app = http1(mesh);
    app.process.kill();
    app
}

const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: echo, namespace: shop }
spec:
  parentRefs: [ { group: \"\", kind: Service, name: echo } ]
  rules:
  - matches: [ { path: { type: Exact, value: /invalid } } ]
    backendRefs: [ { name: nobody, port: 80 } ]
  - matches: [ { path: { type: PathPrefix, value: /ok } } ]
    backendRefs: [ { name: echo, port: 80 } ]
";

#[test]
fn failures_of_configuration_say_so_in_answer_and_log() {
    let pair = Pair::new("http", http1);
    pair.mesh.service_for("empty", "nothing-of-that-label", &[("web", 80, "http")]);
    pair.mesh.service_for("raw", "echo", &[("web", 80, "tcp")]);
    pair.mesh.write("route.yaml", ROUTE);
    until("the route is in force", || pair.get("/", &[]).status == 404);
    for (host, path, reason, flag, status) in [
        ("echo.shop", "/none", "no_route", "NR", 404),
        ("echo.shop", "/invalid", "invalid_backend", "NC", 500),
        ("empty.shop", "/empty", "no_healthy_upstream", "UH", 503),
        ("nobody.shop", "/nobody", "unknown_destination", "NC", 502),
        ("raw.shop", "/raw", "wrong_protocol", "NR", 502),
    ] {
        let response = through(pair.client.outbound(), &format!("http://{host}{path}"), &[]);
        assert_eq!((u64::from(response.status), response.reason()), (status, reason), "{response:?}");
        assert!(response.text().starts_with("pillion: "), "the body says it in words: {response:?}");
        assert_eq!(logged(&pair.client, path), says(reason, flag, status));
    }
}

#[test]
fn an_absent_application_is_a_connect_failure_and_its_sidecar_says_so() {
    let pair = Pair::new("http", absent);
    let response = pair.get("/absent", &[]);
    assert_eq!((response.status, response.reason()), (503, "connect_failure"), "{response:?}");
    assert_eq!(logged(&pair.server, "/absent"), says("connect_failure", "UF", 503));
    assert_eq!(logged(&pair.client, "/absent").2, 503);
    assert!(!response.text().contains(&pair.app.address.to_string()), "no addresses for clients: {response:?}");
}

#[test]
fn an_absent_sidecar_is_a_connect_failure() {
    let mut pair = Pair::new("http", http1);
    pair.server.process.kill();
    let response = pair.get("/gone", &[]);
    assert_eq!((response.status, response.reason()), (503, "connect_failure"), "{response:?}");
    assert_eq!(logged(&pair.client, "/gone"), says("connect_failure", "UF", 503));
}

#[test]
fn an_application_that_does_not_answer_in_http_is_named_as_such() {
    let pair = Pair::new("http", http1);
    for (path, reason, flag, status) in
        [("/garbage", "upstream_protocol", "UPE", 502), ("/nothing", "upstream_reset", "UC", 503)]
    {
        let response = pair.get(path, &[]);
        assert_eq!((u64::from(response.status), response.reason()), (status, reason), "{response:?}");
        assert_eq!(logged(&pair.server, path), says(reason, flag, status));
    }
    echoed(&pair.get("/", &[]));
}

#[test]
fn an_http2_application_that_resets_is_named_as_such() {
    let pair = Pair::new("kubernetes.io/h2c", http2);
    let response = pair.get("/reset", &[]);
    assert_eq!((response.status, response.reason()), (503, "upstream_reset"), "{response:?}");
    assert_eq!(logged(&pair.server, "/reset"), says("upstream_reset", "UC", 503));
    let response = pair.get("/cut", &[]);
    let looks_whole = response.exit == 0 && response.status == 200;
    assert!(!looks_whole, "an answer that was cut must not look whole: {response:?}");
    assert_eq!(logged(&pair.server, "/cut").0, "upstream_reset");
    let asked_for = pair.server.access_log().into_iter().filter(|line| line["path"] == "/cut");
    assert_eq!(asked_for.count(), 1, "a stream that the application reset is no idle race to be repeated");
    echoed(&pair.get("/", &[]));
}

#[test]
fn plaintext_to_a_strict_port_is_refused_with_a_reason() {
    let pair = Pair::new("http", http1);
    for client in ["--http1.1", "--http2-prior-knowledge"] {
        let response = through(pair.server.front("web"), "http://echo.shop/outside", &[client]);
        assert_eq!((response.status, response.reason()), (403, "plaintext_refused"), "{response:?}");
    }
    assert_eq!(logged(&pair.server, "/outside"), says("plaintext_refused", "UAEX", 403));
}

#[test]
fn a_client_that_leaves_is_logged_as_such_and_its_request_is_cancelled() {
    let pair = Pair::new("kubernetes.io/h2c", http2);
    let response = pair.get("/gather/2", &["--max-time", "0.3"]);
    assert_eq!(response.exit, 28, "it waited for the second in vain: {response:?}");
    for sidecar in [&pair.client, &pair.server] {
        assert_eq!(logged(sidecar, "/gather/2"), says("client_gone", "DC", 0));
    }
}

fn grpc_calls(port: std::net::SocketAddr, authority: &str, calls: &[&str]) -> Vec<Value> {
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/grpc_call.py")).arg(port.to_string()).arg(authority).args(calls);
    run(&mut command).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn grpc_clients_are_told_in_grpcs_own_terms() {
    let pair = Pair::new("grpc", absent);
    pair.mesh.service_for("empty", "nothing-of-that-label", &[("web", 80, "grpc")]);
    pair.mesh.write("route.yaml", &ROUTE.replace("/ok", "/shop.Ok"));
    until("the route is in force", || pair.get("/", &[]).status == 404);
    for (host, method, code, reason) in [
        ("nobody.shop:80", "/shop.A/Nobody", "UNAVAILABLE", "unknown_destination"),
        ("empty.shop:80", "/shop.A/Empty", "UNAVAILABLE", "no_healthy_upstream"),
        ("echo.shop:80", "/shop.A/None", "UNIMPLEMENTED", "no_route"),
        ("echo.shop:80", "/shop.Ok/Absent", "UNAVAILABLE", "connect_failure"),
    ] {
        let said = grpc_calls(pair.client.outbound(), host, &[method]).remove(0);
        assert_eq!((&said["code"], &said["fields"]["x-pillion-reason"]), (&code.into(), &reason.into()), "{said}");
        assert!(!said["details"].as_str().unwrap_or_default().is_empty(), "{said}");
        assert_eq!(logged(&pair.client, method).2, 200, "gRPC carries its status beside HTTP's");
    }
}

#[test]
fn grpc_calls_go_to_the_host_that_works_once_the_other_was_found_absent() {
    let mesh = Mesh::start();
    let app = python_app(&mesh, "grpc_names.py", &[]);
    let gone = absent(&mesh);
    mesh.service("greeter", &[("api", 80, "grpc")]);
    let _good = mesh.workload(Workload::new("greeter-1").port("api", app.address));
    let _bad = mesh.workload(Workload::new("greeter-2").port("api", gone.address));
    let client = mesh.workload(Workload::new("client"));
    let began = Instant::now();
    let said = grpc_calls(client.outbound(), "greeter.shop:80", &["/shop.A/Do"; 16]);
    let failed = said.iter().filter(|said| said["code"] != "OK").count();
    // It is tried again after 200 ms, 600 ms, 1,400 ms and so on; unless left alone, it fails every second call.
    let rests = (1..7).take_while(|count| began.elapsed() >= Duration::from_millis(200) * (2_u32.pow(*count) - 1));
    assert!(failed <= 1 + rests.count(), "the host that failed is left alone for a while: {said:?}");
}
