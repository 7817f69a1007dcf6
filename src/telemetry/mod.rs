//! What the sidecar tells about itself: metrics and the access log.

mod access_log;
pub mod explain;
mod health;
mod metrics;
mod record;
mod recorder;
mod trace_id;

use access_log::rfc3339;
pub use access_log::{AccessLog, Entry as LogEntry};
pub use health::HealthMetrics;
pub use metrics::{Metrics, RequestLabels};
pub use record::Record;
pub use recorder::Recorder;
pub use trace_id::TraceId;

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
    /// Stories of recent requests, for whoever asks why.
    pub stories: explain::Stories,
}

impl Telemetry {
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
            fields: Vec::new(),
        });
    }
}
