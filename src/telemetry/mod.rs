//! What the sidecar tells about itself: metrics and the access log.

mod metrics;

pub use metrics::Metrics;
