//! Stopping without losing anything, and changing configuration without closing anything.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Mesh, Process, Sidecar, Workload, connect, curl, eventually, nginx, output, read_http_head, read_to_end, run,
    tcp_server, tool, until,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// An application in the test's hand, behind a sidecar, and a client's sidecar.
struct Pair {
    client: Sidecar,
    server: Sidecar,
    application: Held,
    mesh: Mesh,
}

/// Answers `/wait` when told to, `/trickle` with a chunk each time it is told to, anything else at once;
/// echoes what is no HTTP and what has been upgraded.
struct Held {
    address: SocketAddr,
    asked: Receiver<String>,
    go: Sender<()>,
}

impl Held {
    fn start(mesh: &Mesh) -> Self {
        let ((sender, asked), (go, wait)) = (mpsc::channel(), mpsc::channel());
        let wait = Arc::new(Mutex::new(wait));
        let address = tcp_server(mesh, move |stream| {
            let _client_gone = serve(stream, &sender, &wait);
        });
        Self { address, asked, go }
    }

    fn is_asked_for(&self, path: &str) {
        assert_eq!(self.asked.recv_timeout(DEADLINE).unwrap(), path);
    }
}

fn serve(mut stream: TcpStream, asked: &Sender<String>, wait: &Mutex<Receiver<()>>) -> std::io::Result<()> {
    loop {
        let head = read_http_head(&mut stream);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let told = || wait.lock().expect("one at a time").recv().is_ok();
        match path.as_str() {
            "" => return echo(stream),
            "/wait" => {
                asked.send(path).expect("the test listens");
                told();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nwaited\n")?;
            }
            "/trickle" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                while told() {
                    stream.write_all(b"4\r\ndrop\r\n")?;
                }
            }
            "/upgrade" => {
                stream
                    .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")?;
                return echo(stream);
            }
            _ => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")?,
        }
    }
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut back = stream.try_clone()?;
    std::io::copy(&mut stream, &mut back).map(drop)
}

impl Pair {
    fn start(settings: &[(&str, &str)]) -> Self {
        let mesh = Mesh::start();
        let application = Held::start(&mesh);
        mesh.service("app", &[("http", 80, "http"), ("tcp", 7000, "tcp")]);
        let with_settings =
            |workload: Workload| settings.iter().fold(workload, |workload, (key, value)| workload.setting(key, *value));
        let workload = Workload::new("app").port("http", application.address).port("tcp", application.address);
        let server = mesh.workload(with_settings(workload.port("other", application.address)));
        let client = mesh.workload(with_settings(Workload::new("client").tcp("app.shop:7000")));
        Self { client, server, application, mesh }
    }

    fn request(&self, path: &str) -> TcpStream {
        let mut stream = connect(self.client.outbound());
        write!(stream, "GET {path} HTTP/1.1\r\nHost: app.shop\r\n\r\n").unwrap();
        stream
    }

    fn tunnel(&self) -> TcpStream {
        let mut stream = connect(self.client.tcp("app.shop:7000"));
        stream.write_all(b"\r\n\r\n").unwrap();
        stream
    }
}

/// Readiness says no with this word in it.
fn is_not_ready(sidecar: &Sidecar, why: &str) -> bool {
    let answer = curl(&[&format!("http://{}/healthz/ready", sidecar.health())]);
    answer.status == 503 && answer.text().contains(why)
}

#[test]
fn a_stopping_sidecar_is_not_ready_takes_nothing_new_finishes_what_it_has_and_exits_0() {
    let mut pair = Pair::start(&[]);
    let mut idle = pair.request("/");
    assert!(!read_http_head(&mut idle).to_ascii_lowercase().contains("connection: close"));
    idle.read_exact(&mut [0; 2]).unwrap();
    let mut busy = pair.request("/wait");
    pair.application.is_asked_for("/wait");

    pair.client.process.signal(Signal::SIGTERM);
    until("readiness says that it is stopping", || is_not_ready(&pair.client, "stopping"));
    until("no new connection is taken", || TcpStream::connect(pair.client.outbound()).is_err());
    assert_eq!(read_to_end(&mut idle).0, b"", "an idle connection is closed");
    pair.application.go.send(()).unwrap();
    let head = read_http_head(&mut busy);
    assert!(head.starts_with("HTTP/1.1 200 ") && head.to_ascii_lowercase().contains("connection: close"), "{head}");
    let (body, end) = read_to_end(&mut busy);
    assert_eq!((body.as_slice(), end.is_ok()), (&b"waited\n"[..], true));
    assert_eq!(pair.client.process.wait().code(), Some(0));
    assert!(pair.client.process.log().contains("drained"));
}

