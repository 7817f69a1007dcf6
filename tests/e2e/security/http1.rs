//! HTTP/1.1 that no well-behaved client would send, on the outbound port and on a permissive front port.
//!
//! What counts is what the application sees: never a request that the client did not plainly send, and each of those
//! it does see complete and in one reading only.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio::time::Instant;

use super::{refused, statuses};
use crate::support::{Mesh, Recorder, Sidecar, Workload, curl, talk, until};

/// A mesh with one recording application, behind a sidecar with a permissive port, and a client's sidecar.
struct Stage {
    _mesh: Mesh,
    app: Recorder,
    server: Sidecar,
    client: Sidecar,
}

impl Stage {
    fn new(settings: &[(&str, &str)]) -> Self {
        let mesh = Mesh::start();
        let app = Recorder::start(mesh.ip());
        mesh.service("app", &[("http", 80, "http")]);
        let with =
            |workload: Workload| settings.iter().fold(workload, |workload, (key, value)| workload.setting(key, *value));
        let server = with(Workload::new("app")).port_with("http", app.address, "protocol: http, access: permissive");
        let server = mesh.workload(server);
        let client = mesh.workload(with(Workload::new("client")));
        Self { _mesh: mesh, app, server, client }
    }

    /// The ports that take plaintext HTTP/1.1, and whose sidecar that is.
    fn ports(&self) -> [(SocketAddr, &Sidecar); 2] {
        [(self.client.outbound(), &self.client), (self.server.front("http"), &self.server)]
    }
}

