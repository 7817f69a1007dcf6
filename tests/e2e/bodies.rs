//! Large, slow and broken bodies: constant memory, back-pressure, and an end that is told as what it was.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::{
    Mesh, Sidecar, Workload, connect, eventually, nginx, output, read_http_head, read_to_end, tcp_server, tool, tunnel,
    until,
};

const DEADLINE: Duration = Duration::from_secs(20);
/// Size of the large bodies; a full run says 4096.
const BODY_MIB: &str = "PILLION_TEST_BODY_MIB";
const DEFAULT_BODY_MIB: u64 = 512;
/// A sidecar's peak memory while they pass, less than an eighth of the smallest of them.
const PEAK_KIB: u64 = 64 << 10;
/// What may be under way between an end that sends and one that does not read: two sidecars' windows and buffers, and
/// the kernel's send and receive buffers (up to 4 and 6 MiB each) of three connections.
const UNDER_WAY_BYTES: u64 = 40 << 20;

/// A server and a client in a mesh, HTTP on port 80 and the same as TCP on port 7000.
struct Pair {
    client: Sidecar,
    server: Sidecar,
    _mesh: Mesh,
}

impl Pair {
    fn new(mesh: Mesh, application: SocketAddr) -> Self {
        mesh.service("app", &[("http", 80, "http"), ("tcp", 7000, "tcp")]);
        let server = mesh.workload(Workload::new("app").port("http", application).port("tcp", application));
        let client = mesh.workload(Workload::new("client").tcp("app.shop:7000"));
        Self { client, server, _mesh: mesh }
    }

    fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let mesh = Mesh::start();
        let application = tcp_server(&mesh, serve);
        Self::new(mesh, application)
    }

    /// curl to the application, without keeping what it gets.
    fn curl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(tool("curl", "curl"));
        command
            .args(["--silent", "--show-error", "--noproxy", "", "--proxy"])
            .arg(format!("http://{}", self.client.outbound()));
        output(command.args(arguments))
    }

    fn request(&self, head: &str) -> TcpStream {
        let mut stream = connect(self.client.outbound());
        write!(stream, "{head}\r\nHost: app.shop\r\n\r\n").unwrap();
        stream
    }
}

fn body_bytes() -> u64 {
    std::env::var(BODY_MIB).map_or(DEFAULT_BODY_MIB, |text| text.parse().expect("a number of MiB")) << 20
}

/// Reads an HTTP request's body of a length, or until the client breaks off, and answers how much it was.
fn sink(mut stream: TcpStream) {
    loop {
        let head = read_http_head(&mut stream).to_ascii_lowercase();
        let Some(length) = head.lines().find_map(|line| line.strip_prefix("content-length: ")) else { return };
        let (mut left, mut buffer) = (length.parse::<u64>().expect("a length"), vec![0; 256 << 10]);
        while left > 0 {
            let Ok(count @ 1..) = stream.read(&mut buffer) else { return };
            left -= count as u64;
        }
        let _gone = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{length}", length.len());
    }
}

/// Writes as fast as it is allowed to, and counts.
fn pour(stream: &mut TcpStream, bytes: u64, counter: &AtomicU64) -> std::io::Result<()> {
    let chunk = vec![b'.'; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let count = stream.write(&chunk[..chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX))])?;
        counter.fetch_add(count as u64, Ordering::Relaxed);
        left -= count as u64;
    }
    Ok(())
}

/// Waits until a counter has not moved for a while, and returns it.
fn standstill(what: &str, counter: &AtomicU64) -> u64 {
    let mut seen = (0, Instant::now());
    eventually(what, DEADLINE, || {
        let now = counter.load(Ordering::Relaxed);
        if now != seen.0 {
            seen = (now, Instant::now());
        }
        (now > 0 && seen.1.elapsed() > Duration::from_millis(500)).then_some(now)
    })
}