#[test]
fn a_servers_sidecar_that_stops_finishes_requests_and_tunnels_of_the_mesh() {
    let mut pair = Pair::start(&[]);
    let mut busy = pair.request("/wait");
    pair.application.is_asked_for("/wait");
    let mut tunnel = pair.tunnel();
    let mut exchange = |words: &[u8; 5]| {
        tunnel.write_all(words).unwrap();
        let mut echo = [0; 5];
        tunnel.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, words);
    };
    exchange(b"hello");
    pair.server.process.signal(Signal::SIGTERM);
    until("it is not ready", || is_not_ready(&pair.server, "stopping"));
    exchange(b"still");
    pair.application.go.send(()).unwrap();
    assert!(read_http_head(&mut busy).starts_with("HTTP/1.1 200 "));
    exchange(b"there");
    assert!(pair.server.process.exited().is_none(), "it waits for the tunnel");
    drop(tunnel);
    assert_eq!(pair.server.process.wait().code(), Some(0));
}

#[test]
fn an_http2_client_of_a_stopping_sidecar_gets_goaway_and_its_answer() {
    let mut pair = Pair::start(&[]);
    let mut command = Command::new(tool("nghttp", "nghttp2-client"));
    command.args(["--verbose", "--no-dep", "-H", ":authority: app.shop"]);
    let mut nghttp = Process::spawn("nghttp", command.arg(format!("http://{}/wait", pair.client.outbound())));
    pair.application.is_asked_for("/wait");
    pair.client.process.signal(Signal::SIGTERM);
    until("it is told to go away", || nghttp.stdout().contains("recv GOAWAY frame"));
    pair.application.go.send(()).unwrap();
    assert!(nghttp.wait().success());
    assert!(nghttp.stdout().contains(":status: 200") && nghttp.stdout().contains("waited"), "{}", nghttp.stdout());
    assert_eq!(pair.client.process.wait().code(), Some(0));
}

#[test]
fn what_outlives_the_drain_deadline_is_cut_and_counted() {
    let mut pair = Pair::start(&[("drain_deadline", "500ms")]);
    let mut busy = pair.request("/trickle");
    assert!(read_http_head(&mut busy).starts_with("HTTP/1.1 200 "));
    let mut tunnel = pair.tunnel();
    tunnel.write_all(b"x").unwrap();
    tunnel.read_exact(&mut [0]).unwrap();
    assert_eq!(pair.client.process.terminate().code(), Some(0));
    let log = pair.client.process.log();
    assert!(log.contains("cutting connections that outlived the drain deadline") && log.contains("left=2"), "{log}");
    assert!(!read_to_end(&mut busy).0.ends_with(b"0\r\n\r\n"), "a cut response must not look complete");
}

#[test]
fn post_to_drain_stops_gracefully_and_get_does_not() {
    let mut pair = Pair::start(&[]);
    let url = format!("http://{}/drain", pair.client.admin());
    let asked = curl(&[&url]);
    assert!(asked.status == 200 && asked.text().contains("\"draining\": false"), "{asked:?}");
    assert_eq!(curl(&[&format!("http://{}/ready", pair.client.admin())]).status, 200);
    assert_eq!(curl(&["-X", "POST", "-H", "Origin: http://page.example", &url]).status, 403, "a page's script");
    assert_eq!(curl(&[&format!("http://{}/ready", pair.client.admin())]).status, 200);
    let mut busy = pair.request("/wait");
    pair.application.is_asked_for("/wait");
    assert_eq!(curl(&["-X", "POST", &url]).status, 200);
    until("it is stopping", || is_not_ready(&pair.client, "stopping"));
    pair.application.go.send(()).unwrap();
    assert!(read_http_head(&mut busy).starts_with("HTTP/1.1 200 "));
    drop(busy);
    assert_eq!(pair.client.process.wait().code(), Some(0));
}

