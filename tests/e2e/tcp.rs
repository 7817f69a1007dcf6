//! Opaque TCP: local ports bound to a destination, `CONNECT`, front ports; whoever speaks first, whoever ends first.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

use crate::support::{
    Mesh, Sidecar, Workload, connect, curl, in_workspace, pillion, python, python_files, read_http_head, read_to_end,
    run, tcp_server, tunnel, until,
};

const LEDGER: &str = "ledger.shop:7000";
const DEADLINE: Duration = Duration::from_secs(20);

/// A client's sidecar with a local port for the ledger, and the ledger behind its own.
struct Ledger {
    client: Sidecar,
    server: Sidecar,
    mesh: Mesh,
}

/// A way of the client's application into the mesh.
type Door = fn(&Ledger) -> TcpStream;

/// Both are to behave the same.
const DOORS: [(&str, Door); 2] = [
    ("local port", |ledger| connect(ledger.client.tcp(LEDGER))),
    ("CONNECT", |ledger| tunnel(ledger.client.outbound(), LEDGER)),
];

impl Ledger {
    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let mesh = Mesh::start();
        let application = tcp_server(&mesh, serve);
        mesh.service("ledger", &[("tcp", 7000, "tcp")]);
        let server = mesh.workload(Workload::new("ledger").port("tcp", application));
        let client = mesh.workload(Workload::new("client").tcp(LEDGER));
        Self { client, server, mesh }
    }
}

/// Answers `PING` and `ECHO text` line by line, as Redis' inline commands do.
fn line_protocol(stream: TcpStream) {
    let mut writer = stream.try_clone().expect("a socket");
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let answer = match line.split_once(' ') {
            Some(("ECHO", text)) => format!("+{text}\r\n"),
            _ if line == "PING" => "+PONG\r\n".to_owned(),
            _ => "-ERR\r\n".to_owned(),
        };
        writer.write_all(answer.as_bytes()).expect("a client that reads");
    }
}

fn banner(mut stream: TcpStream) {
    stream.write_all(b"220 ready\r\n").expect("a client");
    line_protocol(stream);
}

fn line(stream: &mut TcpStream) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\n") && stream.read(&mut byte).expect("an answer in time") == 1 {
        line.push(byte[0]);
    }
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

fn ask(stream: &mut TcpStream, question: &str) -> String {
    write!(stream, "{question}\r\n").expect("a server that reads");
    line(stream)
}

/// Closing it resets the connection.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
}

