//! A real OpenTelemetry collector (rotel) that writes down every span and log record that it is sent.

use std::net::SocketAddr;
use std::process::Command;

use crate::support::{Mesh, Process, in_workspace, until};

/// A running collector.
pub(super) struct Collector {
    process: Process,
    /// Where it takes OTLP by gRPC.
    pub(super) grpc: SocketAddr,
    /// Where it takes OTLP by HTTP.
    pub(super) http: SocketAddr,
}

/// A span as the collector got it.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    pub(super) service: String,
    pub(super) trace: String,
    pub(super) parent: String,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) attributes: Vec<(String, String)>,
    pub(super) events: Vec<String>,
}

impl Span {
    /// The value of an attribute; empty without one.
    pub(super) fn attribute(&self, key: &str) -> &str {
        self.attributes.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }
}

impl Collector {
    pub(super) fn start(mesh: &Mesh) -> Self {
        let (grpc, http) = (mesh.free_address(), mesh.free_address());
        let venv = in_workspace(".test-tools/venv/lib");
        let mut versions = std::fs::read_dir(&venv).expect("run tests/run, which makes it").flatten();
        let program = versions.find_map(|entry| {
            let program = entry.path().join("site-packages/rotel/rotel-agent");
            program.is_file().then_some(program)
        });
        let folder = mesh.scratch().join(format!("collector-{}", grpc.port()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut command = Command::new(program.expect("rotel is missing: run tests/run"));
        command.args(["start", "--exporter", "blackhole", "--debug-log", "traces", "--debug-log", "logs"]);
        command.args(["--debug-log-verbosity", "detailed", "--otlp-grpc-endpoint", &grpc.to_string()]);
        command.args(["--otlp-http-endpoint", &http.to_string()]);
        command.arg("--pid-file").arg(folder.join("pid")).arg("--log-file").arg(folder.join("log"));
        let process = Process::spawn("collector", &mut command);
        until("the collector listens", || {
            [grpc, http].iter().all(|address| std::net::TcpStream::connect(address).is_ok())
        });
        Self { process, grpc, http }
    }

    /// All spans so far.
    pub(super) fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        let (mut service, mut section, mut is_span) = (String::new(), "", false);
        for line in self.process.stdout().lines() {
            let text = line.trim();
            if line.starts_with("Resource") || line.starts_with("ScopeSpans") {
                is_span = false;
            }
            if line.starts_with("Span #") {
                spans.push(Span { service: service.clone(), ..Span::default() });
                (is_span, section) = (true, "");
            }
            if let Some(name) = text.strip_prefix("-> service.name: ").filter(|_| !is_span) {
                service = value(name);
            }
            let Some(span) = spans.last_mut().filter(|_| is_span) else { continue };
            match text {
                "Attributes:" => section = "attributes",
                "Events:" => section = "events",
                _ => {}
            }
            if let Some((key, said)) = text.strip_prefix("-> ").and_then(|pair| pair.split_once(": ")) {
                match section {
                    "attributes" => span.attributes.push((key.to_owned(), value(said))),
                    "events" if key == "Name" || key == "pillion.reason" => span.events.push(value(said)),
                    _ => {}
                }
            } else if let Some((key, said)) = text.split_once(':') {
                let said = said.trim().to_owned();
                match key.trim() {
                    "Trace ID" => span.trace = said,
                    "Parent ID" => span.parent = said,
                    "ID" => span.id = said,
                    "Name" => span.name = said,
                    "Kind" => span.kind = said,
                    "Status code" => span.status = said,
                    _ => {}
                }
            }
        }
        spans
    }

    /// Everything that it wrote down.
    pub(super) fn text(&self) -> String {
        self.process.stdout()
    }

    /// Ends it.
    pub(super) fn kill(&mut self) {
        self.process.kill();
    }
}

/// `Str(text)`, `Int(1)`.
fn value(said: &str) -> String {
    let inside = said.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(said).to_owned()
}