/// A POST with these fields (each ending in CRLF), and what follows the empty line.
fn post(fields: &str, rest: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: app.shop\r\n{fields}\r\n{rest}")
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: app.shop\r\n\r\n";

/// Requests that must be answered 4xx or 5xx, and reach nobody.
fn malformed() -> Vec<(&'static str, String)> {
    let chunked = "0\r\n\r\n";
    let with = |fields: &str| post(fields, &format!("{chunked}{SMUGGLED}"));
    let get = |fields: &str| format!("GET /a HTTP/1.1\r\nHost: app.shop\r\n{fields}\r\n{SMUGGLED}");
    vec![
        ("TE.TE, identity last", with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n")),
        ("TE.TE, chunked twice", with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
        ("TE list, chunked not last", with("Transfer-Encoding: chunked, identity\r\n")),
        ("TE list, an unknown coding", with("Transfer-Encoding: gzip, chunked\r\n")),
        ("TE that is nearly chunked", with("Transfer-Encoding: xchunked\r\n")),
        ("TE with a vertical tab", with("Transfer-Encoding: \x0bchunked\r\n")),
        ("TE with a space before the colon", with("Transfer-Encoding : chunked\r\n")),
        ("TE in HTTP/1.0", with("Transfer-Encoding: chunked\r\n").replacen("HTTP/1.1", "HTTP/1.0", 1)),
        ("TE on a folded line", with("X: y\r\n Transfer-Encoding: chunked\r\n")),
        ("obs-fold", get("X-A: b\r\n\tc\r\n")),
        ("a first line that is folded", "GET /a HTTP/1.1\r\n Host: app.shop\r\n\r\n".to_owned()),
        ("two lengths", post("Content-Length: 4\r\nContent-Length: 60\r\n", &format!("abcd{SMUGGLED}"))),
        ("a list of lengths", post("Content-Length: 4, 4\r\n", &format!("abcd{SMUGGLED}"))),
        ("a signed length", post("Content-Length: +4\r\n", &format!("abcd{SMUGGLED}"))),
        ("a negative length", post("Content-Length: -4\r\n", SMUGGLED)),
        ("a hexadecimal length", post("Content-Length: 0x4\r\n", &format!("abcd{SMUGGLED}"))),
        ("an empty length", post("Content-Length: \r\n", SMUGGLED)),
        ("a length beyond 64 bits", post("Content-Length: 18446744073709551617\r\n", SMUGGLED)),
        ("NUL in a value", get("X: a\0b\r\n")),
        ("a control character in a value", get("X: a\x01b\r\n")),
        ("a lone CR in a value", get("X: a\rTransfer-Encoding: chunked\r\n")),
        ("NUL in the target", format!("GET /a\0 HTTP/1.1\r\nHost: app.shop\r\n\r\n{SMUGGLED}")),
        ("a space in the target", format!("GET /a /b HTTP/1.1\r\nHost: app.shop\r\n\r\n{SMUGGLED}")),
        ("a name with a space", get("X Y: a\r\n")),
        ("an empty name", get(": a\r\n")),
        ("a line without colon", get("just text\r\n")),
        ("a future version", format!("GET /a HTTP/1.2\r\nHost: app.shop\r\n\r\n{SMUGGLED}")),
        ("two Host fields", get("Host: other.shop\r\nConnection: close\r\n").replace(SMUGGLED, "")),
        ("two equal Host fields", get("Host: app.shop\r\nConnection: close\r\n").replace(SMUGGLED, "")),
        ("no Host field", "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned()),
        ("user information", "GET http://app.shop@evil/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned()),
        ("101 fields", get(&(0..100).fold(String::new(), |text, number| text + &format!("x-{number}: 1\r\n")))),
        ("a field of 70 KiB", get(&format!("X: {}\r\n", "a".repeat(70 << 10)))),
        ("a target of 70 KiB", format!("GET /{} HTTP/1.1\r\nHost: app.shop\r\n\r\n", "a".repeat(70 << 10))),
    ]
}

#[test]
fn malformed_requests_are_refused_and_counted_and_reach_nobody() {
    let stage = Stage::new(&[]);
    for (port, sidecar) in stage.ports() {
        let cases = malformed();
        for (name, bytes) in &cases {
            let received = talk(port, bytes.as_bytes());
            let statuses = statuses(&received);
            let expected = match *name {
                "101 fields" | "a field of 70 KiB" => &[431][..],
                "a target of 70 KiB" => &[414, 431],
                _ => &[400, 413, 431, 501],
            };
            assert!(statuses.len() == 1 && expected.contains(&statuses[0]), "{name} on {port}: {received:.300}");
            assert_eq!(stage.app.heads(), Vec::<String>::new(), "{name} on {port} reached the application");
        }
        until("each is counted and explained once", || {
            let metrics = sidecar.metrics();
            let count = |name: &str, reason: &str| metrics.sum(name, &[("reason", reason)]) as usize;
            let connections =
                ["bad_http", "head_too_large"].map(|reason| count("pillion_connections_refused_total", reason));
            let requests = ["bad_authority", "bad_request"].map(|reason| count("pillion_requests_total", reason));
            let explained = sidecar.process.events("refused").len() + sidecar.access_log().len();
            connections.iter().chain(&requests).sum::<usize>() == cases.len() && explained == cases.len()
        });
    }
}

/// What is sent, what is answered, what the application sees.
type Reading = (&'static str, String, &'static [u16], &'static [&'static str]);

/// Requests with more than one reading, and other oddities.
fn ambiguous() -> Vec<Reading> {
    let chunks = "4\r\nabcd\r\n0\r\n\r\n";
    let close = "GET /end HTTP/1.1\r\nHost: app.shop\r\nConnection: close\r\n\r\n";
    vec![
        // RFC 9112, section 6.1: the chunks count, and the connection ends with the response.
        (
            "CL.TE",
            post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", &format!("0\r\n\r\n{SMUGGLED}")),
            &[200],
            &["POST /a"],
        ),
        (
            "TE.CL",
            post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", &format!("{chunks}{SMUGGLED}")),
            &[200],
            &["POST /a"],
        ),
        (
            "equal lengths",
            post("Content-Length: 4\r\nContent-Length: 4\r\n", &format!("abcd{close}")),
            &[200, 200],
            &["POST /a", "GET /end"],
        ),
        (
            "a length that Connection names",
            post("Content-Length: 4\r\nConnection: content-length\r\n", &format!("abcd{close}")),
            &[200, 200],
            &["POST /a", "GET /end"],
        ),
        (
            "a coding that Connection names",
            post("Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n", &format!("{chunks}{close}")),
            &[200, 200],
            &["POST /a", "GET /end"],
        ),
        (
            "pipelined",
            format!("{}{close}", post("Content-Length: 4\r\n", "abcd")),
            &[200, 200],
            &["POST /a", "GET /end"],
        ),
        (
            "trailers that look like a head",
            post("Transfer-Encoding: chunked\r\n", &format!("0\r\nContent-Length: 50\r\nHost: evil\r\n\r\n{close}")),
            &[200, 200],
            &["POST /a", "GET /end"],
        ),
        (
            "a body that looks like a request",
            post(&format!("Content-Length: {}\r\n", SMUGGLED.len()), &format!("{SMUGGLED}{close}")),
            &[200, 200],
            &["POST /a", "GET /end"],
        ),
        (
            "a GET with a body",
            format!("GET /a HTTP/1.1\r\nHost: app.shop\r\nContent-Length: 4\r\n\r\nabcd{close}"),
            &[200, 200],
            &["GET /a", "GET /end"],
        ),
        ("bare LF", close.replace("\r\n", "\n"), &[200], &["GET /end"]),
        ("an empty line first", format!("\r\n{close}"), &[200], &["GET /end"]),
        (
            "absolute form",
            "GET http://app.shop/end HTTP/1.1\r\nHost: evil.shop\r\nConnection: close\r\n\r\n".to_owned(),
            &[200],
            &["GET /end"],
        ),
    ]
}

#[test]
fn what_could_be_read_in_two_ways_reaches_the_application_in_one() {
    let stage = Stage::new(&[]);
    for (port, _) in stage.ports() {
        for (name, bytes, answered, seen) in ambiguous() {
            let before = stage.app.requests().len();
            let received = talk(port, bytes.as_bytes());
            assert_eq!(statuses(&received), answered, "{name} on {port}: {received}");
            assert_eq!(stage.app.requests()[before..], *seen, "{name} on {port}");
        }
    }
    let heads = stage.app.heads();
    assert!(heads.iter().all(|head| head.contains("\r\nhost: app.shop")), "{heads:#?}");
    assert!(heads.iter().all(|head| !head.to_lowercase().contains("evil")), "{heads:#?}");
}

#[test]
fn a_body_in_broken_chunks_ends_the_request_and_starts_no_other() {
    let stage = Stage::new(&[]);
    let bodies = [
        ("no number", "xyz\r\nabcd\r\n0\r\n\r\n"),
        ("a sign", "+4\r\nabcd\r\n0\r\n\r\n"),
        ("negative", "-4\r\nabcd\r\n0\r\n\r\n"),
        ("0x", "0x4\r\nabcd\r\n0\r\n\r\n"),
        ("a space inside", "4 4\r\nabcd\r\n0\r\n\r\n"),
        ("beyond 64 bits", "10000000000000004\r\nabcd\r\n0\r\n\r\n"),
        ("ended by LF", "4\nabcd\n0\n\n"),
        ("LF in an extension", "4;a\nbc\r\nabcd\r\n0\r\n\r\n"),
        ("data longer than its size", "4\r\nabcdefgh\r\n0\r\n\r\n"),
        ("nothing", "\r\n"),
    ];
    for (port, sidecar) in stage.ports() {
        for (name, body) in bodies {
            let before = stage.app.requests().len();
            let received = talk(port, post("Transfer-Encoding: chunked\r\n", &format!("{body}{SMUGGLED}")).as_bytes());
            let seen = &stage.app.requests()[before..];
            assert!(statuses(&received).len() <= 1, "{name} on {port}: {received}");
            assert!(seen.iter().all(|request| request == "POST /a") && seen.len() <= 1, "{name} on {port}: {seen:?}");
        }
        let response = curl(&[&format!("http://{port}/after"), "-H", "Host: app.shop"]);
        assert_eq!(response.status, 200, "{response:?}");
        until("each is counted", || sidecar.metric("pillion_requests_total", &[]) as usize > bodies.len());
    }
}

/// An upgrade that announces a body has none when it is sent on: the next request on the kept connection to the
/// application would be taken for it.
#[test]
fn a_refused_upgrade_with_a_body_does_not_swallow_the_next_request() {
    let stage = Stage::new(&[]);
    for (port, _) in stage.ports() {
        for framing in [
            "Content-Length: 40\r\n\r\n0123456789012345678901234567890123456789",
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            let before = stage.app.requests().len();
            let mut stream = TcpStream::connect(port).expect("a listener");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a duration above zero");
            let bytes = format!(
                "GET /upgrade HTTP/1.1\r\nHost: app.shop\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{framing}"
            );
            stream.write_all(bytes.as_bytes()).expect("sent");
            let count = stream.read(&mut [0; 4096]).expect("an answer");
            assert!(count > 0);
            for number in 0..2 {
                let response =
                    curl(&[&format!("http://{port}/victim-{number}"), "-H", "Host: app.shop", "--max-time", "10"]);
                assert_eq!(response.status, 200, "{framing}: {response:?}");
            }
            let seen = stage.app.requests()[before..].to_vec();
            assert_eq!(seen, ["GET /upgrade", "GET /victim-0", "GET /victim-1"], "{framing} on {port}");
        }
    }
}

#[test]
fn slow_heads_end_in_time_and_slow_bodies_hold_up_nobody() {
    const SLOW: usize = 40;
    let stage = Stage::new(&[("head_timeout", "700ms")]);
    for (port, sidecar) in stage.ports() {
        let start = |bytes: &str| {
            let mut stream = TcpStream::connect(port).expect("a listener");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a duration above zero");
            stream.write_all(bytes.as_bytes()).expect("sent");
            stream
        };
        let bodies: Vec<TcpStream> = (0..SLOW)
            .map(|_| start("POST /slow HTTP/1.1\r\nHost: app.shop\r\nContent-Length: 100000\r\n\r\na"))
            .collect();
        let mut heads: Vec<TcpStream> =
            (0..SLOW).map(|_| start("GET /loris HTTP/1.1\r\nHost: app.shop\r\nX-Slow: ")).collect();
        let silent = [start(""), start("PRI * HTTP/2.0\r\n\r\n"), start("GE")];
        let began = Instant::now();
        let mut served = 0;
        // A byte now and then does not buy more time.
        while heads.iter_mut().any(|stream| stream.write_all(b"a").is_ok()) {
            let response = curl(&[&format!("http://{port}/others"), "-H", "Host: app.shop"]);
            assert_eq!(response.status, 200, "{response:?}");
            served += 1;
            assert!(began.elapsed() < Duration::from_secs(20), "slow heads are still open");
        }
        assert!(served > 0);
        for mut stream in silent {
            assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0, "a connection without a request ends");
        }
        refused(sidecar, "head_timeout", SLOW);
        refused(sidecar, "silent", 3);
        let open = |stream: &TcpStream| {
            stream.set_nonblocking(true).expect("a socket");
            let answer = stream.peek(&mut [0; 1]);
            answer.is_ok_and(|count| count > 0) || stream.take_error().expect("a socket").is_none()
        };
        assert!(bodies.iter().all(open), "a slow body is allowed");
        assert!(sidecar.process.peak_kib() < 256 << 10, "{} KiB", sidecar.process.peak_kib());
    }
    let requests = stage.app.requests();
    assert!(!requests.iter().any(|request| request.contains("loris")), "half a head reaches nobody");
}

/// The last of them found the deadline for the first one's head long past.
#[test]
fn pipelined_requests_are_all_answered_however_long_they_take() {
    let stage = Stage::new(&[("head_timeout", "300ms")]);
    let one = "GET /slow HTTP/1.1\r\nHost: app.shop\r\n";
    let all = format!("{one}\r\n{one}\r\n{one}\r\n{one}Connection: close\r\n\r\n");
    for (port, _) in stage.ports() {
        assert_eq!(statuses(&talk(port, all.as_bytes())), [200; 4], "{port}");
    }
}

#[test]
fn garbage_tls_and_clients_that_leave_are_counted_and_harm_nobody() {
    let stage = Stage::new(&[("head_timeout", "700ms"), ("tls_timeout", "700ms")]);
    let record = |length: u16, body: &[u8]| {
        let mut record = vec![0x16, 3, 1];
        record.extend(length.to_be_bytes());
        record.extend(body);
        record
    };
    // A ClientHello that says it is 16 MiB long, in pieces.
    let endless: Vec<u8> = (0..40)
        .flat_map(|number| {
            let mut body = vec![0; 16_384];
            if number == 0 {
                body[..4].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
            }
            record(16_384, &body)
        })
        .collect();
    let fragments: Vec<u8> = (0..2000).flat_map(|_| record(0, &[])).collect();
    let cases: [(&str, Vec<u8>); 6] = [
        ("a record beyond its limit", record(0xffff, &[0; 70_000])),
        ("an endless ClientHello", endless),
        ("empty fragments", fragments),
        ("an SNI of 16 KB", client_hello(&"a".repeat(16_000))),
        ("garbage", vec![0xff; 4096]),
        ("half a record", record(500, b"\x01\0\x01\xf0")),
    ];
    for (name, bytes) in &cases {
        for port in [stage.server.mesh(), stage.server.front("http"), stage.client.outbound()] {
            let received = talk(port, bytes);
            assert!(received.len() < 200, "{name} on {port}: {}", received.escape_debug());
        }
    }
    let total = |sidecar: &Sidecar| sidecar.metric("pillion_connections_refused_total", &[]) as usize;
    until("each is counted", || total(&stage.client) == cases.len() && total(&stage.server) == 2 * cases.len());
    assert!(stage.server.process.peak_kib() < 256 << 10, "{} KiB", stage.server.process.peak_kib());
    let response = curl(&[&format!("http://{}/", stage.client.outbound()), "-H", "Host: app.shop"]);
    assert_eq!(response.status, 200, "{response:?}");
}

/// A ClientHello of TLS 1.3 with this server name and nothing else that a server could go on with.
fn client_hello(name: &str) -> Vec<u8> {
    let length = |count: usize| u16::try_from(count).expect("below 64 KiB").to_be_bytes();
    let mut sni = vec![0];
    sni.extend(length(name.len()));
    sni.extend(name.as_bytes());
    let mut extensions = vec![0, 0];
    extensions.extend(length(sni.len() + 2));
    extensions.extend(length(sni.len()));
    extensions.extend(sni);
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0x13, 1, 1, 0]);
    hello.extend(length(extensions.len()));
    hello.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend(length(hello.len()));
    handshake.extend(hello);
    let mut record = vec![0x16, 3, 1];
    record.extend(length(handshake.len()));
    record.extend(handshake);
    record
}
