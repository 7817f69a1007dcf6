//! Pools: connections to an application are used again, and there are enough of them.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use super::{Pair, http1, http2, through};
use crate::support::{App, Mesh, Workload, nginx, python_app, run, tool};

fn accepted(pair: &Pair) -> serde_json::Value {
    serde_json::from_str(&pair.get("/accepted", &[]).text()).expect("a number or an object")
}

/// Asks for a path this many times at once, each on a connection of its own.
fn at_once(pair: &Pair, count: usize, path: &str, arguments: &[&str]) {
    let (port, url) = (pair.client.outbound(), format!("http://echo.shop{path}"));
    std::thread::scope(|scope| {
        let asks: Vec<_> = (0..count).map(|_| scope.spawn(|| through(port, &url, arguments))).collect();
        for ask in asks {
            let response = ask.join().expect("curl ran");
            assert_eq!((response.status, response.text().as_str()), (200, "gathered\n"), "{response:?}");
        }
    });
}

#[test]
fn one_connection_to_the_application_serves_clients_one_after_the_other() {
    for (protocol, app) in [("http", http1 as fn(&Mesh) -> _), ("kubernetes.io/h2c", http2)] {
        let pair = Pair::new(protocol, app);
        for _ in 0..10 {
            assert_eq!(pair.get("/", &[]).status, 200);
        }
        let accepted = accepted(&pair);
        assert_eq!(accepted.as_u64().or_else(|| accepted["http1"].as_u64()), Some(1), "{accepted}");
    }
}

#[test]
fn requests_at_the_same_time_get_connections_of_their_own_which_stay() {
    let pair = Pair::new("http", http1);
    at_once(&pair, 5, "/gather/5", &[]);
    for _ in 0..10 {
        assert_eq!(pair.get("/", &[]).status, 200);
    }
    assert_eq!(accepted(&pair)["http1"], 5);
}

#[test]
fn one_http2_connection_carries_many_requests_at_once() {
    let pair = Pair::new("kubernetes.io/h2c", http2);
    assert_eq!(pair.get("/", &[]).status, 200);
    at_once(&pair, 8, "/gather/8", &["--http2-prior-knowledge"]);
    assert_eq!(accepted(&pair), 1);
}

#[test]
fn another_http2_connection_is_opened_at_the_peers_stream_limit() {
    let pair = Pair::new("kubernetes.io/h2c", |mesh| python_app(mesh, "http2.py", &["--max-streams", "2"]));
    assert_eq!(pair.get("/", &[]).status, 200);
    // The application answers only when all six are there, and takes two per connection.
    at_once(&pair, 6, "/gather/6", &[]);
    assert_eq!(accepted(&pair), 3);
}

#[test]
fn the_stream_limit_holds_before_the_peer_has_said_it() {
    let pair = Pair::new("kubernetes.io/h2c", |mesh| python_app(mesh, "http2.py", &["--max-streams", "2"]));
    at_once(&pair, 6, "/gather/6", &[]);
}

#[test]
fn an_application_that_retires_its_connections_costs_no_request() {
    for (protocol, version) in [("http", ""), ("kubernetes.io/h2c", "http2")] {
        let pair = Pair::new(protocol, |mesh| {
            let address = mesh.free_address();
            let server = format!("listen {address} {version}; keepalive_requests 40; location / {{ return 200 ok; }}");
            App { address, ..nginx(mesh, &server) }
        });
        let mut command = Command::new(tool("h2load", "nghttp2-client"));
        command.args(["-n", "500", "-c", "2", "-m", "10", "--connect-to", &pair.client.outbound().to_string()]);
        let report = run(command.arg("http://echo.shop/"));
        assert!(report.contains("500 2xx, 0 3xx, 0 4xx, 0 5xx"), "{protocol}: {report}");
    }
}

#[test]
fn a_connection_between_sidecars_is_shared_by_all_ports_of_a_workload() {
    let mesh = Mesh::start();
    let app = http1(&mesh);
    mesh.service("echo", &[("web", 80, "http"), ("other", 81, "http")]);
    let server = mesh.workload(Workload::new("echo").port("web", app.address).port("other", app.address));
    let client = mesh.workload(Workload::new("client"));
    for url in ["http://echo.shop/", "http://echo.shop:81/", "http://echo.shop/"] {
        assert_eq!(through(client.outbound(), url, &[]).status, 200);
    }
    assert_eq!(server.metric("pillion_connections_open", &[("listener", "mesh")]), 1.0);
}

/// A connection between sidecars is everybody's: what one caller does must not end it for the others.
#[test]
fn crowds_that_leave_in_the_middle_of_answers_cost_others_nothing() {
    const ROUNDS: usize = 20;
    const CROWD: usize = 80;
    let pair = Pair::new("http", |mesh| {
        fs::write(mesh.scratch().join("big"), vec![b'x'; 4 << 20]).expect("a file");
        let root = mesh.scratch().display();
        nginx(
            mesh,
            &format!(
                "    location /big {{ root {root}; }}\n    location /slow {{ alias {root}/big; limit_rate 64k; }}"
            ),
        )
    });
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(pair.client.outbound()).expect("a listener");
        let request = format!("GET {path} HTTP/1.1\r\nHost: echo.shop\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("a request");
        stream
    };
    let mut patient = ask("/slow");
    patient.set_nonblocking(true).expect("a socket");
    let mut received = vec![0; 1 << 20];
    for round in 0..ROUNDS {
        let mut crowd: Vec<TcpStream> = (0..CROWD).map(|_| ask("/big")).collect();
        for stream in &mut crowd {
            stream.read_exact(&mut received[..100 << 10]).expect("the first part of an answer");
        }
        drop(crowd);
        match patient.read(&mut received) {
            Ok(0) => panic!("cut in round {round}"),
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "cut in round {round}"),
        }
    }
    let log = pair.client.process.log() + &pair.server.process.log();
    assert!(!log.contains("reached limit"), "{log}");
}