#[test]
fn a_huge_download_and_a_huge_upload_pass_in_constant_memory() {
    let bytes = body_bytes();
    let mesh = Mesh::start();
    // A file of holes: it has a length and takes no space.
    let folder = mesh.scratch().join("holes");
    std::fs::create_dir(&folder).unwrap();
    let file = File::create(folder.join("huge")).unwrap();
    file.set_len(bytes).unwrap();
    let source = nginx(&mesh, &format!("root {};", folder.display()));
    let target = tcp_server(&mesh, sink);
    mesh.service("source", &[("http", 80, "http")]);
    mesh.service("target", &[("http", 80, "http")]);
    let server = mesh.workload(Workload::new("source").port("http", source.address));
    let taker = mesh.workload(Workload::new("target").port("http", target));
    let client = mesh.workload(Workload::new("client"));
    let proxy = format!("http://{}", client.outbound());
    let curl = |arguments: &[&str]| {
        let mut command = Command::new(tool("curl", "curl"));
        let output =
            output(command.args(["--silent", "--show-error", "--noproxy", "", "--proxy", &proxy]).args(arguments));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };

    let report = ["--output", "/dev/null", "--write-out", "%{http_code} %{size_download}"];
    assert_eq!(curl(&[&report[..], &["http://source.shop/huge"]].concat()), format!("200 {bytes}"));
    let path = folder.join("huge").display().to_string();
    let upload = ["--upload-file", &path, "-H", "Expect:", "http://target.shop/"];
    assert_eq!(curl(&upload), bytes.to_string());

    for (name, sidecar) in [("client", &client), ("source", &server), ("target", &taker)] {
        let peak = sidecar.process.peak_kib();
        assert!(peak < PEAK_KIB, "the {name}'s sidecar had {peak} KiB in use");
    }
}

#[test]
fn a_client_that_does_not_read_stops_the_server_and_gets_all_once_it_reads() {
    const BYTES: u64 = 96 << 20;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let pair = Pair::start(move |mut stream| {
        let head = read_http_head(&mut stream);
        if head.starts_with("GET ") {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").expect("a client");
        }
        let _broken = pour(&mut stream, BYTES, &counter);
    });
    for kind in ["HTTP", "TCP"] {
        sent.store(0, Ordering::Relaxed);
        let mut stream = if kind == "HTTP" {
            let mut stream = pair.request("GET / HTTP/1.1");
            assert!(read_http_head(&mut stream).starts_with("HTTP/1.1 200 "));
            stream
        } else {
            let mut stream = connect(pair.client.tcp("app.shop:7000"));
            stream.write_all(b"pour\r\n\r\n").unwrap();
            stream
        };
        let accepted = standstill("the server stands still", &sent);
        assert!(accepted < UNDER_WAY_BYTES, "{kind}: {accepted} bytes were taken from the server");
        let mut received = 0;
        let mut buffer = vec![0; 256 << 10];
        while received < BYTES {
            received += match stream.read(&mut buffer).unwrap() {
                0 => panic!("{kind}: the end after {received} bytes"),
                count => count as u64,
            };
        }
        assert_eq!(received, BYTES, "{kind}");
    }
}

