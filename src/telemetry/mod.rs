//! What the sidecar tells about itself: metrics, the access log, and load reports.

mod access_log;
mod health;
pub mod load;
mod metrics;
mod record;
mod recorder;

pub use access_log::AccessLog;
pub use health::HealthMetrics;
pub use metrics::{Metrics, RequestLabels};
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
    /// What load reports tell.
    pub load: Arc<load::Load>,
}

impl Telemetry {
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

/// Now, as log lines have it.
fn unix_milliseconds() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis())
}
