//! What the sidecar tells about itself: metrics, the access log, spans of requests, load reports, taps.

mod access_log;
pub mod explain;
mod flow;
mod head;
mod health;
pub mod load;
mod metrics;
pub mod otlp;
mod record;
mod recorder;
mod spent;
pub mod tap;
pub mod trace;

use access_log::rfc3339;
pub use access_log::{AccessLog, Entry as LogEntry};
pub use flow::{Flow, Messages};
pub use health::HealthMetrics;
pub use metrics::{About, Metrics};
pub use opentelemetry::TraceId;
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
        if !self.access_log.wants(true, None) {
            return;
        }
        let nothing: Arc<str> = Arc::default();
        self.access_log.write(access_log::Entry {
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
        });
    }
}

/// The method as a label: one that HTTP knows, else `_OTHER`.
pub fn method_label(method: &http::Method) -> &'static str {
    metrics::known_method(method)
}

/// Now, as events have it.
fn unix_milliseconds() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis())
}
