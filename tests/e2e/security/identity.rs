//! Who may speak to whom: certificates of the wrong kind, on both ends of a connection, and no certificate at all.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{Credentials, another_ca, certificate, impostor, odd_certificate, openssl, refused};
use crate::support::{Mesh, Process, Recorder, Workload, curl, in_workspace, output, python, python_json, until};

const ORDERS: &str = "spiffe://cluster.local/ns/shop/sa/orders";
const PAYMENT: &str = "spiffe://cluster.local/ns/shop/sa/payment";

/// A certificate that was valid for a second, and is not any more.
fn expired(mesh: &Mesh, account: &str) -> Credentials {
    let made = certificate(mesh, &mesh.state(), account, &["--lifetime", "1s"]);
    // The second named in it counts as valid still.
    let made_at = SystemTime::now();
    until("it has expired", || made_at.elapsed().is_ok_and(|age| age >= Duration::from_secs(2)));
    made
}

/// A request as a sidecar would send it.
fn headers(port: u16) -> Value {
    json!([
        [":method", "GET"],
        [":scheme", "http"],
        [":authority", "orders.shop"],
        [":path", "/"],
        ["x-pillion-port", port.to_string()]
    ])
}

#[test]
fn the_mesh_port_takes_nobody_without_a_valid_identity_of_this_mesh() {
    let mesh = Mesh::start();
    let app = Recorder::start(mesh.ip());
    let sidecar = mesh.workload(Workload::new("orders").port("http", app.address));
    let (state, foreign) = (mesh.state(), another_ca(&mesh));
    let to = json!({ "to": sidecar.mesh().to_string(), "headers": headers(sidecar.front("http").port()) });
    let good = certificate(&mesh, &state, "client", &[]);
    let old_tls = json!({ "to": sidecar.mesh().to_string(), "max": "1.2" });
    let cases = [
        ("tls_no_certificate", to.clone()),
        ("tls_expired", expired(&mesh, "client").with(to.clone())),
        ("tls_unknown_issuer", certificate(&mesh, &foreign, "client", &[]).with(to.clone())),
        (
            "tls_wrong_identity",
            certificate(&mesh, &state, "client", &["--trust-domain", "other.example"]).with(to.clone()),
        ),
        ("tls_wrong_identity", odd_certificate(&mesh, "DNS:orders.shop").with(to.clone())),
        ("tls_wrong_identity", odd_certificate(&mesh, &format!("URI:{ORDERS},URI:{PAYMENT}")).with(to.clone())),
        ("tls_wrong_identity", odd_certificate(&mesh, "URI:https://example.com/orders").with(to.clone())),
        ("tls_incompatible", good.with(old_tls)),
    ];
    let all: Vec<&Value> = cases.iter().map(|(_, case)| case).collect();

    let outcomes = python_json("tls_peer.py", &json!(all));

    for ((reason, _), outcome) in cases.iter().zip(outcomes.as_array().expect("a list")) {
        assert!(outcome["error"].is_string() && outcome["settings"].is_null(), "{reason}: {outcome}");
        let same = cases.iter().filter(|(other, _)| other == reason).count();
        refused(&sidecar, reason, same);
    }
    assert_eq!(app.heads(), Vec::<String>::new(), "nothing reached the application");
    let welcome = python_json("tls_peer.py", &json!([good.with(to)]));
    assert_eq!(welcome[0]["status"], 200, "the same request with a good certificate: {welcome}");
}

