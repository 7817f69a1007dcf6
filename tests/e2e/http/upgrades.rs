//! Upgrades: WebSocket both ways, and upgrades that are declined.

use serde_json::{Value, json};

use super::{Pair, echoed, field, http1, http2, raw};
use crate::support::{App, Mesh, in_workspace, python, python_app, run, until};

fn echo_server(mesh: &Mesh) -> App {
    python_app(mesh, "websocket_echo.py", &[])
}

fn talk(port: std::net::SocketAddr, url: &str) -> Value {
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/websocket_client.py")).arg(port.to_string()).arg(url);
    serde_json::from_str(&run(&mut command)).expect("one JSON value")
}

#[test]
fn a_websocket_echoes_through_the_pair_and_closes_with_its_code() {
    let pair = Pair::new("http", echo_server);
    let talked = talk(pair.client.outbound(), "ws://echo.shop/");
    assert_eq!(talked, json!({ "echoed": true, "code": 4001 }));
    until("both sidecars logged it as switched, without a failure", || {
        [&pair.client, &pair.server].iter().all(|sidecar| {
            let log = sidecar.access_log();
            log.iter().any(|line| line["response_code"] == 101 || line["response_code"] == 200)
                && log.iter().all(|line| line["reason"] == "")
        })
    });
}

#[test]
fn a_websocket_echoes_on_a_port_of_unknown_protocol() {
    let pair = Pair::new("", echo_server);
    assert_eq!(talk(pair.client.outbound(), "ws://echo.shop/"), json!({ "echoed": true, "code": 4001 }));
}

#[test]
fn a_websocket_echoes_through_a_permissive_front_port() {
    let pair = Pair::with("http", "access: permissive", echo_server);
    assert_eq!(talk(pair.server.front("web"), "ws://echo.shop/"), json!({ "echoed": true, "code": 4001 }));
}

#[test]
fn a_declined_websocket_is_an_ordinary_answer() {
    let pair = Pair::with("http", "access: permissive", echo_server);
    for port in [pair.client.outbound(), pair.server.front("web")] {
        let talked = talk(port, "ws://echo.shop/refused");
        assert_eq!(talked, json!({ "status": 403, "body": "not here\n" }));
    }
}

#[test]
fn an_application_that_ignores_an_upgrade_gets_the_request_with_its_body() {
    for (protocol, app) in [("http", http1 as fn(&Mesh) -> _), ("kubernetes.io/h2c", http2)] {
        let pair = Pair::new(protocol, app);
        let echo = echoed(&pair.get("/", &["-H", "Connection: Upgrade", "-H", "Upgrade: foo/2"]));
        assert_eq!(echo["method"], "GET");
        let upgrade = ["-H", "Connection: Upgrade", "-H", "Upgrade: foo/2", "-d", "body"];
        assert_eq!(echoed(&pair.get("/", &upgrade))["body"], "body");
    }
}

#[test]
fn the_upgrade_to_cleartext_http2_is_not_offered_and_not_passed_on() {
    let pair = Pair::new("http", http1);
    let response = pair.get("/", &["--http2"]);
    assert!(response.head.starts_with("HTTP/1.1 200"), "{response:?}");
    let echo = echoed(&response);
    assert!(field(&echo, "upgrade").is_empty() && field(&echo, "http2-settings").is_empty(), "{echo}");
}

#[test]
fn an_application_that_switches_unasked_is_a_protocol_failure() {
    let pair = Pair::with("http", "access: permissive", http1);
    for port in [pair.client.outbound(), pair.server.front("web")] {
        let answer = raw(port, "GET /switch HTTP/1.1\r\nHost: echo.shop\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert!(answer.contains("x-pillion-reason: upstream_protocol"), "{answer}");
    }
}
