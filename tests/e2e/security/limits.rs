//! What strangers can make a sidecar hold or tell: names that nobody knows, labels, the admin page.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use super::{refused, statuses};
use crate::support::{Mesh, Recorder, Workload, curl, python_app, talk, until};

#[test]
fn a_flood_of_unknown_destinations_is_bounded_and_known_ones_still_work() {
    // More than a sidecar keeps, refused ones included.
    const CONNECTIONS: usize = 200;
    const EACH: usize = 30;
    let mesh = Mesh::start();
    let app = Recorder::start(mesh.ip());
    mesh.service("app", &[("http", 80, "http")]);
    let _server = mesh.workload(Workload::new("app").port("http", app.address));
    let client = mesh.workload(Workload::new("client").setting("access_log", "off"));
    let known = || {
        let response = curl(&[&format!("http://{}/known", client.outbound()), "-H", "Host: app.shop"]);
        assert_eq!(response.status, 200, "{response:?}");
    };
    known();
    let (samples, memory) = (client.admin_page("/metrics").lines().count(), client.process.resident_kib());

    let flood: Vec<_> = (0..CONNECTIONS).map(|number| thread::spawn(invent(client.outbound(), number, EACH))).collect();
    while flood.iter().any(|thread| !thread.is_finished()) {
        known();
    }
    let mut answers = BTreeMap::new();
    for answered in flood.into_iter().flat_map(|thread| thread.join().expect("a flood")) {
        *answers.entry(answered).or_insert(0) += 1;
    }

    assert_eq!(answers.values().sum::<usize>(), CONNECTIONS * EACH, "{answers:?}");
    assert!(answers.keys().all(|status| [502, 503, 504].contains(status)), "{answers:?}");
    known();
    let page = client.admin_page("/metrics");
    assert!(!page.contains("invented"), "no label is a client's invention");
    assert!(page.lines().count() < samples + 120, "{samples} lines before, {} after", page.lines().count());
    let counted = |reason| client.metric("pillion_requests_total", &[("reason", reason), ("destination", "")]) as usize;
    let reasons = ["unknown_destination", "discovery_overloaded", "discovery_timeout"].map(counted);
    assert_eq!(reasons.iter().sum::<usize>(), CONNECTIONS * EACH, "{reasons:?}");
    let grown = client.process.peak_kib().saturating_sub(memory);
    assert!(grown < 96 << 10, "{grown} KiB more");
    let peak = mesh.with_control_plane(|process| process.peak_kib());
    assert!(peak < 256 << 10, "{peak} KiB in the control plane");
    until("the control plane's stream stands", || client.metric("pillion_xds_connected", &[]) == 1.0);
}

/// Requests to hosts that nobody has heard of, one after the other on one connection; the statuses of the answers.
fn invent(to: SocketAddr, connection: usize, count: usize) -> impl FnOnce() -> Vec<u16> {
    move || {
        let stream = TcpStream::connect(to).expect("a listener");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a duration above zero");
        let mut writer = stream.try_clone().expect("a socket");
        let sender = thread::spawn(move || {
            for number in 0..count {
                let end = if number + 1 == count { "Connection: close\r\n" } else { "" };
                let request = format!("GET / HTTP/1.1\r\nHost: invented-{connection}-{number}.example:81\r\n{end}\r\n");
                writer.write_all(request.as_bytes()).expect("sent");
            }
        });
        let mut received = Vec::new();
        (&stream).read_to_end(&mut received).expect("answers");
        sender.join().expect("all sent");
        let _closed = stream.shutdown(Shutdown::Both);
        let received = String::from_utf8_lossy(&received).into_owned();
        let statuses = statuses(&received);
        assert_eq!(statuses.len(), count, "{received:.1500} ... {}", &received[received.len().saturating_sub(600)..]);
        statuses
    }
}

#[test]
fn nothing_that_a_client_invents_becomes_a_label() {
    let mesh = Mesh::start();
    let app = Recorder::start(mesh.ip());
    mesh.service("app", &[("http", 80, "http")]);
    let permissive = Workload::new("app").port_with("http", app.address, "protocol: http, access: permissive");
    let server = mesh.workload(permissive);
    let client = mesh.workload(Workload::new("client"));
    for (sidecar, port) in [(&client, client.outbound()), (&server, server.front("http"))] {
        let request = |method: &str, number: usize| {
            format!(
                "{method} /invented-{number}?q=invented HTTP/1.1\r\nHost: app.shop\r\nUser-Agent: invented\r\n\
                 x-pillion-port: 1{number}\r\nx-pillion-invented: 1\r\nForwarded: for=invented\r\n\
                 Connection: close\r\n\r\n"
            )
        };
        // What is known already: a method, and the one label for all that nobody knows.
        for method in ["GET", "BREW"] {
            assert_eq!(statuses(&talk(port, request(method, 0).as_bytes())), [200]);
        }
        let counted = || sidecar.metric("pillion_requests_total", &[("status", "200")]);
        until("they are counted", || counted() >= 2.0);
        let lines = |page: &str| page.lines().filter(|line| !line.starts_with('#')).count();
        let before = lines(&sidecar.admin_page("/metrics"));
        // A method called TCP is a request like any other.
        for (number, method) in ["BREW", "TCP", "INVENTED", "PURGE", "TCP"].into_iter().enumerate() {
            assert_eq!(statuses(&talk(port, request(method, number).as_bytes())), [200], "{method}");
        }
        until("all are counted as requests", || counted() >= 7.0);
        assert_eq!(sidecar.metric("pillion_tcp_connections_total", &[]), 0.0);
        let page = sidecar.admin_page("/metrics");
        for word in ["nvented", "BREW", "PURGE", "app.shop\"}", "x-pillion"] {
            assert!(!page.contains(word), "{word} in {page}");
        }
        assert!(lines(&page) <= before + 4, "{before} lines, then {}", lines(&page));
    }
    assert!(app.heads().iter().all(|head| !head.contains("x-pillion")), "{:#?}", app.heads());
}