#[test]
fn connections_that_have_said_nothing_do_not_hold_up_a_stop() {
    let mut pair = Pair::start(&[("head_timeout", "1m"), ("drain_deadline", "1m")]);
    let doors = [pair.client.outbound(), pair.server.front("http"), pair.server.mesh()];
    let silent: Vec<TcpStream> = doors.map(connect).into();
    let tls = ["s_client", "-quiet", "-alpn", "h2", "-connect"];
    let mut command = Command::new(tool("openssl", "openssl"));
    let _half_open = Process::spawn("openssl", command.args(tls).arg(pair.server.mesh().to_string()));
    let open = |sidecar: &Sidecar| sidecar.metric("pillion_connections_open", &[]);
    until("they are accepted", || open(&pair.client) >= 1.0 && open(&pair.server) >= 2.0);
    for sidecar in [&mut pair.client, &mut pair.server] {
        sidecar.process.signal(Signal::SIGTERM);
        let status = eventually("it stops long before its deadlines", DEADLINE, || sidecar.process.exited());
        assert_eq!(status.code(), Some(0));
        assert!(sidecar.process.log().contains("drained"));
    }
    drop(silent);
}

#[test]
fn load_over_http1_and_http2_loses_nothing_while_one_of_two_server_sidecars_stops() {
    let mesh = Mesh::start();
    let site = nginx(&mesh, "location / { return 200 hi; }");
    mesh.service("app", &[("http", 80, "http")]);
    let quiet = |name: &str| Workload::new(name).setting("access_log", "errors");
    let mut leaver = mesh.workload(quiet("app-1").port("http", site.address));
    let _stayer = mesh.workload(quiet("app-2").port("http", site.address));
    let client = mesh.workload(quiet("client"));
    let url = format!("http://{}/", client.outbound());
    assert_eq!(curl(&[&url, "-H", "Host: app.shop"]).status, 200);

    let mut wrk = Command::new(tool("wrk", "wrk"));
    wrk.args(["-t1", "-c8", "-d3s", "--timeout", "20s", "-H", "Host: app.shop", &url]);
    let mut h2load = Command::new(tool("h2load", "nghttp2-client"));
    h2load.args(["-D", "3", "-c", "2", "-m", "8", "-H", ":authority: app.shop", &url]);
    let (wrk, h2load) = (thread::spawn(move || run(&mut wrk)), thread::spawn(move || run(&mut h2load)));
    let served = || leaver.metric("pillion_requests_total", &[("direction", "inbound"), ("status", "200")]);
    until("the one that will leave is under load", || served() > 200.0);
    assert_eq!(leaver.process.terminate().code(), Some(0));
    let (wrk, h2load) = (wrk.join().unwrap(), h2load.join().unwrap());
    assert!(!wrk.contains("Non-2xx") && !wrk.contains("Socket errors"), "{wrk}");
    assert!(h2load.contains(" 0 failed, 0 errored, 0 timeout") && h2load.contains(" 0 4xx, 0 5xx"), "{h2load}");
}

#[test]
fn a_client_sidecar_that_stops_under_load_gives_no_wrong_answer_and_exits_0() {
    let mesh = Mesh::start();
    let site = nginx(&mesh, "location / { return 200 hi; }");
    mesh.service("app", &[("http", 80, "http")]);
    let _server = mesh.workload(Workload::new("app").setting("access_log", "errors").port("http", site.address));
    let mut client = mesh.workload(Workload::new("client").setting("access_log", "errors"));
    let url = format!("http://{}/", client.outbound());
    let mut wrk = Command::new(tool("wrk", "wrk"));
    wrk.args(["-t1", "-c8", "-d2s", "-H", "Host: app.shop", &url]);
    let load = thread::spawn(move || output(&mut wrk));
    until("it is under load", || client.metric("pillion_requests_total", &[("status", "200")]) > 100.0);
    assert_eq!(client.process.terminate().code(), Some(0));
    let report = String::from_utf8(load.join().unwrap().stdout).unwrap();
    assert!(!report.contains("Non-2xx"), "{report}");
    assert!(client.process.log().contains("drained"));
    // wrk leaves with requests under way when its time is over before the sidecar's.
    let log: Vec<_> = client.access_log().into_iter().filter(|line| line["reason"] != "client_gone").collect();
    assert_eq!(log.len(), 0, "no request failed: {log:?}");
}

