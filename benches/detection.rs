//! What finding out the protocol of a connection costs: from `connect` to the first byte of the answer.
//!
//! ```text
//! cargo bench --bench detection            needs root: it makes network namespaces
//! ```
//! Four ways side by side in one run, taking turns: straight to the application, through the pair of sidecars with the
//! protocol declared (nothing is looked at), with nothing declared, and by pass-through to an address that nobody knows.
//! The difference of the second and the third is what detection costs; the first is the network and the application.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a benchmark")]
#![allow(clippy::indexing_slicing, reason = "a benchmark")]

#[path = "../tests/e2e/support/mod.rs"]
mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use support::{Mesh, Network, Pod, Stack, Workload};
use tokio::time::Instant;

/// Connections of each protocol by each way.
const CONNECTIONS: usize = 1000;
const WAYS: [&str; 4] = ["direct", "declared", "undeclared", "unknown"];

/// A protocol: who begins, and how it is declared.
struct Protocol {
    name: &'static str,
    declared: &'static str,
    port: u16,
    /// The client's first words; none: the server greets.
    request: &'static [u8],
    answer: &'static [u8],
}

const PROTOCOLS: [Protocol; 3] = [
    Protocol {
        name: "HTTP/1.1",
        declared: "http",
        port: 8000,
        request: b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n",
        answer: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    },
    Protocol { name: "server first", declared: "tcp", port: 8100, request: b"", answer: b"220 ready\r\n" },
    Protocol {
        name: "client first",
        declared: "tcp",
        port: 8200,
        request: b"*1\r\n$4\r\nPING\r\n",
        answer: b"+PONG\r\n",
    },
];

fn main() {
    let network = Network::start(Stack::V4);
    let mesh = Mesh::start_on(Rc::new(network.host("control")), &[]);
    let mut document = String::from(
        "apiVersion: v1\nkind: Service\nmetadata: { name: server, namespace: shop }\n\
         spec:\n  clusterIP: 10.96.0.10\n  selector: { app: server }\n  ports:\n",
    );
    let mut server = Workload::new("server");
    for Protocol { declared, port, .. } in &PROTOCOLS {
        let other = port + 1;
        document
            .push_str(&format!("  - {{ name: d{port}, port: {port}, targetPort: {port}, appProtocol: {declared} }}\n"));
        document.push_str(&format!("  - {{ name: u{port}, port: {other}, targetPort: {other} }}\n"));
        for port in [*port, other] {
            server = server.port(&format!("p{port}"), SocketAddr::from(([127, 0, 0, 1], port)));
        }
    }
    mesh.write("service.yaml", &document);
    let pod = |workload: Workload| {
        Pod::start(&mesh, &network, workload.setting("intercept", "redirect").setting("access_log", "off"))
    };
    let (server, client) = (pod(server), pod(Workload::new("client")));
    let (outside, plain) = (network.host("outside"), network.host("plain"));
    for Protocol { port, .. } in &PROTOCOLS {
        for (path, port) in [(server.host.path(), *port), (server.host.path(), port + 1), (outside.path(), *port)] {
            serve(path, port);
        }
    }
    println!("{CONNECTIONS} connections each; microseconds from connect to the first byte of the answer");
    println!("{:<14}{:<12}{:>8}{:>8}{:>12}{:>12}", "", "", "p50", "p99", "p50 added", "p99 added");
    for protocol in &PROTOCOLS {
        let address = |ip: &str, port: u16| format!("{ip}:{port}").parse::<SocketAddr>().expect("an address");
        let unmeshed = address(&outside.ip().to_string(), protocol.port);
        let callers = [
            Caller::start(plain.path(), unmeshed, protocol.request),
            Caller::start(client.host.path(), address("10.96.0.10", protocol.port), protocol.request),
            Caller::start(client.host.path(), address("10.96.0.10", protocol.port + 1), protocol.request),
            Caller::start(client.host.path(), unmeshed, protocol.request),
        ];
        let mut times = [const { Vec::new() }; WAYS.len()];
        for _ in 0..CONNECTIONS {
            for (caller, times) in callers.iter().zip(&mut times) {
                times.push(caller.call());
            }
        }
        times.iter_mut().for_each(|times| times.sort_unstable());
        let at = |way: usize, percent: usize| times[way][CONNECTIONS * percent / 100].as_secs_f64() * 1e6;
        for (number, way) in WAYS.iter().enumerate() {
            let (p50, p99) = (at(number, 50), at(number, 99));
            let (more50, more99) = (p50 - at(0, 50), p99 - at(0, 99));
            println!("{:<14}{way:<12}{p50:>8.0}{p99:>8.0}{more50:>12.0}{more99:>12.0}", protocol.name);
        }
        let (more50, more99) = (at(2, 50) - at(1, 50), at(2, 99) - at(1, 99));
        println!("{:<14}{:<28}{more50:>12.0}{more99:>12.0}", protocol.name, "undeclared - declared");
    }
}

/// An application in a namespace: reads a request if there is one, answers, and closes.
fn serve(namespace: PathBuf, port: u16) {
    let protocol = PROTOCOLS.iter().find(|protocol| protocol.port == port || protocol.port + 1 == port).expect("one");
    thread::spawn(move || {
        enter(&namespace);
        let listener = TcpListener::bind(("0.0.0.0", port)).expect("a free port");
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            let mut buffer = [0; 512];
            let asked = protocol.request.is_empty() || stream.read(&mut buffer).is_ok_and(|read| read > 0);
            if asked {
                // A target that was dialled in vain is closed without a word.
                let _gone = stream.write_all(protocol.answer);
                let _end = stream.read(&mut buffer);
            }
        }
    });
}

/// A client in a namespace, on a thread of its own, which calls when it is told to.
struct Caller {
    go: std::sync::mpsc::Sender<()>,
    took: std::sync::mpsc::Receiver<Duration>,
}

impl Caller {
    fn start(namespace: PathBuf, to: SocketAddr, request: &'static [u8]) -> Self {
        let ((go, told), (done, took)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        thread::spawn(move || {
            enter(&namespace);
            while told.recv().is_ok() {
                let start = Instant::now();
                let mut stream = TcpStream::connect(to).expect("connected");
                stream.set_read_timeout(Some(Duration::from_secs(20))).expect("above zero");
                stream.write_all(request).expect("sent");
                assert!(stream.read(&mut [0; 512]).is_ok_and(|read| read > 0), "no answer from {to}");
                done.send(start.elapsed()).expect("somebody counts");
            }
        });
        let caller = Self { go, took };
        for _ in 0..20 {
            caller.call(); // Discovery, certificates, pools.
        }
        caller
    }

    fn call(&self) -> Duration {
        self.go.send(()).expect("the thread lives");
        self.took.recv().expect("an answer")
    }
}

fn enter(namespace: &std::path::Path) {
    setns(File::open(namespace).expect("a namespace"), CloneFlags::CLONE_NEWNET).expect("root");
}
