//! How long connections last: opaque TCP, upgraded connections, and those that requests share.

use std::collections::HashSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use super::actor::{Act, Actor};
use super::{ask, policy, treated};
use crate::support::{
    Mesh, Sidecar, Workload, connect, in_workspace, python, python_app, read_http_head, run, tcp_server, tunnel, until,
};

const LEDGER: &str = "ledger.shop:7000";

/// Says everything back, until its client has nothing more to say.
fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        stream.write_all(&buffer[..count]).expect("a client that reads");
    }
}

/// An echo under a policy; what has to be in force in the client's configuration; the mesh, both sidecars.
fn ledger(spec: &str, in_force: (&str, u64)) -> (Mesh, Sidecar, Sidecar) {
    let mesh = Mesh::start();
    let application = tcp_server(&mesh, echo);
    mesh.service("ledger", &[("tcp", 7000, "tcp")]);
    policy(&mesh, "ledger", spec);
    let server = mesh.workload(Workload::new("ledger").port("tcp", application));
    let client = mesh.workload(Workload::new("client").tcp(LEDGER));
    until("the policy is in force", || {
        let dump: Value = serde_json::from_str(&client.admin_page("/config_dump")).expect("JSON");
        let _asked = connect(client.tcp(LEDGER));
        dump["outbound"][LEDGER]["tcp_lasts"][in_force.0] == in_force.1
    });
    (mesh, server, client)
}

/// Both ways into the mesh.
const DOORS: [fn(&Sidecar) -> TcpStream; 2] =
    [|client| connect(client.tcp(LEDGER)), |client| tunnel(client.outbound(), LEDGER)];

fn exchange(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"PING")?;
    stream.read_exact(&mut [0; 4])
}

/// How many connections ended so.
fn ended(sidecar: &Sidecar, reason: &str, flag: &str) -> usize {
    let is_it = |line: &Value| line["reason"] == reason && line["response_flags"] == flag;
    sidecar.access_log().iter().filter(|line| is_it(line)).count()
}

#[test]
fn a_tcp_connection_without_a_byte_is_cut() {
    let (_mesh, _server, client) = ledger("timeouts: { streamIdle: 300ms }", ("idle_ms", 300));
    for door in DOORS {
        let mut stream = door(&client);
        exchange(&mut stream).expect("it serves");
        let mut rest = Vec::new();
        let cut = stream.read_to_end(&mut rest).expect_err("cut, and not to be taken for the end");
        assert_eq!((cut.kind(), rest.len()), (ErrorKind::ConnectionReset, 0));
    }
    until("the log says why", || ended(&client, "stream_idle", "SI") >= 2);
}

#[test]
fn a_tcp_connection_lasts_no_longer_than_it_may_though_it_is_used() {
    let (_mesh, _server, client) = ledger("timeouts: { maxDuration: 400ms }", ("max_duration_ms", 400));
    for door in DOORS {
        let mut stream = door(&client);
        let mut exchanges = 0;
        while exchange(&mut stream).is_ok() {
            exchanges += 1;
            assert!(exchanges < 1_000_000, "it goes on for ever");
        }
        assert!(exchanges > 0, "it served before");
    }
    until("the log says why", || ended(&client, "max_duration", "UMSDR") == 2);
}

#[test]
fn a_websocket_is_held_to_the_limits_of_its_route() {
    let mesh = Mesh::start();
    let application = python_app(&mesh, "websocket_echo.py", &[]);
    mesh.service("chat", &[("web", 80, "http")]);
    policy(&mesh, "chat", "timeouts: { streamIdle: 300ms }");
    let _server = mesh.workload(Workload::new("chat").port("web", application.address));
    let client = mesh.workload(Workload::new("client"));
    treated(&client, "chat.shop:80", |told| told["stream_idle_ms"] == 300);

    let mut stream = connect(client.outbound());
    let upgrade = "GET / HTTP/1.1\r\nHost: chat.shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).expect("taken");
    let head = read_http_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(stream.read_to_end(&mut Vec::new()).is_err(), "cut without a word");
    until("the log says why", || ended(&client, "stream_idle", "SI") == 1);
}

#[test]
fn connections_that_are_old_take_no_more_requests_and_none_is_lost() {
    let mesh = Mesh::start();
    let app = Actor::start(mesh.ip(), |_| Act::Answer(200, String::new()));
    mesh.service("echo", &[("web", 80, "http")]);
    policy(&mesh, "echo", "timeouts: { connectionAge: 200ms }");
    let server = mesh.workload(Workload::new("echo").port_with("web", app.address, "access: permissive"));
    let client = mesh.workload(Workload::new("client"));
    until("the policy is in force", || {
        let _asked = ask(&client, "http://echo.shop/priming", &[]);
        let dump: Value = serde_json::from_str(&client.admin_page("/clusters")).expect("JSON");
        dump["echo.shop:80"]["connection_age_ms"] == 200
    });

    // Between the sidecars.
    let mut asked = 0;
    until("several connections were made", || {
        assert_eq!(ask(&client, "http://echo.shop/inside", &[]).status, 200);
        asked += 1;
        connections(&server, "/inside") >= 3
    });
    assert!(asked > connections(&server, "/inside"), "a connection takes several requests: {asked}");

    // From outside the mesh, by a client that would keep its connection for ever.
    let mut stream = connect(server.front("web"));
    let (mut answers, mut is_last) = (0, false);
    while !is_last {
        stream.write_all(b"GET /outside HTTP/1.1\r\nHost: echo.shop\r\n\r\n").expect("it is open");
        let head = read_http_head(&mut stream).to_lowercase();
        assert!(head.starts_with("http/1.1 200 ") && head.contains("content-length: 2"), "{head}");
        stream.read_exact(&mut [0; 2]).expect("the body");
        is_last = head.contains("connection: close");
        answers += 1;
    }
    assert!(answers > 1, "it is old after the first already");
    assert_eq!(stream.read_to_end(&mut Vec::new()).expect("closed in good order"), 0);
}

#[test]
fn a_grpc_client_outside_the_mesh_connects_anew_by_and_by_and_no_call_fails() {
    const METHOD: &str = "/flaky.Flaky/OK-0";
    let mesh = Mesh::start();
    let application = python_app(&mesh, "grpc_flaky.py", &[]);
    mesh.service("flaky", &[("grpc", 50051, "grpc")]);
    policy(&mesh, "flaky", "timeouts: { connectionAge: 100ms }");
    let server = mesh.workload(Workload::new("flaky").port_with("grpc", application.address, "access: permissive"));
    until("several connections were made", || {
        let mut command = python();
        command.arg(in_workspace("tests/e2e/apps/grpc_call.py")).arg(server.front("grpc").to_string());
        let told = run(command.arg("flaky.shop:50051").args(vec![METHOD; 300]));
        assert_eq!(told.lines().filter(|line| line.contains("\"OK\"")).count(), 300, "{told}");
        // One of each run, and more.
        let calls = server.access_log().iter().filter(|line| line["path"] == METHOD).count();
        connections(&server, METHOD) > calls / 300
    });
}

/// Connections that requests for `path` came on.
fn connections(sidecar: &Sidecar, path: &str) -> usize {
    let log = sidecar.access_log();
    let asked = log.iter().filter(|line| line["path"] == path);
    asked.map(|line| line["downstream_remote_address"].as_str().unwrap_or_default()).collect::<HashSet<_>>().len()
}
