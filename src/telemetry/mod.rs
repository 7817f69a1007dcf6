//! What the sidecar tells about itself: metrics and the access log.

mod access_log;
mod metrics;
mod record;

pub use access_log::AccessLog;
pub use metrics::{Metrics, RequestLabels};
pub use record::Record;

use std::sync::Arc;

/// Where every request and connection is written down.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// One line per request, when wanted.
    pub access_log: AccessLog,
}