#[test]
fn plaintext_and_http1_on_the_mesh_port_are_refused() {
    let mesh = Mesh::start();
    let app = Recorder::start(mesh.ip());
    let sidecar = mesh.workload(Workload::new("orders").port("http", app.address));
    for bytes in
        [&b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00\xffgarbage!"]
    {
        crate::support::talk(sidecar.mesh(), bytes);
    }
    refused(&sidecar, "tls_not_tls", 3);
    let good = certificate(&mesh, &mesh.state(), "client", &[]);
    let to = json!({
        "to": sidecar.mesh().to_string(),
        "alpn": [],
        "bytes": "GET / HTTP/1.1\r\nhost: orders\r\nx-pillion-port: 80\r\n\r\n"
    });

    let outcome = python_json("tls_peer.py", &json!([good.with(to)]));

    assert_ne!(outcome[0]["received"].as_str().unwrap_or_default().get(..5), Some("HTTP/"), "{outcome}");
    refused(&sidecar, "not_http", 1);
    assert_eq!(app.heads(), Vec::<String>::new());
}

#[test]
fn nothing_is_sent_to_a_host_that_is_not_who_it_should_be() {
    let mesh = Mesh::start();
    let (state, foreign) = (mesh.state(), another_ca(&mesh));
    let id = |account: &str| format!("URI:spiffe://cluster.local/ns/shop/sa/{account}");
    let cases = [
        ("thief", certificate(&mesh, &state, "somebody-else", &[]), "expected spiffe"),
        ("expired", expired(&mesh, "expired"), "expired"),
        ("forger", certificate(&mesh, &foreign, "forger", &[]), "invalid peer certificate"),
        ("nameless", odd_certificate(&mesh, "DNS:nameless.shop"), "no SPIFFE id"),
        ("double", odd_certificate(&mesh, &format!("{},{}", id("double"), id("other"))), "2 URIs"),
        ("honest", certificate(&mesh, &state, "honest", &[]), ""),
    ];
    let files: Value = cases
        .iter()
        .map(|(name, made, _)| ((*name).to_owned(), json!([made.certificate, made.key])))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut sink = python();
    sink.arg(in_workspace("tests/e2e/apps/tls_sink.py")).arg(mesh.ip().to_string()).arg(files.to_string());
    let mut sink = Process::spawn("tls_sink.py", &mut sink);
    let listening = sink.ready()["listen"].clone();
    let port = mesh.free_address().port();
    for (name, ..) in &cases {
        let address: SocketAddr = listening[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
        impostor(&mesh, name, name, port, address.port());
    }
    let client = mesh.workload(Workload::new("client"));
    let get = |name: &str| {
        let host = format!("Host: {name}.shop");
        let url = format!("http://{}/secret", client.outbound());
        curl(&[&url, "-H", &host, "-H", "authorization: secret"])
    };

    for (name, _, explanation) in cases.iter().filter(|(name, ..)| *name != "honest") {
        let response = get(name);
        assert_eq!((response.status, response.reason()), (503, "tls_failure"), "{name}: {response:?}");
        until("the access log explains it", || {
            client.access_log().iter().any(|line| {
                let detail = line["detail"].as_str().unwrap_or_default();
                line["authority"] == format!("{name}.shop") && detail.contains(explanation)
            })
        });
        let destination = format!("{name}.shop:80");
        let labels = [("destination", destination.as_str()), ("reason", "tls_failure"), ("status", "503")];
        assert_eq!(client.metric("pillion_requests_total", &labels), 1.0, "{name}");
    }
    // The right certificate is what makes the difference: here something is sent (and cut, by the sink).
    let response = get("honest");
    assert!(response.reason().starts_with("upstream_"), "{response:?}");
    let received = |line: &&Value| line["received"].is_string();
    let lines: Vec<Value> = sink.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let who: Vec<&Value> = lines.iter().filter(received).map(|line| &line["name"]).collect();
    assert!(!who.is_empty() && who.iter().all(|name| **name == "honest"), "{lines:?}");
}

#[test]
fn a_strict_port_refuses_plaintext_and_says_why() {
    let mesh = Mesh::start();
    let app = Recorder::start(mesh.ip());
    let sidecar = mesh.workload(
        Workload::new("orders")
            .setting("head_timeout", "500ms")
            .port_with("http", app.address, "protocol: http")
            .port_with("tcp", app.address, "protocol: tcp"),
    );
    let url = format!("http://{}/", sidecar.front("http"));
    for arguments in [&[url.as_str()][..], &[&url, "--http2-prior-knowledge"]] {
        let response = curl(arguments);
        assert_eq!((response.status, response.reason()), (403, "plaintext_refused"), "{response:?}");
        assert!(response.text().contains("strict"), "{response:?}");
    }
    let labels = [("direction", "inbound"), ("reason", "plaintext_refused"), ("status", "403"), ("tls", "none")];
    until("both are counted", || sidecar.metric("pillion_requests_total", &labels) == 2.0);
    for bytes in [&b"\x00\x01opaque bytes"[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(sidecar.front("tcp")).expect("a listener");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a duration above zero");
        stream.write_all(bytes).expect("sent");
        let error = stream.read(&mut [0; 16]).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    refused(&sidecar, "plaintext_refused", 2);
    crate::support::talk(sidecar.front("tcp"), b"");
    refused(&sidecar, "silent", 1);
    assert_eq!(app.heads(), Vec::<String>::new());
}

#[test]
fn a_front_port_takes_certificates_of_the_mesh_only() {
    let mesh = Mesh::start();
    let app = Recorder::start(mesh.ip());
    let sidecar = mesh.workload(Workload::new("orders").port("http", app.address));
    let to = json!({
        "to": sidecar.front("http").to_string(),
        "alpn": ["http/1.1"],
        "bytes": "GET / HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\
                  x-forwarded-client-cert: URI=spiffe://cluster.local/ns/shop/sa/boss\r\nx-pillion-port: 22\r\n\r\n"
    });
    let good = certificate(&mesh, &mesh.state(), "client", &[]);
    let foreign = certificate(&mesh, &another_ca(&mesh), "client", &[]);

    let outcomes = python_json("tls_peer.py", &json!([foreign.with(to.clone()), to.clone(), good.with(to)]));

    assert!(outcomes[0]["error"].is_string() && outcomes[1]["error"].is_string(), "{outcomes}");
    refused(&sidecar, "tls_unknown_issuer", 1);
    refused(&sidecar, "tls_no_certificate", 1);
    assert!(outcomes[2]["received"].as_str().unwrap_or_default().starts_with("HTTP/1.1 200"), "{outcomes}");
    let heads = app.heads();
    assert_eq!(heads.len(), 1, "{heads:?}");
    let peer = "x-forwarded-client-cert: By=spiffe://cluster.local/ns/shop/sa/orders;\
                URI=spiffe://cluster.local/ns/shop/sa/client";
    assert!(heads[0].contains(peer) && !heads[0].contains("boss"), "{heads:?}");
    assert!(!heads[0].contains("x-pillion"), "{heads:?}");
}

#[test]
fn sessions_are_never_resumed_and_peers_of_a_root_that_was_replaced_are_refused() {
    let mesh = Mesh::start();
    let app = Recorder::start(mesh.ip());
    let roots = mesh.secret_file("roots", &fs::read_to_string(mesh.root()).expect("a root"));
    let workload = Workload::new("orders").setting("control_plane_root", roots.display().to_string());
    let sidecar = mesh.workload(workload.port("http", app.address));
    let next = another_ca(&mesh);
    let to = json!({ "to": sidecar.mesh().to_string(), "headers": headers(sidecar.front("http").port()) });
    let old = certificate(&mesh, &mesh.state(), "client", &[]).with(to.clone());
    let new = certificate(&mesh, &next, "client", &[]).with(to);
    let outcomes = python_json("tls_peer.py", &json!([old, new]));
    assert_eq!((&outcomes[0]["status"], &outcomes[0]["ticket"]), (&json!(200), &json!(false)), "{outcomes}");
    assert!(outcomes[1]["error"].is_string(), "{outcomes}");

    fs::copy(next.join("root.pem"), &roots).expect("the roots are replaced");

    until("the new root counts", || sidecar.process.log().contains("the mesh's roots changed"));
    let outcomes = python_json("tls_peer.py", &json!([old, new]));
    assert!(outcomes[0]["error"].is_string() && outcomes[0]["status"].is_null(), "{outcomes}");
    assert_eq!(outcomes[1]["status"], 200, "{outcomes}");
    refused(&sidecar, "tls_unknown_issuer", 2);
}

#[test]
fn the_control_plane_resumes_no_session_and_openssl_gets_no_ticket_from_anybody() {
    let mesh = Mesh::start();
    let sidecar = mesh.workload(Workload::new("orders"));
    let made = certificate(&mesh, &mesh.state(), "client", &[]);
    for (address, version) in [
        (mesh.control_plane_address(), "-tls1_2"),
        (mesh.control_plane_address(), "-tls1_3"),
        (sidecar.mesh(), "-tls1_3"),
    ] {
        let mut client = openssl();
        client.args(["s_client", version, "-reconnect", "-alpn", "h2", "-connect", &address.to_string()]);
        client.arg("-cert").arg(&made.certificate).arg("-cert_chain").arg(&made.certificate);
        let said = output(client.arg("-key").arg(&made.key).stdin(std::process::Stdio::null()));
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.matches("\nNew, TLSv1.").count() >= 2, "{address} {version}: {said}");
        assert!(!said.contains("Reused") && !said.contains("TLS session ticket:"), "{address} {version}: {said}");
    }
}

/// The first bytes of a client and of its server.
type Hellos = (Vec<u8>, Vec<u8>);

/// Listens, forwards one connection to `to`, and tells the first bytes of each direction.
fn tap(ip: std::net::IpAddr, to: SocketAddr) -> (u16, mpsc::Receiver<Hellos>) {
    let listener = TcpListener::bind((ip, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let Ok(mut server) = TcpStream::connect(to) else { return };
            let first = |from: &mut TcpStream, to: &mut TcpStream| {
                let mut buffer = vec![0; 16 << 10];
                let count = from.read(&mut buffer).unwrap_or(0);
                buffer.truncate(count);
                let _gone = to.write_all(&buffer);
                buffer
            };
            let hello = first(&mut client, &mut server);
            let answer = first(&mut server, &mut client);
            let _done = sender.send((hello, answer));
            let (Ok(mut reader), Ok(mut writer)) = (client.try_clone(), server.try_clone()) else { return };
            thread::spawn(move || std::io::copy(&mut reader, &mut writer));
            thread::spawn(move || std::io::copy(&mut server, &mut client));
        }
    });
    (port, receiver)
}

/// The body of an extension of a ClientHello (`is_client`) or ServerHello in its first record (RFC 8446, section 4.1).
fn extension(record: &[u8], is_client: bool, wanted: u16) -> Option<Vec<u8>> {
    let number = |at: usize| usize::from(u16::from_be_bytes([record[at], record[at + 1]]));
    // Record header, handshake header, version, random; then the session id.
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(record[at]);
    if is_client {
        at += 2 + number(at);
        at += 1 + usize::from(record[at]);
    } else {
        at += 3;
    }
    let end = at + 2 + number(at);
    at += 2;
    while at < end {
        let (kind, length) = (number(at), number(at + 2));
        if kind == usize::from(wanted) {
            return Some(record[at + 4..at + 4 + length].to_vec());
        }
        at += 4 + length;
    }
    None
}

#[test]
fn sidecars_speak_tls_13_only_and_agree_on_x25519mlkem768() {
    const MLKEM: [u8; 2] = [0x11, 0xec];
    let mesh = Mesh::start();
    let app = Recorder::start(mesh.ip());
    let server = mesh.workload(Workload::new("orders").port("http", app.address));
    let (tapped, seen) = tap(mesh.ip(), server.mesh());
    impostor(&mesh, "tapped", "orders", server.front("http").port(), tapped);
    let client = mesh.workload(Workload::new("client"));

    let response = curl(&[&format!("http://{}/", client.outbound()), "-H", "Host: tapped.shop"]);

    assert_eq!(response.status, 200, "{response:?}");
    let (hello, answer) = seen.recv_timeout(Duration::from_secs(20)).expect("a connection");
    assert_eq!(extension(&hello, true, 43), Some(vec![2, 3, 4]), "supported_versions: TLS 1.3 alone");
    let groups = extension(&hello, true, 10).expect("supported_groups");
    assert_eq!(groups[2..4], MLKEM, "{groups:x?}");
    assert_eq!(extension(&hello, true, 16), Some(b"\0\x03\x02h2".to_vec()), "ALPN");
    assert_eq!(extension(&hello, true, 41), None, "no session is offered for resumption");
    let share = extension(&answer, false, 51).expect("key_share");
    assert_eq!(share[..2], MLKEM, "{share:x?}");
}
