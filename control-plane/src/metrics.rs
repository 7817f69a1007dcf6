//! What the control plane counts, as Prometheus reads it.
//!
//! Label values come from fixed sets of names only.

use pillion_wire::exposition::{Format, render};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use crate::{metrics_listed::Listed, xds::kind::Kind};

/// One label.
type Label = [(&'static str, &'static str); 1];

/// All counters and gauges.
#[derive(Debug)]
pub struct Metrics {
    registry: Listed,
    connections: Family<Label, Counter>,
    open_connections: Gauge,
    streams: Family<Label, Gauge>,
    responses: Family<Label, Counter>,
    resources: Family<Label, Counter>,
    acks: Family<Label, Counter>,
    nacks: Family<Label, Counter>,
    refused_streams: Family<Label, Counter>,
    refused_resources: Counter,
    certificates: Counter,
    refused_certificates: Family<Label, Counter>,
    objects: Gauge,
    rejected_objects: Gauge,
    updates: Counter,
    spans_dropped: Counter,
    load_reports: Counter,
    load_clusters_dropped: Counter,
    dashboard_refused: Family<Label, Counter>,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::of(Counter::default())
    }

    /// All at zero, but for spans that were dropped, which are counted by somebody else.
    #[must_use]
    pub fn of(spans_dropped: Counter) -> Self {
        let mut metrics = Self {
            registry: Listed::new("pillion_control_plane"),
            connections: Family::default(),
            open_connections: Gauge::default(),
            streams: Family::default(),
            responses: Family::default(),
            resources: Family::default(),
            acks: Family::default(),
            nacks: Family::default(),
            refused_streams: Family::default(),
            refused_resources: Counter::default(),
            certificates: Counter::default(),
            refused_certificates: Family::default(),
            objects: Gauge::default(),
            rejected_objects: Gauge::default(),
            updates: Counter::default(),
            spans_dropped,
            load_reports: Counter::default(),
            load_clusters_dropped: Counter::default(),
            dashboard_refused: Family::default(),
        };
        metrics.register();
        metrics
    }

    /// The page that Prometheus reads.
    #[must_use]
    pub fn page(&self, format: Format) -> String {
        render(&self.registry.families(), format)
    }

    /// A connection ended its handshake in this way.
    pub fn connection(&self, outcome: &'static str) {
        self.connections.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Connections that are served now.
    pub const fn open_connections(&self) -> &Gauge {
        &self.open_connections
    }

    /// Streams of a dialect that are open now.
    pub fn streams(&self, dialect: &'static str) -> Gauge {
        self.streams.get_or_create(&[("dialect", dialect)]).clone()
    }

    /// A response was made.
    pub fn response(&self, kind: Kind, resources: usize) {
        let label = [("kind", kind.name())];
        self.responses.get_or_create(&label).inc();
        self.resources.get_or_create(&label).inc_by(u64::try_from(resources).unwrap_or(u64::MAX));
    }

    /// A response was accepted.
    pub fn ack(&self, kind: Kind) {
        self.acks.get_or_create(&[("kind", kind.name())]).inc();
    }

    /// A response was refused by its client.
    pub fn nack(&self, kind: Kind) {
        self.nacks.get_or_create(&[("kind", kind.name())]).inc();
    }

    /// A stream or call was refused.
    pub fn refused_stream(&self, reason: &'static str) {
        self.refused_streams.get_or_create(&[("reason", reason)]).inc();
    }

    /// A node asked for another's inbound configuration.
    pub fn refused_resource(&self) {
        self.refused_resources.inc();
    }

    /// A certificate was signed.
    pub fn certificate(&self) {
        self.certificates.inc();
    }

    /// A certificate was refused.
    pub fn refused_certificate(&self, reason: &'static str) {
        self.refused_certificates.get_or_create(&[("reason", reason)]).inc();
    }

    /// A new configuration is in force.
    pub fn configuration(&self, accepted: usize, rejected: usize) {
        self.updates.inc();
        self.objects.set(i64::try_from(accepted).unwrap_or(i64::MAX));
        self.rejected_objects.set(i64::try_from(rejected).unwrap_or(i64::MAX));
    }

    /// A load report came, of which so many clusters were left out.
    pub fn load_report(&self, dropped: u64) {
        self.load_reports.inc();
        self.load_clusters_dropped.inc_by(dropped);
    }

    /// A request to the dashboard was refused.
    pub fn dashboard_refused(&self, reason: &'static str) {
        self.dashboard_refused.get_or_create(&[("reason", reason)]).inc();
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("connections", "Connections by outcome of their handshake", self.connections.clone());
        registry.register("open_connections", "Connections that are served now", self.open_connections.clone());
        registry.register("xds_streams", "Open xDS streams", self.streams.clone());
        registry.register("xds_responses", "xDS responses sent", self.responses.clone());
        registry.register("xds_resources", "xDS resources sent", self.resources.clone());
        registry.register("xds_acks", "xDS responses that clients accepted", self.acks.clone());
        registry.register("xds_nacks", "xDS responses that clients refused", self.nacks.clone());
        registry.register("refused_calls", "Streams and calls refused, by reason", self.refused_streams.clone());
        registry.register(
            "xds_refused_resources",
            "Requests for another workload's inbound configuration",
            self.refused_resources.clone(),
        );
        registry.register("certificates", "Certificates signed", self.certificates.clone());
        registry.register(
            "refused_certificates",
            "Certificate requests refused, by reason",
            self.refused_certificates.clone(),
        );
        registry.register("config_objects", "Objects in force", self.objects.clone());
        registry.register(
            "config_rejected_objects",
            "Objects whose newest version is refused",
            self.rejected_objects.clone(),
        );
        registry.register(
            "spans_dropped",
            "Spans that found no room, or that the collector did not take",
            self.spans_dropped.clone(),
        );
        registry.register("load_reports", "Load reports received", self.load_reports.clone());
        registry.register(
            "load_clusters_dropped",
            "Clusters of load reports for which there was no room",
            self.load_clusters_dropped.clone(),
        );
        registry.register(
            "dashboard_refused",
            "Requests to the dashboard that were refused, by reason",
            self.dashboard_refused.clone(),
        );
        registry.register("config_updates", "Configurations put in force", self.updates.clone());
        let build = Family::<Label, Gauge>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("build_info", "What is running", build);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_open_metrics() {
        let metrics = Metrics::new();
        metrics.nack(Kind::Route);
        let text = metrics.page(Format::OpenMetrics);
        assert!(text.contains("pillion_control_plane_xds_nacks_total{kind=\"route\"} 1"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