fn is_reset(stream: &mut TcpStream) -> bool {
    matches!(read_to_end(stream).1, Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn a_tcp_client_and_server_talk_over_mutual_tls_through_a_local_port_and_through_connect() {
    let ledger = Ledger::start(line_protocol);
    for (door, open) in DOORS {
        let mut stream = open(&ledger);
        for number in 0..20 {
            assert_eq!(ask(&mut stream, &format!("ECHO {number}")), format!("+{number}"), "{door}");
        }
        assert_eq!(ask(&mut stream, "PING"), "+PONG", "{door}");
    }
    let server = "spiffe://cluster.local/ns/shop/sa/ledger";
    let outbound = [("direction", "outbound"), ("peer", server), ("tls", "mutual"), ("result", "ok")];
    until("both connections are counted with the server's identity", || {
        ledger.client.metric("pillion_tcp_connections_total", &outbound) == 2.0
    });
    let client = "spiffe://cluster.local/ns/shop/sa/client";
    let inbound = [("direction", "inbound"), ("peer", client), ("tls", "mutual"), ("result", "ok")];
    until("and by the server's sidecar with the client's", || {
        ledger.server.metric("pillion_tcp_connections_total", &inbound) == 2.0
    });
    let asked: usize = (0..20).map(|number| format!("ECHO {number}\r\n").len()).sum::<usize>() + "PING\r\n".len();
    let received = ledger.client.metric("pillion_tcp_bytes_total", &[("direction", "outbound"), ("flow", "received")]);
    assert_eq!(received, (2 * asked) as f64);
}

#[test]
fn a_server_that_speaks_first_is_heard_before_the_client_says_anything() {
    let ledger = Ledger::start(banner);
    for (door, open) in DOORS {
        let mut stream = open(&ledger);
        assert_eq!(line(&mut stream), "220 ready", "{door}");
        assert_eq!(ask(&mut stream, "PING"), "+PONG", "{door}");
    }
}

#[test]
fn a_client_that_has_finished_writing_still_reads_the_whole_answer() {
    let ledger = Ledger::start(|mut stream| {
        let (received, end) = read_to_end(&mut stream);
        end.expect("the end of the client's bytes, and not a failure");
        let _gone = stream.write_all(format!("{} bytes\r\n", received.len()).as_bytes());
        let _gone = stream.write_all(&vec![b'.'; 1 << 20]);
    });
    for (door, open) in DOORS {
        let mut stream = open(&ledger);
        stream.write_all(&vec![b'x'; 300_000]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(line(&mut stream), "300000 bytes", "{door}");
        let (rest, end) = read_to_end(&mut stream);
        assert_eq!((rest.len(), end.is_ok()), (1 << 20, true), "{door}");
    }
}

#[test]
fn a_server_that_has_finished_writing_still_reads_what_the_client_sends() {
    let (sender, received) = mpsc::channel();
    let ledger = Ledger::start(move |mut stream| {
        stream.write_all(b"that is all\r\n").expect("a client");
        stream.shutdown(Shutdown::Write).expect("an open socket");
        sender.send(read_to_end(&mut stream).0).expect("the test waits");
    });
    for (door, open) in DOORS {
        let mut stream = open(&ledger);
        let (said, end) = read_to_end(&mut stream);
        assert_eq!((said.as_slice(), end.is_ok()), (&b"that is all\r\n"[..], true), "{door}");
        stream.write_all(b"but I go on").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(received.recv_timeout(DEADLINE).unwrap(), b"but I go on", "{door}");
    }
}

#[test]
fn a_server_that_resets_is_not_taken_for_one_that_has_finished() {
    let ledger = Ledger::start(|mut stream| {
        stream.write_all(b"half of the ans").expect("a client");
        line(&mut stream); // The client has read it.
        reset(stream);
    });
    for (door, open) in DOORS {
        let mut stream = open(&ledger);
        let mut half = [0; 15];
        stream.read_exact(&mut half).unwrap();
        stream.write_all(b"go on\n").unwrap();
        assert!(is_reset(&mut stream), "{door}: the client must see a failure");
    }
}

#[test]
fn a_client_that_resets_is_not_taken_for_one_that_has_finished() {
    let (sender, ended) = mpsc::channel();
    let ledger = Ledger::start(move |mut stream| {
        line(&mut stream);
        stream.write_all(b"heard\n").expect("a client");
        sender.send(is_reset(&mut stream)).expect("the test waits");
    });
    for (door, open) in DOORS {
        let mut stream = open(&ledger);
        assert_eq!(ask(&mut stream, "hello"), "heard", "{door}");
        reset(stream);
        let is_reset = ended.recv_timeout(DEADLINE).unwrap_or_else(|late| panic!("{door}: {late}"));
        assert!(is_reset, "{door}: the server must see a failure");
    }
}

#[test]
fn connect_carries_http_to_a_port_of_any_protocol_and_says_why_it_cannot() {
    let mesh = Mesh::start();
    let files = python_files(&mesh);
    mesh.service_for("files", "files", &[("any", 80, "")]);
    mesh.service_for("strictly-http", "files", &[("any", 80, "http")]);
    let _server = mesh.workload(Workload::new("files").port("any", files.address));
    let client = mesh.workload(Workload::new("client"));
    let proxy = format!("http://{}", client.outbound());

    let fetched = curl(&["-p", "-x", &proxy, "http://files.shop/hello.txt"]);
    assert_eq!((fetched.status, fetched.text().as_str()), (200, "hello\n"), "{fetched:?}");
    let labels = [("direction", "outbound"), ("destination", "files.shop:80"), ("tls", "mutual"), ("result", "ok")];
    until("it was a tunnel", || client.metric("pillion_tcp_connections_total", &labels) == 1.0);

    for (host, status, reason) in
        [("nobody.shop", "502", "unknown_destination"), ("strictly-http.shop", "502", "wrong_protocol")]
    {
        let mut stream = connect(client.outbound());
        write!(stream, "CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n").unwrap();
        let head = read_http_head(&mut stream);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {head}");
        assert!(head.contains(&format!("x-pillion-reason: {reason}")), "{host}: {head}");
    }
}

#[test]
fn a_tcp_route_splits_connections_by_weight() {
    let mesh = Mesh::start();
    let named = |name: &'static str| tcp_server(&mesh, move |mut stream| drop(stream.write_all(name.as_bytes())));
    let (old, new) = (named("old"), named("new"));
    let route = |old: u32, new: u32| {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\n\
             metadata: {{ name: split, namespace: shop }}\n\
             spec:\n  parentRefs: [ {{ group: \"\", kind: Service, name: ledger, port: 7000 }} ]\n\
             \x20 rules:\n  - backendRefs:\n    - {{ name: old, port: 7000, weight: {old} }}\n\
             \x20   - {{ name: new, port: 7000, weight: {new} }}\n"
        );
        mesh.write("route.yaml", &text);
    };
    mesh.service("ledger", &[("tcp", 7000, "tcp")]);
    mesh.service("old", &[("tcp", 7000, "tcp")]);
    mesh.service("new", &[("tcp", 7000, "tcp")]);
    route(3, 1);
    let _old = mesh.workload(Workload::new("old").port("tcp", old));
    let _new = mesh.workload(Workload::new("new").port("tcp", new));
    let client = mesh.workload(Workload::new("client").tcp(LEDGER));
    let who = || {
        let (said, end) = read_to_end(&mut connect(client.tcp(LEDGER)));
        end.map(|()| String::from_utf8(said).unwrap()).unwrap_or_default()
    };
    until("both are there", || who() == "new");
    let news = (0..200).filter(|_| who() == "new").count();
    assert!((25..=80).contains(&news), "a quarter of 200 connections, give or take four deviations: {news}");
    route(0, 1);
    until("a weight of 0 is followed", || (0..10).all(|_| who() == "new"));
    assert!((0..50).all(|_| who() == "new"));
}

#[test]
fn a_permissive_front_port_lets_plaintext_in_whoever_speaks_first_and_a_strict_one_resets_it() {
    let mesh = Mesh::start();
    let application = tcp_server(&mesh, banner);
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let untouched = tcp_server(&mesh, move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let silent = tcp_server(&mesh, line_protocol);
    let server = mesh.workload(
        Workload::new("ledger")
            .port_with("first", application, "protocol: tcp, access: permissive")
            .port_with("waits", silent, "protocol: tcp, access: permissive")
            .port_with("closed", untouched, "protocol: tcp"),
    );
    let mut stream = connect(server.front("first"));
    assert_eq!(line(&mut stream), "220 ready");
    assert_eq!(ask(&mut stream, "PING"), "+PONG");
    assert_eq!(ask(&mut connect(server.front("waits")), "PING"), "+PONG");
    until("both are counted as plaintext", || {
        server.metric("pillion_tcp_connections_total", &[("direction", "inbound"), ("tls", "none")]) >= 1.0
    });

    let mut stream = connect(server.front("closed"));
    stream.write_all(b"PING\r\n").unwrap();
    assert!(is_reset(&mut stream), "plaintext to a strict port");
    until("it is counted", || {
        server.metric("pillion_connections_refused_total", &[("reason", "plaintext_refused")]) == 1.0
    });
    assert_eq!(seen.load(Ordering::Relaxed), 0, "the application never saw it");
}

#[test]
fn a_tunnel_to_a_port_that_the_workload_does_not_have_is_refused() {
    let ledger = Ledger::start(line_protocol);
    let mesh = &ledger.mesh;
    let out = mesh.scratch().join("certificates");
    let mut command = pillion();
    command.args(["certs", "workload", "--ca"]).arg(mesh.state()).arg("--out").arg(&out);
    run(command.args(["--namespace", "shop", "--service-account", "client"]));
    let ask = |target: SocketAddr| {
        let mut command = python();
        command.arg(in_workspace("tests/e2e/apps/tunnel.py"));
        command.arg(ledger.server.mesh().to_string()).arg(target.to_string()).arg(mesh.root());
        command.arg(out.join("client.shop.pem")).arg(out.join("client.shop.key"));
        serde_json::from_str::<Value>(&run(&mut command)).unwrap()
    };
    let served = ledger.server.front("tcp");
    assert_eq!(ask(served)["status"], "200", "the port that it has");
    let admin = ledger.server.admin();
    for target in [mesh.free_address(), admin, SocketAddr::new([127, 0, 0, 1].into(), served.port())] {
        let refused = ask(target);
        assert_eq!((&refused["status"], &refused["reason"]), (&"404".into(), &"unknown_port".into()), "{target}");
    }
}

#[test]
fn many_tunnels_at_once_each_carry_their_own_bytes() {
    let ledger = Ledger::start(line_protocol);
    let mut streams: Vec<TcpStream> = (0..300).map(|_| connect(ledger.client.tcp(LEDGER))).collect();
    for round in 0..2 {
        for (number, stream) in streams.iter_mut().enumerate() {
            write!(stream, "ECHO {round}.{number}\r\n").unwrap();
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            assert_eq!(line(stream), format!("+{round}.{number}"));
        }
    }
    let mesh = [("listener", "mesh")];
    let connections = ledger.server.metric("pillion_connections_open", &mesh);
    assert!((1.0..=10.0).contains(&connections), "they share a few connections: {connections}");
}

#[test]
fn a_tcp_client_of_nobody_is_reset_or_told_and_not_answered_with_nothing() {
    let mesh = Mesh::start();
    mesh.service("ledger", &[("tcp", 7000, "tcp")]);
    let _down = mesh.workload(Workload::new("ledger").port("tcp", mesh.free_address()));
    let client = mesh.workload(Workload::new("client").tcp(LEDGER).tcp("nobody.shop:7000"));
    for (destination, reason) in [(LEDGER, "connect_failure"), ("nobody.shop:7000", "unknown_destination")] {
        assert!(is_reset(&mut connect(client.tcp(destination))), "{destination}");
        let mut stream = connect(client.outbound());
        write!(stream, "CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n\r\n").unwrap();
        let head = read_http_head(&mut stream);
        assert!(head.contains(&format!("x-pillion-reason: {reason}")), "{head}");
    }
}

#[test]
fn a_permissive_front_port_of_no_declared_protocol_takes_http_and_opaque_bytes() {
    let mesh = Mesh::start();
    let application = tcp_server(&mesh, line_protocol);
    let files = python_files(&mesh);
    let server = mesh.workload(
        Workload::new("any")
            .port_with("lines", application, "access: permissive")
            .port_with("files", files.address, "access: permissive")
            .port("closed", application),
    );
    assert_eq!(ask(&mut connect(server.front("lines")), "PING"), "+PONG");
    assert_eq!(curl(&[&format!("http://{}/hello.txt", server.front("files"))]).text(), "hello\n");
    let mut stream = connect(server.front("closed"));
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").unwrap();
    assert!(is_reset(&mut stream), "opaque plaintext to a strict port");
}
