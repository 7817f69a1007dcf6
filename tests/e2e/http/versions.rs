//! Versions of HTTP: what the client speaks, what is spoken between sidecars, what the application speaks.

use std::process::Command;

use super::{Pair, echoed, field, http1, http2, through};
use crate::support::{App, Mesh, Process, Workload, in_workspace, nginx, pillion, python, run, tool, until};

const BOTH: [&[&str]; 2] = [&["--http1.1"], &["--http2-prior-knowledge"]];

/// nghttpd, which serves its own folder and echoes what is posted to it.
fn nghttpd(mesh: &Mesh, arguments: &[&str]) -> App {
    let address = mesh.free_address();
    let mut command = Command::new(tool("nghttpd", "nghttp2-server"));
    command.args(["--no-tls", "--echo-upload", "-a", &address.ip().to_string()]).args(arguments);
    let process = Process::spawn("nghttpd", command.arg(address.port().to_string()));
    until("nghttpd listens", || std::net::TcpStream::connect(address).is_ok());
    App { process, address }
}

/// Hypercorn, which tells the versions apart by the first bytes, with an application that says which it was.
fn hypercorn(mesh: &Mesh) -> App {
    let address = mesh.free_address();
    let mut command = python();
    command.args(["-m", "hypercorn", "version:app", "--bind", &address.to_string()]);
    let process = Process::spawn("hypercorn", command.current_dir(in_workspace("tests/e2e/apps")));
    until("hypercorn listens", || std::net::TcpStream::connect(address).is_ok());
    App { process, address }
}

#[test]
fn either_version_reaches_an_http1_application_in_http1() {
    let pair = Pair::new("http", http1);
    for version in BOTH {
        let echo = echoed(&pair.get("/a/b?c=d", &[version, &["--data-binary", "x=1"]].concat()));
        assert_eq!(echo["version"], "HTTP/1.1", "{echo}");
        assert_eq!(
            (&echo["method"], &echo["target"], &echo["body"]),
            (&"POST".into(), &"/a/b?c=d".into(), &"x=1".into())
        );
        assert_eq!(field(&echo, "host"), ["echo.shop"], "{echo}");
    }
}

#[test]
fn either_version_reaches_an_http2_application_in_http2() {
    let pair = Pair::new("kubernetes.io/h2c", http2);
    for version in BOTH {
        let echo = echoed(&pair.get("/a/b?c=d", &[version, &["--data-binary", "x=1"]].concat()));
        assert_eq!((&echo["version"], &echo["body"]), (&"HTTP/2".into(), &"x=1".into()), "{echo}");
        assert_eq!(
            (field(&echo, ":authority"), field(&echo, ":path")),
            (vec!["echo.shop"], vec!["/a/b?c=d"]),
            "{echo}"
        );
        assert!(field(&echo, "host").is_empty(), "one name only, in :authority: {echo}");
    }
}

#[test]
fn a_port_of_unknown_protocol_gets_the_version_that_the_client_spoke() {
    let pair = Pair::new("", hypercorn);
    for (version, seen) in BOTH.into_iter().zip(["1.1", "2"]) {
        let response = pair.get("/", version);
        assert_eq!((response.status, response.text().as_str()), (200, seen), "{response:?}");
    }
}

#[test]
fn hosts_outside_the_mesh_are_called_in_their_version_without_tls() {
    let mesh = Mesh::start();
    let (old, new) = (http1(&mesh), http2(&mesh));
    mesh.service("old", &[("web", 80, "http")]);
    mesh.service("new", &[("web", 80, "http2")]);
    mesh.outsider(Workload::new("old").port("web", old.address));
    mesh.outsider(Workload::new("new").port("web", new.address));
    let client = mesh.workload(Workload::new("client"));
    for version in BOTH {
        for (host, seen) in [("old", "HTTP/1.1"), ("new", "HTTP/2")] {
            let echo = echoed(&through(client.outbound(), &format!("http://{host}.shop/"), version));
            assert_eq!(echo["version"], seen, "{echo}");
        }
    }
    until("both were counted as sent without TLS", || {
        client.metric("pillion_requests_total", &[("tls", "none"), ("status", "200")]) == 4.0
    });
}

#[test]
fn nghttpd_echoes_an_upload_of_either_version() {
    let pair = Pair::new("kubernetes.io/h2c", |mesh| nghttpd(mesh, &[]));
    let body = "0123456789abcdef".repeat(20_000);
    let file = pair.mesh.scratch().join("upload");
    std::fs::write(&file, &body).unwrap();
    for version in BOTH {
        let response = pair.get("/", &[version, &["--data-binary", &format!("@{}", file.display())]].concat());
        assert_eq!(response.status, 200, "{response:?}");
        assert!(response.text() == body, "{} bytes came back, not the {} sent", response.body.len(), body.len());
    }
}

#[test]
fn h2load_sees_no_failure_with_many_streams_in_either_version() {
    let pair = Pair::new("http", |mesh| nginx(mesh, "location / { return 200 ok; }"));
    for version in [&["-m", "20"][..], &["--h1"]] {
        let mut command = Command::new(tool("h2load", "nghttp2-client"));
        command.args(["-n", "1000", "-c", "4"]).args(version);
        let target = pair.client.outbound();
        command.args(["--connect-to", &target.to_string(), "http://echo.shop/"]);
        let report = run(&mut command);
        assert!(report.contains("1000 succeeded, 0 failed, 0 errored"), "{report}");
        assert!(report.contains("1000 2xx"), "{report}");
    }
}

#[test]
fn a_front_port_terminates_mutual_tls_and_speaks_either_version() {
    let pair = Pair::new("http", http1);
    let certs = pair.mesh.scratch().join("certs");
    let (ca, out) = (pair.mesh.state(), certs.clone());
    let mut command = pillion();
    command.args(["certs", "workload", "--namespace", "shop", "--service-account", "web", "--ca"]).arg(ca);
    run(command.arg("--out").arg(out));
    let file = |name: &str| certs.join(name).display().to_string();
    let (certificate, key) = (file("web.shop.pem"), file("web.shop.key"));
    // curl knows no SPIFFE: that the other side is the right one is shown in another test.
    let tls = ["--insecure", "--cert", &certificate, "--key", &key];
    for (version, seen) in [("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")] {
        let response = through(pair.server.front("web"), "https://echo.shop/", &[&tls[..], &[version]].concat());
        assert!(response.head.starts_with(seen), "{response:?}");
        let echo = echoed(&response);
        assert_eq!(field(&echo, "x-forwarded-proto"), ["https"], "{echo}");
        let us = "By=spiffe://cluster.local/ns/shop/sa/echo;URI=spiffe://cluster.local/ns/shop/sa/web";
        assert_eq!(field(&echo, "x-forwarded-client-cert"), [us], "{echo}");
    }
    let nobody = through(pair.server.front("web"), "https://echo.shop/", &["--insecure"]);
    assert_eq!(nobody.status, 0, "without a certificate there is no session: {nobody:?}");
}
