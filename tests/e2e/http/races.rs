//! The idle race: a kept connection that the application closes just as it is used again.

use super::Pair;
use crate::support::{App, Mesh, python_app, until};

/// Closes each kept connection as soon as a second request has arrived on it, without an answer.
fn closes_reused(mesh: &Mesh) -> App {
    python_app(mesh, "http1.py", &["racy!"])
}

#[test]
fn a_request_that_may_be_repeated_is_and_the_client_never_knows() {
    let pair = Pair::new("http", closes_reused);
    for method in ["GET", "GET", "DELETE", "OPTIONS", "PUT"] {
        let response = pair.get("/", &["--request", method]);
        assert_eq!((response.status, response.reason()), (200, ""), "{method}: {response:?}");
    }
    until("each but the first was counted as repeated", || {
        pair.server.metric("pillion_upstream_retries_total", &[("reason", "idle_race")]) == 4.0
    });
}

#[test]
fn a_request_that_was_written_and_may_not_be_repeated_fails_with_a_reason() {
    let pair = Pair::with("http", "access: permissive", closes_reused);
    for body in [&["-d", "x=1"][..], &["--request", "POST"], &["--request", "PUT", "-d", "x=1"]] {
        assert_eq!(pair.get("/", &[]).status, 200);
        let response = pair.get("/", body);
        assert_eq!((response.status, response.reason()), (503, "idle_race"), "{body:?}: {response:?}");
        let again = pair.get("/", body);
        assert_eq!(again.status, 200, "a new connection serves the next: {again:?}");
        // This connection has now served one; the next loop wants a fresh one.
        assert_eq!(pair.get("/", &[]).status, 200);
        assert_eq!(pair.get("/", body).reason(), "idle_race");
    }
    until("the inbound log names the race and Envoy's flag", || {
        let log = pair.server.access_log();
        let races = log.iter().filter(|line| line["reason"] == "idle_race" && line["response_flags"] == "UC");
        races.count() == 6
    });
}

#[test]
fn a_kept_connection_found_closed_before_writing_costs_no_request_of_any_kind() {
    let pair = Pair::new("http", |mesh| python_app(mesh, "http1.py", &[]));
    for _ in 0..5 {
        // The application's end of the connection closes after this answer, whose head does not say so.
        assert_eq!(pair.get("/until-close", &[]).text(), "until the end");
        let response = pair.get("/", &["-d", "x=1"]);
        assert_eq!((response.status, response.reason()), (200, ""), "{response:?}");
    }
}

#[test]
fn one_client_connection_survives_its_race() {
    let pair = Pair::new("http", closes_reused);
    let get = "GET / HTTP/1.1\r\nHost: echo.shop\r\n";
    let post = "POST / HTTP/1.1\r\nHost: echo.shop\r\nContent-Length: 3\r\n";
    let answers = pair.raw(&format!("{get}\r\n{post}\r\nx=1{get}Connection: close\r\n\r\n"));
    let statuses: Vec<&str> =
        answers.lines().filter_map(|line| line.split_once("HTTP/1.1 ")).map(|(_, status)| &status[..3]).collect();
    assert_eq!(statuses, ["200", "503", "200"], "{answers}");
}
