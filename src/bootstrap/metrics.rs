//! How metrics are kept and shown.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

/// Settings of metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsSettings {
    /// Where `/metrics` alone is served. `None`: only on the admin port.
    pub listen: Option<SocketAddr>,
    /// Label sets of each table of traffic; what is beyond is counted together.
    pub max_series: NonZeroUsize,
    /// A label set without a count for so long is forgotten.
    pub idle: Duration,
    /// Are the families of Istio shown, too?
    pub istio: bool,
    /// Is it measured where the time of requests goes?
    pub overhead: bool,
    /// Are traced requests shown as examples of histograms?
    pub exemplars: bool,
    /// How often metrics are pushed to a collector that wants them.
    pub export_interval: Duration,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self {
            listen: None,
            max_series: NonZeroUsize::MIN.saturating_add(1999),
            idle: Duration::from_secs(600),
            istio: false,
            overhead: true,
            exemplars: true,
            export_interval: Duration::from_secs(60),
        }
    }
}
