//! Messages: informational answers, bodies of every framing, trailers, sizes.

use std::process::Command;

use super::{Pair, echoed, field, http1, http2, raw};
use crate::support::{Mesh, Workload, nginx, output, tool, until};

const CLIENTS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

/// nghttp, which shows each frame. (curl takes the reset after an early answer for a failure.)
fn nghttp(pair: &Pair, path: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(tool("nghttp", "nghttp2-client"));
    command.args(["-v", "-n", "-t", "20", "-H", ":authority: echo.shop"]).args(arguments);
    command.arg(format!("http://{}{path}", pair.client.outbound()));
    String::from_utf8_lossy(&output(&mut command).stdout).into_owned()
}

#[test]
fn a_client_that_expects_100_continue_gets_it_and_its_body_arrives_once() {
    let pair = Pair::new("http", http1);
    let response = pair.get("/", &["-H", "Expect: 100-continue", "--expect100-timeout", "20", "-d", "body", "-v"]);
    assert!(response.message.contains("< HTTP/1.1 100 Continue"), "{}", response.message);
    assert_eq!(echoed(&response)["body"], "body");
}

#[test]
fn informational_answers_of_an_application_never_become_an_error() {
    for (protocol, app) in [("http", http1 as fn(&Mesh) -> _), ("kubernetes.io/h2c", http2)] {
        let pair = Pair::new(protocol, app);
        for client in CLIENTS {
            let response = pair.get("/hints", &[client]);
            assert_eq!(echoed(&response)["target"], "/hints", "{response:?}");
            assert_eq!(response.reason(), "", "{response:?}");
        }
    }
}

#[test]
fn answers_without_a_body_have_none_and_keep_their_fields() {
    for (protocol, app) in [("http", http1 as fn(&Mesh) -> _), ("kubernetes.io/h2c", http2)] {
        let pair = Pair::new(protocol, app);
        for client in CLIENTS {
            for status in ["204", "304"] {
                let response = pair.get(&format!("/status/{status}"), &[client]);
                assert_eq!((response.exit, response.status.to_string().as_str()), (0, status), "{response:?}");
                assert_eq!((response.header("etag"), response.body.len()), (Some("\"x\""), 0), "{response:?}");
                assert!(response.header("content-length").is_none_or(|length| length == "0"), "{response:?}");
            }
        }
    }
}

#[test]
fn a_head_request_gets_the_length_and_no_body() {
    let app = |mesh: &Mesh| nginx(mesh, "location / { return 200 'twelve bytes'; }");
    let pair = Pair::new("http", app);
    for client in CLIENTS {
        let response = pair.get("/", &[client, "--head"]);
        assert_eq!((response.exit, response.status), (0, 200), "{response:?}");
        assert_eq!(response.header("content-length"), Some("12"), "{response:?}");
    }
    let head = "HEAD / HTTP/1.1\r\nHost: echo.shop\r\n";
    let answers = pair.raw(&format!("{head}\r\n{head}Connection: close\r\n\r\n"));
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert!(!answers.contains("twelve bytes") && answers.ends_with("\r\n\r\n"), "{answers}");
}

#[test]
fn bodies_of_every_framing_arrive_whole() {
    let pair = Pair::new("http", http1);
    for client in CLIENTS {
        for (path, body) in [("/chunked", "one,two,three"), ("/until-close", "until the end"), ("/http10", "old")] {
            let response = pair.get(path, &[client]);
            assert_eq!((response.exit, response.text().as_str()), (0, body), "{response:?}");
        }
        let chunked = echoed(&pair.get("/", &[client, "-H", "Transfer-Encoding: chunked", "-d", "in chunks"]));
        assert_eq!(chunked["body"], "in chunks");
    }
}

#[test]
fn an_answer_that_was_cut_short_is_never_made_to_look_whole() {
    let pair = Pair::new("http", http1);
    for client in CLIENTS {
        for path in ["/cut", "/cut-chunked"] {
            let response = pair.get(path, &[client]);
            let looks_whole = response.exit == 0 && response.status == 200;
            assert!(!looks_whole, "curl must notice: {response:?}");
        }
    }
    until("the inbound log says what happened", || {
        pair.server.access_log().iter().filter(|line| line["reason"] == "upstream_reset").count() == 4
    });
}

#[test]
fn http_1_0_clients_get_a_body_that_ends_with_the_connection() {
    let pair = Pair::new("http", http1);
    let answer = pair.raw("GET /chunked HTTP/1.0\r\nHost: echo.shop\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200") && !answer.contains("transfer-encoding"), "{answer}");
    assert!(answer.ends_with("\r\n\r\none,two,three"), "{answer}");
    let kept = "GET /status/204 HTTP/1.0\r\nHost: echo.shop\r\nConnection: keep-alive\r\n\r\n";
    let answer = pair.raw(&format!("{kept}GET /chunked HTTP/1.0\r\nHost: echo.shop\r\n\r\n"));
    assert_eq!(answer.matches("HTTP/1.0 2").count(), 2, "{answer}");
}