/// Connections that are open for the whole test, each of a kind, and what shows that they still are.
struct Open {
    download: TcpStream,
    upgraded: TcpStream,
    tunnel: TcpStream,
}

impl Open {
    fn all(pair: &Pair) -> Self {
        let mut download = pair.request("/trickle");
        assert!(read_http_head(&mut download).starts_with("HTTP/1.1 200 "));
        let mut upgraded = connect(pair.client.outbound());
        let head = "GET /upgrade HTTP/1.1\r\nHost: app.shop\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        upgraded.write_all(head.as_bytes()).unwrap();
        assert!(read_http_head(&mut upgraded).starts_with("HTTP/1.1 101 "));
        Self { download, upgraded, tunnel: pair.tunnel() }
    }

    fn still_carry(&mut self, pair: &Pair, after: &str) {
        pair.application.go.send(()).unwrap();
        let mut chunk = [0; 9];
        self.download.read_exact(&mut chunk).unwrap_or_else(|error| panic!("download after {after}: {error}"));
        assert_eq!(&chunk, b"4\r\ndrop\r\n");
        for (kind, stream) in [("upgraded", &mut self.upgraded), ("tunnel", &mut self.tunnel)] {
            stream.write_all(after.as_bytes()).unwrap();
            let mut echo = vec![0; after.len()];
            stream.read_exact(&mut echo).unwrap_or_else(|error| panic!("{kind} after {after}: {error}"));
            assert_eq!(echo, after.as_bytes(), "{kind}");
        }
    }
}

#[test]
fn open_connections_survive_every_edit_that_still_allows_them() {
    let pair = Pair::start(&[]);
    let mut open = Open::all(&pair);
    open.still_carry(&pair, "nothing");

    let route = |rule: &str| {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: app, namespace: shop }}\n\
             spec:\n  parentRefs: [ {{ group: \"\", kind: Service, name: app, port: 80 }} ]\n  rules: [ {rule} ]\n"
        );
        pair.mesh.write("route.yaml", &text);
    };
    let status =
        |path: &str| curl(&[&format!("http://{}{path}", pair.client.outbound()), "-H", "Host: app.shop"]).status;
    route("{ matches: [ { path: { type: Exact, value: / } } ], backendRefs: [ { name: app, port: 80 } ] }");
    until("the route is followed", || status("/elsewhere") == 404 && status("/") == 200);
    open.still_carry(&pair, "a route that does not match them");

    let second = pair
        .mesh
        .workload(Workload::new("app-2").port("http", pair.application.address).port("tcp", pair.application.address));
    let address = second.front("http").to_string();
    until("the new workload is known", || pair.client.admin_page("/clusters").contains(&address));
    open.still_carry(&pair, "another workload");

    let front = format!("http://{}/", pair.server.front("other"));
    assert_eq!(curl(&[&front]).status, 403, "strict");
    pair.mesh.edit("workload-app.yaml", "name: other,", "access: permissive, name: other,");
    until("another port is permissive", || curl(&[&front]).status == 200);
    open.still_carry(&pair, "another port's access");

    pair.mesh.remove("workload-app-2.yaml");
    until("the new workload is gone", || !pair.client.admin_page("/clusters").contains(&address));
    pair.mesh.remove("route.yaml");
    until("the route is gone", || status("/") == 200 && !pair.client.admin_page("/config_dump").contains("HTTPRoute"));
    open.still_carry(&pair, "its removal");

    pair.mesh.edit("workload-app.yaml", "access: permissive, name: other,", "name: other,");
    eventually("another port is strict again", DEADLINE, || (curl(&[&front]).status == 403).then_some(()));
    open.still_carry(&pair, "that back");
}