#[test]
fn a_server_that_does_not_read_stops_the_client_and_gets_all_once_it_reads() {
    const BYTES: u64 = 96 << 20;
    let (go, wait) = mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let (done, received) = mpsc::channel();
    let pair = Pair::start(move |mut stream| {
        assert!(!read_http_head(&mut stream).is_empty());
        wait.lock().expect("one at a time").recv().expect("the test says when");
        let (mut left, mut buffer) = (BYTES, vec![0; 256 << 10]);
        while left > 0 {
            left -= stream.read(&mut buffer).expect("bytes") as u64;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("a client");
        done.send(()).expect("the test waits");
    });
    for kind in ["HTTP", "TCP"] {
        let mut stream = if kind == "HTTP" {
            pair.request(&format!("POST / HTTP/1.1\r\nContent-Length: {BYTES}"))
        } else {
            let mut stream = connect(pair.client.tcp("app.shop:7000"));
            stream.write_all(b"drink\r\n\r\n").unwrap();
            stream
        };
        let sent = Arc::new(AtomicU64::new(0));
        let (counter, mut writer) = (Arc::clone(&sent), stream.try_clone().unwrap());
        let pouring = thread::spawn(move || pour(&mut writer, BYTES, &counter));
        let accepted = standstill("the client stands still", &sent);
        assert!(accepted < UNDER_WAY_BYTES, "{kind}: {accepted} bytes were taken from the client");
        go.send(()).unwrap();
        received.recv_timeout(DEADLINE).unwrap();
        pouring.join().unwrap().unwrap();
        assert!(read_http_head(&mut stream).starts_with("HTTP/1.1 200 "), "{kind}");
    }
}

#[test]
fn a_chunk_is_passed_on_at_once_and_not_when_the_body_is_complete() {
    let (next, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let pair = Pair::start(move |mut stream| {
        read_http_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").expect("a client");
        for _ in 0..5 {
            stream.write_all(b"4\r\ntick\r\n").expect("a client");
            wait.lock().expect("one at a time").recv().expect("the test says when");
        }
        stream.write_all(b"0\r\n\r\n").expect("a client");
    });
    let mut stream = pair.request("GET / HTTP/1.1");
    assert!(read_http_head(&mut stream).starts_with("HTTP/1.1 200 "));
    for _ in 0..5 {
        let mut chunk = [0; 9];
        stream.read_exact(&mut chunk).unwrap();
        assert_eq!(&chunk, b"4\r\ntick\r\n");
        next.send(()).unwrap();
    }
    let mut end = [0; 5];
    stream.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
}

#[test]
fn a_client_that_goes_away_ends_the_applications_connection_soon() {
    let (sender, ended) = mpsc::channel();
    let pair = Pair::start(move |mut stream| {
        let head = read_http_head(&mut stream);
        if head.starts_with("GET /begun") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").expect("a client");
        }
        sender.send("begun").expect("the test waits");
        let (received, _end) = read_to_end(&mut stream);
        let complete = received.ends_with(b"0\r\n\r\n");
        sender.send(if complete { "taken for complete" } else { "ended" }).expect("the test waits");
    });
    let wait_for = |what| assert_eq!(ended.recv_timeout(DEADLINE), Ok(what));
    for head in [
        "GET /begun HTTP/1.1",
        "GET /waiting HTTP/1.1",
        "POST /sending HTTP/1.1\r\nContent-Length: 100",
        "POST /chunks HTTP/1.1\r\nTransfer-Encoding: chunked",
    ] {
        let mut stream = pair.request(head);
        if head.starts_with("POST ") {
            stream.write_all(b"4\r\nhalf\r\n").unwrap();
        }
        wait_for("begun");
        if head.starts_with("GET /begun") {
            read_http_head(&mut stream);
        }
        drop(stream);
        wait_for("ended");
        let path = head.split(' ').nth(1).unwrap();
        until("it is logged as the client's doing", || {
            let log = pair.client.access_log();
            log.iter().any(|line| line["path"] == path && line["reason"] == "client_gone")
        });
    }
    let mut tunnelled = tunnel(pair.client.outbound(), "app.shop:7000");
    tunnelled.write_all(b"\r\n\r\n").unwrap();
    wait_for("begun");
    drop(tunnelled);
    wait_for("ended");
    assert_eq!(pair.server.metric("pillion_connections_refused_total", &[]), 0.0);
}

#[test]
fn an_application_that_breaks_off_is_never_taken_for_one_that_has_finished() {
    let pair = Pair::start(|mut stream| {
        let head = read_http_head(&mut stream);
        let answer: &[u8] = match head.split(' ').nth(1).expect("a path") {
            "/length" => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf",
            "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            _ => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nhalf",
        };
        let _gone = stream.write_all(answer);
    });
    for path in ["/length", "/chunked", "/in-a-chunk"] {
        let url = format!("http://app.shop{path}");
        // When the break overtakes the head: 503 (22), or nothing at all (52).
        let broken = pair.curl(&["--fail", &url]);
        let code = broken.status.code();
        assert!(matches!(code, Some(18 | 22 | 52 | 56)), "{path} over HTTP/1.1: {broken:?}");
        // As a reverse proxy: curl speaks HTTP/2 to a proxy only in TLS.
        let plain = format!("http://{}{path}", pair.client.outbound());
        let mut command = Command::new(tool("curl", "curl"));
        let broken =
            output(command.args(["--silent", "--fail", "--http2-prior-knowledge", "-H", "Host: app.shop", &plain]));
        assert!(matches!(broken.status.code(), Some(22 | 92)), "{path} over HTTP/2: {broken:?}");
    }
    until("it is logged as the server's doing", || {
        let log = pair.client.access_log();
        log.iter().filter(|line| line["reason"] == "upstream_reset").count() == 6
    });
}