/// An attacker who can reach a sidecar's ports cannot use it to reach what is not in the mesh.
#[test]
fn a_sidecar_leads_nowhere_but_into_the_mesh() {
    let mesh = Mesh::start();
    let app = Recorder::start(mesh.ip());
    let client = mesh.workload(Workload::new("client").port("http", app.address));
    let proxy = client.outbound().to_string();
    for target in [client.admin(), app.address, mesh.control_plane_address()] {
        let response = curl(&[&format!("http://{proxy}/drain"), "-X", "POST", "-H", &format!("Host: {target}")]);
        assert_eq!((response.status, response.reason()), (502, "unknown_destination"), "{response:?}");
        let response = curl(&["--proxytunnel", "--proxy", &format!("http://{proxy}"), &format!("http://{target}/")]);
        assert_eq!((response.exit, response.status), (56, 502), "{response:?}");
    }
    let made = super::certificate(&mesh, &mesh.state(), "attacker", &[]);
    let connect = |authority: String| {
        let headers = serde_json::json!([[":method", "CONNECT"], [":authority", authority]]);
        made.with(serde_json::json!({ "to": client.mesh().to_string(), "headers": headers }))
    };
    let cases = [client.admin().to_string(), app.address.to_string(), "127.0.0.1:22".into(), "localhost:80".into()];
    let outcomes = crate::support::python_json("tls_peer.py", &cases.map(connect).to_vec().into());
    for outcome in outcomes.as_array().expect("a list") {
        assert!([400, 404].contains(&outcome["status"].as_i64().unwrap_or(0)), "{outcome}");
        assert!(["unknown_port", "bad_request"].contains(&outcome["reason"].as_str().unwrap_or("")), "{outcome}");
    }
    assert_eq!(app.heads(), Vec::<String>::new());
}

#[test]
fn web_pages_cannot_use_the_admin_page() {
    let mesh = Mesh::start();
    let client = mesh.workload(Workload::new("client"));
    let admin = client.admin();
    let get = |arguments: &[&str], path: &str| {
        let url = format!("http://{admin}{path}");
        curl(&[&[url.as_str()], arguments].concat())
    };
    let rebound = ["-H", "Host: evil.example"];
    let cases: [(&[&str], &str); 6] = [
        (&rebound, "/config_dump"),
        (&["-H", "Host: localhost.evil.example:15000"], "/metrics"),
        (&["-H", "Host: 127.0.0.1.evil.example"], "/clusters"),
        (&["-H", "Origin: http://evil.example"], "/config_dump"),
        (&["-H", "Origin: null", "-X", "POST"], "/drain"),
        (&["-H", "Host: evil.example", "-X", "POST"], "/drain"),
    ];
    for (arguments, path) in cases {
        let response = get(arguments, path);
        assert_eq!(response.status, 403, "{arguments:?} {path}: {response:?}");
        assert!(response.text().contains("web pages"), "{response:?}");
    }
    refused(&client, "web_page", cases.len());
    assert_eq!(get(&["-H", "Host: localhost:15000"], "/metrics").status, 200);
    for _ in 0..2 {
        assert!(get(&[], "/drain").text().contains("\"draining\": false"), "a GET must not change anything");
    }
    for path in ["/unknown", "/metrics/../../etc/passwd", "/%2e%2e/", "//", "/METRICS"] {
        assert_eq!(get(&["--path-as-is"], path).status, 404, "{path}");
    }
    for bytes in [&b"GET /metrics HTTP/1.1\r\n\tfolded\r\n\r\n"[..], b"\x16\x03\x01garbage"] {
        assert_eq!(statuses(&talk(admin, bytes)), [400]);
    }
    assert_eq!(
        curl(&[&format!("http://{}/config_dump", client.health())]).status,
        404,
        "the health port shows no more"
    );
    assert_eq!(curl(&[&format!("http://{}/ready", client.health())]).status, 200, "it was not drained");
    // The same for what the control plane shows.
    for (arguments, status) in [(&rebound[..], 403), (&["-H", "Origin: http://evil.example"], 403), (&[], 200)] {
        let url = format!("http://{}/debug/config", mesh.admin_address());
        assert_eq!(curl(&[&[url.as_str()], arguments].concat()).status, status, "{arguments:?}");
    }
}

/// The first word of a protocol may be a byte, and its client waits for the answer.
#[test]
fn a_permissive_tcp_port_passes_on_a_first_word_of_one_byte() {
    let mesh = Mesh::start();
    let echo = python_app(&mesh, "echo_tcp.py", &[]);
    let server =
        mesh.workload(Workload::new("echo").port_with("tcp", echo.address, "protocol: tcp, access: permissive"));
    for word in [&b"A"[..], b"PRI * HTTP", b"GET", b"\0", b"*1\r\n"] {
        let mut stream = TcpStream::connect(server.front("tcp")).expect("a listener");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a duration above zero");
        stream.write_all(word).expect("sent");
        let mut answer = vec![0; word.len()];
        stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("{}: {error}", word.escape_ascii()));
        assert_eq!(answer, word);
    }
}