#[test]
fn trailers_pass_both_ways() {
    let chunked = "POST /trailers HTTP/1.1\r\nHost: echo.shop\r\nConnection: close, TE\r\nTE: trailers\r\n\
                   Trailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Check: 7\r\n\r\n";
    for (protocol, app) in [("http", http1 as fn(&Mesh) -> _), ("kubernetes.io/h2c", http2)] {
        let pair = Pair::new(protocol, app);
        let answer = pair.raw(chunked);
        assert!(answer.contains("4\r\ndata\r\n0\r\nx-sum: 42\r\n"), "{protocol}: {answer}");
        let answer = pair.raw(&chunked.replace("/trailers", "/echo"));
        assert!(answer.contains("\"body\": \"body\""), "{protocol}: {answer}");
        assert!(answer.to_lowercase().contains("[[\"x-check\", \"7\"]]"), "{protocol}: {answer}");
        let response = pair.get("/trailers", &["--http2-prior-knowledge", "--include"]);
        assert!(response.text().contains("\r\n\r\ndatax-sum: 42\r\n"), "{protocol}: {}", response.text());
    }
}

#[test]
fn request_heads_beyond_the_limits_get_431() {
    let pair = Pair::new("http", http1);
    let large = format!("X-Large: {}", "x".repeat(50_000));
    let too_large = format!("X-Large: {}", "x".repeat(62_000));
    let many: Vec<String> = (0..120).map(|number| format!("X-{number}: 1")).collect();
    let many: Vec<&str> = many.iter().flat_map(|line| ["-H", line]).collect();
    for client in CLIENTS {
        let echo = echoed(&pair.get("/", &[client, "-H", &large]));
        assert_eq!(field(&echo, "x-large")[0].len(), 50_000);
    }
    let response = pair.get("/", &["--http1.1", "-H", &too_large]);
    assert_eq!(response.status, 431, "{response:?}");
    let log = nghttp(&pair, "/", &["-H", &too_large]);
    assert!(log.contains(":status: 431"), "{log}");
    let response = pair.get("/", &[&["--http1.1"], &many[..]].concat());
    assert_eq!(response.status, 431, "{response:?}");
}

#[test]
fn large_answer_heads_pass_and_larger_ones_fail_with_a_reason() {
    let pair = Pair::new("http", http1);
    for client in CLIENTS {
        let response = pair.get("/large/40000", &[client]);
        assert_eq!(response.header("x-large").map(str::len), Some(40_000));
        let response = pair.get("/large/90000", &[client]);
        assert_eq!((response.status, response.reason()), (502, "upstream_protocol"), "{}", response.head);
    }
}

#[test]
fn an_answer_that_comes_before_the_body_was_read_is_passed_on() {
    let pair = Pair::new("http", http1);
    let file = pair.mesh.scratch().join("large");
    std::fs::write(&file, vec![b'x'; 3_000_000]).unwrap();
    let file = file.display().to_string();
    let response = pair.get("/reject", &["--http1.1", "-H", "Expect:", "--data-binary", &format!("@{file}")]);
    assert_eq!(response.status, 413, "{response:?}");
    let log = nghttp(&pair, "/reject", &["-d", &file]);
    assert!(log.contains(":status: 413"), "{log}");
}

#[test]
fn options_for_the_whole_server_reach_the_application_as_an_asterisk() {
    for (protocol, app) in [("http", http1 as fn(&Mesh) -> _), ("kubernetes.io/h2c", http2)] {
        let pair = Pair::new(protocol, app);
        for client in CLIENTS {
            let echo = echoed(&pair.get("/", &[client, "--request", "OPTIONS", "--request-target", "*"]));
            assert_eq!((&echo["method"], &echo["target"]), (&"OPTIONS".into(), &"*".into()), "{echo}");
        }
    }
}

#[test]
fn http_1_0_without_a_host_reaches_a_port_that_leaves_no_choice() {
    let mesh = Mesh::start();
    let app = http1(&mesh);
    mesh.service("echo", &[("web", 80, "http")]);
    let server = mesh.workload(Workload::new("echo").port_with("web", app.address, "access: permissive"));
    let answer = raw(server.front("web"), "GET /a HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200") && answer.contains("\"target\": \"/a\""), "{answer}");
    let answer = raw(server.front("web"), "GET /a HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400"), "HTTP/1.1 has no excuse: {answer}");
}
