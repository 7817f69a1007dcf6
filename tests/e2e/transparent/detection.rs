//! What a connection carries is found out without waiting: whichever side speaks first says it.

use serde_json::json;

use super::{World, files, lines, say, workload};
use crate::support::{Stack, until};

/// Far below the deadline that a proxy which waits for the client would need, and far above the noise of a machine.
const NO_STALL: f64 = 1000.0;

#[test]
fn http_opaque_bytes_and_servers_that_greet_share_an_undeclared_port_without_a_stall() {
    let world = World::start(Stack::V4);
    world.service("any", "10.96.0.10", &[(80, 8080, ""), (25, 2525, ""), (7, 7007, "")]);
    let server = world.pod(workload("any", &[(8080, ""), (2525, ""), (7007, "")]));
    let client = world.pod(workload("client", &[]));
    let _web = files(&server, &world.mesh, "127.0.0.1".parse().expect("literal"), 8080);
    let _greets = lines(&server, "127.0.0.1:2525", "220 mail ESMTP\r\n");
    let _echo = lines(&server, "127.0.0.1:7007", "");
    for _ in 0..3 {
        assert_eq!(client.curl(&["http://10.96.0.10/hello.txt"]).status, 200);
        let greeted = say(&client, "10.96.0.10", 25, &[]);
        assert_eq!(greeted["answer"], "220 mail ESMTP\r\n");
        assert!(greeted["milliseconds"].as_f64() < Some(NO_STALL), "{greeted}");
        // Words that HTTP also begins with, or that merely look like it.
        for word in ["x", "GET", "PRI", "PING\r\n", "HELLO", "ECHO x\r\n", "SEARCH x\r\n", "\x16\x03", "OPTIONS"] {
            let echoed = say(&client, "10.96.0.10", 7, &[word]);
            assert_eq!(echoed["answer"], json!(word));
            assert!(echoed["milliseconds"].as_f64() < Some(NO_STALL), "{word:?}: {echoed}");
        }
    }
    let count = |result: &str| {
        client
            .sidecar
            .metric("pillion_detection_duration_seconds_count", &[("direction", "outbound"), ("result", result)])
    };
    until("all are counted", || count("http1") == 3.0 && count("server_first") == 3.0 && count("opaque") == 24.0);
}

#[test]
fn what_is_declared_is_not_looked_at() {
    let world = World::start(Stack::V4);
    world.service("declared", "10.96.0.10", &[(80, 7007, "tcp"), (81, 8080, "http")]);
    let server = world.pod(workload("declared", &[(7007, ""), (8080, "")]));
    let client = world.pod(workload("client", &[]));
    let _echo = lines(&server, "127.0.0.1:7007", "");
    let _web = files(&server, &world.mesh, "127.0.0.1".parse().expect("literal"), 8080);
    assert_eq!(say(&client, "10.96.0.10", 80, &["GET / HTTP/1.1\r\n"])["answer"], "GET / HTTP/1.1\r\n");
    let refused = say(&client, "10.96.0.10", 81, &["no http\r\n\r\n"]);
    assert!(refused["answer"].as_str().is_some_and(|answer| answer.starts_with("HTTP/1.1 400 ")), "{refused}");
    assert_eq!(client.curl(&["http://10.96.0.10:81/hello.txt"]).status, 200);
    assert_eq!(client.sidecar.metric("pillion_detection_duration_seconds_count", &[]), 0.0);
}

#[test]
fn a_destination_that_changes_its_protocol_is_still_understood() {
    let world = World::start(Stack::V4);
    world.service("fickle", "10.96.0.10", &[(80, 8080, "")]);
    let server = world.pod(workload("fickle", &[(8080, "")]));
    let client = world.pod(workload("client", &[]));
    let mut web = files(&server, &world.mesh, "127.0.0.1".parse().expect("literal"), 8080);
    assert_eq!(client.curl(&["http://10.96.0.10/hello.txt"]).status, 200);
    web.kill();
    let mut greets = lines(&server, "127.0.0.1:8080", "hello");
    until("it greets", || say(&client, "10.96.0.10", 80, &[])["answer"] == "hello");
    greets.kill();
    let _web = files(&server, &world.mesh, "127.0.0.1".parse().expect("literal"), 8080);
    until("it is HTTP again", || client.curl(&["http://10.96.0.10/hello.txt"]).status == 200);
}

#[test]
fn nobody_there_is_a_503_for_http_and_a_reset_for_the_rest() {
    let world = World::start(Stack::V4);
    world.service("gone", "10.96.0.10", &[(80, 8080, "")]);
    let _server = world.pod(workload("gone", &[(8080, "")]));
    let client = world.pod(workload("client", &[]));
    let answer = client.curl(&["http://10.96.0.10/"]);
    assert_eq!((answer.status, answer.reason()), (503, "connect_failure"));
    for text in [&[][..], &["hello"][..]] {
        let reset = say(&client, "10.96.0.10", 80, text);
        assert_eq!(reset["error"], "Connection reset by peer");
        assert!(reset["milliseconds"].as_f64() < Some(NO_STALL), "{reset}");
    }
}
