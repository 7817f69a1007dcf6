//! Every metric of the sidecar, in one table. Prometheus names with unit suffix, labels bounded.

use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// All metrics. Shared by every part of the sidecar; each event is counted in one place.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    xds_responses: Family<XdsLabels, Counter>,
    xds_connected: Gauge,
    xds_connects: Family<ResultLabels, Counter>,
    certificates: Family<ResultLabels, Counter>,
    certificate_expiry: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct XdsLabels {
    r#type: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

impl Metrics {
    /// Metrics that all stand at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("pillion");
        let metrics = Self {
            xds_responses: Family::default(),
            xds_connected: Gauge::default(),
            xds_connects: Family::default(),
            certificates: Family::default(),
            certificate_expiry: Gauge::default(),
            registry: Mutex::new(Registry::default()),
        };
        registry.register("xds_resources", "xDS resources received, by verdict", metrics.xds_responses.clone());
        registry.register("xds_connected", "1 while the xDS stream is up", metrics.xds_connected.clone());
        registry.register("xds_connects", "Attempts to reach the control plane", metrics.xds_connects.clone());
        registry.register("certificates", "Attempts to obtain a certificate", metrics.certificates.clone());
        registry.register(
            "certificate_expiration_timestamp_seconds",
            "When the current certificate ends, as a Unix time",
            metrics.certificate_expiry.clone(),
        );
        *metrics.registry.lock() = registry;
        metrics
    }

    /// An xDS resource was taken over (`accepted`) or refused. `kind` is `listener`, `route`, `cluster` or `endpoints`.
    pub fn xds_resource(&self, kind: &'static str, accepted: bool) {
        let result = if accepted { "accepted" } else { "rejected" };
        self.xds_responses.get_or_create(&XdsLabels { r#type: kind, result }).inc();
    }

    /// The xDS stream went up or down.
    pub fn xds_connected(&self, up: bool) {
        self.xds_connected.set(i64::from(up));
    }

    /// An attempt to open the xDS stream ended; `result` is a short reason such as `ok` or `unavailable`.
    pub fn xds_connect(&self, result: &'static str) {
        self.xds_connects.get_or_create(&ResultLabels { result }).inc();
    }

    /// An attempt to obtain a certificate ended; `result` is `ok` or a short reason.
    pub fn certificate(&self, result: &'static str) {
        self.certificates.get_or_create(&ResultLabels { result }).inc();
    }

    /// A certificate that ends at `not_after` is in use from now on.
    pub fn certificate_expiry(&self, not_after: SystemTime) {
        let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.certificate_expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// All metrics as Prometheus/OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _infallible = prometheus_client::encoding::text::encode(&mut text, &self.registry.lock());
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
