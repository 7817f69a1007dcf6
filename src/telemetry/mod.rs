//! What the sidecar tells about itself: metrics, the access log, spans of requests, load reports, taps.

mod access_log;
pub mod explain;
mod flow;
mod head;
mod health;
pub mod load;
mod metrics;
pub mod otlp;
mod own_log;
mod record;
mod recorder;
mod spent;
pub mod tap;
pub mod trace;

use access_log::rfc3339;
pub use access_log::{AccessLog, Entry as LogEntry};
pub use flow::{Flow, Messages};
pub use health::HealthMetrics;
pub use metrics::{About, Metrics, Push};
pub use opentelemetry::TraceId;
pub use own_log::{Line as LogLine, OwnLog};
pub use record::Record;
pub use recorder::Recorder;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Where every request and connection is written down.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// One line per request, when wanted.
    pub access_log: AccessLog,
    /// Traces; `None`: fields of traces are other people's business.
    pub tracer: Option<Arc<trace::Tracer>>,
    /// Where else log records go; `None`: nowhere.
    pub logs: Option<otlp::Logs>,
    /// Who looks at requests as they end.
    pub taps: Arc<tap::Taps>,
    /// What load reports tell.
    pub load: Arc<load::Load>,
    /// Stories of recent requests, for whoever asks why.
    pub stories: explain::Stories,
}

impl Telemetry {
    /// Counts and logs; nothing else listens.
    pub fn new(metrics: Arc<Metrics>, access_log: AccessLog) -> Self {
        Self {
            metrics,
            access_log,
            tracer: None,
            logs: None,
            taps: Arc::default(),
            load: Arc::new(load::Load::new(false)),
            stories: explain::Stories::default(),
        }
    }

    /// A connection was ended because of what its client did: counted by `reason`, and told in the access log.
    pub fn connection_refused(&self, listener: &str, client: SocketAddr, reason: &'static str, detail: &str) {
        self.metrics.connection_refused(reason);
        let nothing: Arc<str> = Arc::default();
        let entry = || access_log::Entry {
            event: "refused",
            start: SystemTime::now(),
            duration: Duration::ZERO,
            upstream_service_time: None,
            direction: listener.to_owned().into(),
            method: String::new(),
            is_tcp: true,
            authority: String::new(),
            alpn: String::new(),
            path: String::new(),
            protocol: "TCP",
            status: 0,
            flag: "DPE",
            delayed: false,
            reason,
            detail: detail.to_owned(),
            destination: Arc::clone(&nothing),
            route: Arc::clone(&nothing),
            cluster: Arc::clone(&nothing),
            upstream: None,
            downstream: client,
            peer: nothing,
            tls: "none",
            attempts: 0,
            bytes_received: 0,
            bytes_sent: 0,
            trace: None,
            span: None,
            fields: Vec::new(),
        };
        self.log(true, None, entry);
    }

    /// Is anything of a request noted for a log?
    fn logs_requests(&self) -> bool {
        self.access_log.is_on() || self.logs.is_some()
    }

    /// Tells those logs that want to know of a request, connection or refusal. Collectors get what the access log does;
    /// where that is off, failures.
    fn log(&self, failed: bool, trace: Option<trace::Context>, entry: impl FnOnce() -> LogEntry) {
        let is_written = self.access_log.wants(failed, trace.map(|trace| trace.trace_id));
        let logs = self.logs.as_ref().filter(|_| is_written || (failed && !self.access_log.is_on()));
        if !is_written && logs.is_none() {
            return;
        }
        let entry = Arc::new(entry());
        if let Some(logs) = logs {
            logs.request(Arc::clone(&entry), failed, trace.is_some_and(|trace| trace.sampled));
        }
        if is_written {
            self.access_log.write(entry);
        }
    }
}

/// The method as a label: one that HTTP knows, else `_OTHER`.
pub fn method_label(method: &http::Method) -> &'static str {
    metrics::known_method(method)
}

/// A text that somebody else chose, as much as is kept of it: at most so many bytes.
fn bounded(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.shrink_to_fit();
    }
    text
}

/// Now, as events have it.
fn unix_milliseconds() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis())
}
