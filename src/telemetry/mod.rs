//! What the sidecar tells about itself: metrics, the access log, spans of requests, load reports, taps.

mod access_log;
mod flow;
mod health;
pub mod load;
mod metrics;
pub mod otlp;
mod record;
mod recorder;
mod spent;
pub mod tap;
pub mod trace;

pub use access_log::AccessLog;
pub use flow::{Flow, Messages};
pub use health::HealthMetrics;
pub use metrics::{About, Metrics};
pub use record::Record;
pub use recorder::Recorder;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

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
        }
    }

    /// A connection was ended because of what its client did: counted by `reason`, and told in the access log.
    pub fn connection_refused(&self, listener: &str, client: SocketAddr, reason: &'static str, detail: &str) {
        self.metrics.connection_refused(reason);
        if !self.access_log.wants(true) {
            return;
        }
        let line = serde_json::json!({
            "event": "refused",
            "time_ms": unix_milliseconds(),
            "listener": listener,
            "downstream_remote_address": client,
            "reason": reason,
            "detail": detail,
        });
        self.access_log.write(line.to_string());
    }
}

/// The method as a label: one that HTTP knows, else `_OTHER`.
pub fn method_label(method: &http::Method) -> &'static str {
    metrics::known_method(method)
}

/// Now, as log lines have it.
fn unix_milliseconds() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis())
}
