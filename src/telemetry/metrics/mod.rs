//! Every metric of the sidecar, in one table. Prometheus names with unit suffix, labels bounded.
//!
//! What requests and connections count is in [`traffic`]; what happens rarely in prometheus-client's registry.

mod about;
mod count;
mod families;
mod istio;
mod listed;
mod otlp;
mod table;
mod traffic;

pub use about::About;
pub use otlp::Push;

pub(super) use count::known_method;
pub(super) use count::{AttemptKey, Part, RequestKey, StepKey};
pub(super) use listed::Listed;
pub(super) use table::Names as ClusterNames;
pub(super) use traffic::{Local, RECENT, at, place, places};

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use pillion_wire::exposition::{Family as Exposed, Format, render};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::health::HealthMetrics;
use super::trace::SpanCounts;
use crate::bootstrap::MetricsSettings;
use table::Names;
use traffic::Traffic;

/// All metrics. Shared by every part of the sidecar; each event is counted in one place.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Listed>,
    traffic: Traffic,
    names: Arc<Names>,
    reading: Mutex<()>,
    settings: MetricsSettings,
    about: About,
    started: SystemTime,
    runtimes: Mutex<Vec<(Arc<str>, Handle)>>,
    connections: Family<ListenerLabels, Gauge>,
    connections_refused: Family<RefusedLabels, Counter>,
    detections: Family<DetectionLabels, Histogram>,
    upstream_retries: Family<RefusedLabels, Counter>,
    faults: Family<KindLabels, Counter>,
    mirrored: Family<MirrorLabels, Counter>,
    sessions: Family<ResultLabels, Counter>,
    global_rate_limits: Family<AskedLabels, Counter>,
    limit_overflows: Family<LimitLabels, Counter>,
    limit_in_use: Family<LimitLabels, Gauge>,
    breaker_changes: Family<ChangeLabels, Counter>,
    ejections: Family<ChangeLabels, Counter>,
    hosts_out: Family<StateLabels, Gauge>,
    fallbacks: Family<FallbackLabels, Counter>,
    shed: Family<ShedLabels, Counter>,
    adaptive_limit: Family<PortLabels, Gauge>,
    adaptive_in_flight: Family<PortLabels, Gauge>,
    retries: Family<ResultLabels, Counter>,
    /// Of active health checks.
    pub health: HealthMetrics,
    drain_cut: Counter,
    access_log_dropped: Counter,
    spans: Family<ResultLabels, Counter>,
    otlp_items: Family<ItemLabels, Counter>,
    xds_responses: Family<XdsLabels, Counter>,
    xds_connected: Gauge,
    configuration_recalled: Gauge,
    store_failures: Counter,
    xds_connects: Family<ResultLabels, Counter>,
    destinations_refused: Counter,
    certificates: Family<ResultLabels, Counter>,
    certificate_expiry: Gauge,
    dns_queries: Family<DnsLabels, Counter>,
    dns_durations: Family<ResultLabels, Histogram, fn() -> Histogram>,
    name_lookups: Family<ResultLabels, Counter>,
    names_in_use: Family<StateLabels, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DetectionLabels {
    direction: &'static str,
    result: &'static str,
}

/// Upper bounds of the buckets of detection times, in seconds.
const DETECTION_BUCKETS: [f64; 10] = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 1.0, 10.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LimitLabels {
    cluster: Arc<str>,
    limit: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ChangeLabels {
    cluster: Arc<str>,
    change: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FallbackLabels {
    cluster: Arc<str>,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ShedLabels {
    cluster: Arc<str>,
    criticality: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PortLabels {
    cluster: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    cluster: Arc<str>,
    state: &'static str,
}

/// Upper bounds of the duration buckets, in seconds.
const BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct XdsLabels {
    r#type: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ItemLabels {
    signal: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MirrorLabels {
    cluster: Arc<str>,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AskedLabels {
    cluster: Arc<str>,
    result: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DnsLabels {
    result: &'static str,
    transport: &'static str,
}

impl Metrics {
    /// Metrics that all stand at zero, of nobody in particular.
    pub fn new() -> Self {
        Self::of(MetricsSettings::default(), About::default())
    }

    /// Metrics of `about` that all stand at zero.
    pub fn of(settings: MetricsSettings, about: About) -> Self {
        let mut registry = Listed::new("pillion");
        let names = Arc::new(Names::new(settings.max_series.get()));
        let metrics = Self {
            traffic: Traffic::new(settings.max_series.get(), settings.idle),
            names: Arc::clone(&names),
            reading: Mutex::default(),
            settings,
            about,
            started: SystemTime::now(),
            runtimes: Mutex::default(),
            connections: Family::default(),
            connections_refused: Family::default(),
            detections: Family::new_with_constructor(|| Histogram::new(DETECTION_BUCKETS)),
            upstream_retries: Family::default(),
            faults: Family::default(),
            mirrored: Family::default(),
            sessions: Family::default(),
            global_rate_limits: Family::default(),
            limit_overflows: Family::default(),
            limit_in_use: Family::default(),
            breaker_changes: Family::default(),
            ejections: Family::default(),
            hosts_out: Family::default(),
            fallbacks: Family::default(),
            shed: Family::default(),
            adaptive_limit: Family::default(),
            adaptive_in_flight: Family::default(),
            retries: Family::default(),
            health: HealthMetrics::of(names),
            drain_cut: Counter::default(),
            access_log_dropped: Counter::default(),
            spans: Family::default(),
            otlp_items: Family::default(),
            xds_responses: Family::default(),
            xds_connected: Gauge::default(),
            configuration_recalled: Gauge::default(),
            store_failures: Counter::default(),
            xds_connects: Family::default(),
            destinations_refused: Counter::default(),
            certificates: Family::default(),
            certificate_expiry: Gauge::default(),
            dns_queries: Family::default(),
            dns_durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            name_lookups: Family::default(),
            names_in_use: Family::default(),
            registry: Mutex::new(Listed::new("pillion")),
        };
        registry.register("xds_resources", "xDS resources received, by verdict", metrics.xds_responses.clone());
        registry.register("xds_connected", "1 while the xDS stream is up", metrics.xds_connected.clone());
        registry.register(
            "configuration_recalled",
            "1 while the configuration is what was found on disk, since the control plane has not been reached",
            metrics.configuration_recalled.clone(),
        );
        registry.register(
            "store_failures",
            "Certificates and resources that could not be kept on disk",
            metrics.store_failures.clone(),
        );
        registry.register("xds_connects", "Attempts to reach the control plane", metrics.xds_connects.clone());
        registry.register(
            "destinations_refused",
            "Destinations not looked up because too many are known",
            metrics.destinations_refused.clone(),
        );
        registry.register("certificates", "Attempts to obtain a certificate", metrics.certificates.clone());
        registry.register(
            "certificate_expiration_timestamp_seconds",
            "When the current certificate ends, as a Unix time",
            metrics.certificate_expiry.clone(),
        );
        metrics.register_names(&mut registry);
        metrics.register_traffic(&mut registry);
        metrics.register_resilience(&mut registry);
        metrics.health.register(&mut registry);
        *metrics.registry.lock() = registry;
        metrics
    }

    fn register_names(&self, registry: &mut Listed) {
        registry.register("dns_queries", "DNS queries of the application, by result", self.dns_queries.clone());
        registry.register(
            "dns_duration_seconds",
            "From a DNS query to its answer, by result",
            self.dns_durations.clone(),
        );
        registry.register("name_lookups", "Names of clusters asked for, by result", self.name_lookups.clone());
        registry.register(
            "cluster_names",
            "Names of clusters, by how their addresses stand",
            self.names_in_use.clone(),
        );
    }

    fn register_traffic(&self, registry: &mut Listed) {
        registry.register("connections_open", "Accepted connections that are open", self.connections.clone());
        registry.register(
            "connections_refused",
            "Accepted connections that were ended before a request, by reason",
            self.connections_refused.clone(),
        );
        registry.register(
            "detection_duration_seconds",
            "From accepting a connection that may carry anything to knowing what it carries, by what was found",
            self.detections.clone(),
        );
        registry.register(
            "upstream_retries",
            "Requests sent again because nothing of them had reached an application, by reason",
            self.upstream_retries.clone(),
        );
        registry.register(
            "sessions",
            "Requests of routes that keep sessions, by what became of the session",
            self.sessions.clone(),
        );
        registry.register("faults", "Faults that were injected on purpose, by kind", self.faults.clone());
        registry.register("mirrored_requests", "Copies of requests, by what became of them", self.mirrored.clone());
        registry.register(
            "global_rate_limit",
            "Questions to rate-limit services, by what became of them",
            self.global_rate_limits.clone(),
        );
        registry.register("retries", "Retries that a policy asked for, by what became of them", self.retries.clone());
        registry.register(
            "drain_cut",
            "Connections cut because they outlived the drain deadline",
            self.drain_cut.clone(),
        );
        registry.register(
            "access_log_dropped",
            "Lines of the access log that were dropped because its reader is slow",
            self.access_log_dropped.clone(),
        );
        registry.register(
            "spans",
            "Requests that could be spans of a trace, by what became of them",
            self.spans.clone(),
        );
        registry.register(
            "otlp_items",
            "Requests, log records and points of metrics for the OpenTelemetry collector, by signal and what became of them",
            self.otlp_items.clone(),
        );
    }

    fn register_resilience(&self, registry: &mut Listed) {
        registry.register(
            "limit_overflows",
            "Requests, connections and retries that were not let through, by the limit that was reached",
            self.limit_overflows.clone(),
        );
        registry.register("limit_in_use", "Places taken within limits that are configured", self.limit_in_use.clone());
        registry.register(
            "breaker_changes",
            "Breakers of endpoints that opened, closed, or would have opened had the endpoint not been needed",
            self.breaker_changes.clone(),
        );
        registry.register(
            "ejections",
            "Outliers that were ejected, that returned, and that were kept in spite of it",
            self.ejections.clone(),
        );
        registry.register(
            "fallbacks",
            "Requests sent to another backend since their own could not take them, by that backend and the reason",
            self.fallbacks.clone(),
        );
        registry.register(
            "shed_requests",
            "Requests that a port of ours refused since the application has enough to do",
            self.shed.clone(),
        );
        registry.register("adaptive_limit", "Requests that a port may have under way", self.adaptive_limit.clone());
        registry.register("adaptive_in_flight", "Requests that it has", self.adaptive_in_flight.clone());
        registry.register("hosts_out_of_service", "Endpoints that are left alone, by cause", self.hosts_out.clone());
    }

    /// Counts what the program said of itself and nobody took.
    pub fn log_dropped(&self, dropped: Counter) {
        let help = "Lines of the program's own log that were dropped because its reader is slow";
        self.registry.lock().register("log_dropped", help, dropped);
    }

    /// Counters of what becomes of requests that could be spans.
    pub fn spans(&self) -> SpanCounts {
        let count = |result| self.spans.get_or_create(&ResultLabels { result }).clone();
        SpanCounts {
            sampled: count("sampled"),
            late: count("late"),
            not_kept: count("not_kept"),
            dropped: count("dropped"),
        }
    }

    /// Counts what becomes of things of one kind that are for the collector: `exported`, `failed`, `dropped`.
    pub fn otlp(&self, signal: &'static str, result: &'static str) -> Counter {
        self.otlp_items.get_or_create(&ItemLabels { signal, result }).clone()
    }

    /// Something was not let through by a limit of `cluster`.
    pub fn limit_overflow(&self, cluster: &Arc<str>, limit: &'static str) {
        self.limit_overflows.get_or_create(&LimitLabels { cluster: self.names.known(cluster), limit }).inc();
    }

    /// A breaker of `cluster` has `opened`, `closed`, or was `kept` closed.
    pub fn breaker(&self, cluster: &Arc<str>, change: &'static str) {
        self.breaker_changes.get_or_create(&ChangeLabels { cluster: self.names.known(cluster), change }).inc();
    }

    /// An outlier of `cluster` was `ejected`, was `kept`, or `returned`.
    pub fn ejection(&self, cluster: &Arc<str>, change: &'static str) {
        self.ejections.get_or_create(&ChangeLabels { cluster: self.names.known(cluster), change }).inc();
    }

    /// A request goes to `cluster` since its own backend could not take it, for this reason.
    pub fn fallback(&self, cluster: &Arc<str>, reason: &'static str) {
        self.fallbacks.get_or_create(&FallbackLabels { cluster: self.names.known(cluster), reason }).inc();
    }

    /// A request was refused since the application behind `cluster`, a port of ours, has enough to do.
    pub fn shed(&self, cluster: &Arc<str>, criticality: &'static str, reason: &'static str) {
        self.shed.get_or_create(&ShedLabels { cluster: self.names.known(cluster), criticality, reason }).inc();
    }

    /// So many requests may be under way at `cluster`, a port of ours, and so many are.
    pub fn adaptive(&self, cluster: &Arc<str>, limit: u32, in_flight: u32) {
        let labels = PortLabels { cluster: self.names.known(cluster) };
        self.adaptive_limit.get_or_create(&labels).set(i64::from(limit));
        self.adaptive_in_flight.get_or_create(&labels).set(i64::from(in_flight));
    }

    /// Forgets the gauges of clusters before they are told anew.
    pub fn clear_cluster_gauges(&self) {
        self.limit_in_use.clear();
        self.adaptive_limit.clear();
        self.adaptive_in_flight.clear();
        self.hosts_out.clear();
        self.health.clear_gauges();
        self.names_in_use.clear();
    }

    /// So many places are taken within a limit of `cluster`.
    pub fn limit_in_use(&self, cluster: &Arc<str>, limit: &'static str, count: u32) {
        self.limit_in_use
            .get_or_create(&LimitLabels { cluster: self.names.known(cluster), limit })
            .set(i64::from(count));
    }

    /// So many hosts of `cluster` are out of service for this cause.
    pub fn hosts_out(&self, cluster: &Arc<str>, state: &'static str, count: usize) {
        let labels = StateLabels { cluster: self.names.known(cluster), state };
        self.hosts_out.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// It was found out what a connection carries whose destination takes anything. `result` is what was found
    /// (`http1`, `http2`, `tls`, `opaque`), `server_first`, or `nothing` when neither side said a word.
    pub fn detection(&self, direction: &'static str, result: &'static str, took: Duration) {
        self.detections.get_or_create(&DetectionLabels { direction, result }).observe(took.as_secs_f64());
    }

    /// Open connections of a kind of listener: `outbound`, `inbound`, `outbound_http`, `outbound_tcp`, `mesh` or `front`.
    pub fn connections_open(&self, listener: &'static str) -> Gauge {
        self.connections.get_or_create(&ListenerLabels { listener }).clone()
    }

    /// A connection was ended before it carried a request, for this reason.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&RefusedLabels { reason }).inc();
    }

    /// A request is sent again, for this reason.
    pub fn upstream_retry(&self, reason: &'static str) {
        self.upstream_retries.get_or_create(&RefusedLabels { reason }).inc();
    }

    /// A request was harmed on purpose: `delay`, `abort`, or `overflow` when it was spared because too many were.
    pub fn fault(&self, kind: &'static str) {
        self.faults.get_or_create(&KindLabels { kind }).inc();
    }

    /// A request of a route that keeps sessions: `new`, `kept`, `moved`, or `lost` where the route is strict; `malformed` and
    /// `expired` beside `new` when what it brought along was ignored.
    pub fn session(&self, result: &'static str) {
        self.sessions.get_or_create(&ResultLabels { result }).inc();
    }

    /// A copy of a request for `cluster` ended; `result` is `ok`, `overflow`, `timeout` or a reason code.
    pub fn mirrored(&self, cluster: &Arc<str>, result: &'static str) {
        self.mirrored.get_or_create(&MirrorLabels { cluster: self.names.known(cluster), result }).inc();
    }

    /// The rate-limit service `cluster` was asked. As in Envoy, `result` is `ok`, `over_limit` or `error`, the latter with
    /// why, and once more `failure_mode_allowed` when the request passed all the same.
    pub fn global_rate_limit(&self, cluster: &Arc<str>, result: &'static str, reason: &'static str) {
        self.global_rate_limits
            .get_or_create(&AskedLabels { cluster: self.names.known(cluster), result, reason })
            .inc();
    }

    /// A retry that a policy asks for was sent (`retried`), brought an answer that is none to retry (`succeeded`), or was
    /// not sent: `retries_exhausted`, `retry_budget_exhausted`, `retry_body_too_large`, `retry_no_time`, `retry_nested`.
    pub fn retry(&self, result: &'static str) {
        self.retries.get_or_create(&ResultLabels { result }).inc();
    }

    /// This many connections were cut at the end of draining.
    pub fn drain_cut(&self, count: usize) {
        self.drain_cut.inc_by(count as u64);
    }

    /// The counter of access-log lines that were dropped.
    pub fn access_log_dropped(&self) -> Counter {
        self.access_log_dropped.clone()
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

    /// The configuration is what was found on disk, or no longer.
    pub fn configuration_recalled(&self, recalled: bool) {
        self.configuration_recalled.set(i64::from(recalled));
    }

    /// Something could not be kept on disk.
    pub fn store_failure(&self) {
        self.store_failures.inc();
    }

    /// An attempt to open the xDS stream ended; `result` is a short reason such as `ok` or `unavailable`.
    pub fn xds_connect(&self, result: &'static str) {
        self.xds_connects.get_or_create(&ResultLabels { result }).inc();
    }

    /// The application called more destinations than a sidecar keeps.
    pub fn destination_refused(&self) {
        self.destinations_refused.inc();
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

    /// A DNS query ended. `result` is `mesh`, `forwarded`, `stale`, `servfail`, `malformed` or `overload`; `transport`
    /// is `udp` or `tcp`.
    pub fn dns_query(&self, result: &'static str, transport: &'static str, duration: Duration) {
        self.dns_queries.get_or_create(&DnsLabels { result, transport }).inc();
        self.dns_durations.get_or_create(&ResultLabels { result }).observe(duration.as_secs_f64());
    }

    /// The name of a cluster was asked for in one family: `found`, `empty` (there is none) or `failed`.
    pub fn name_lookup(&self, result: &'static str) {
        self.name_lookups.get_or_create(&ResultLabels { result }).inc();
    }

    /// So many names of `cluster` are `fresh`, `stale` (the last addresses are used, since asking fails) or `empty`.
    pub fn names_in_use(&self, cluster: &Arc<str>, state: &'static str, count: usize) {
        let labels = StateLabels { cluster: self.names.known(cluster), state };
        self.names_in_use.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// For one more worker to count in.
    pub(super) fn local(&self) -> Arc<Mutex<Local>> {
        self.traffic.local()
    }

    /// Takes what a worker has counted when it is much.
    pub(super) fn relieve(&self, local: &mut Local, now: Instant) {
        self.traffic.relieve(local, now);
    }

    /// How metrics are made.
    pub fn settings(&self) -> &MetricsSettings {
        &self.settings
    }

    /// A runtime whose threads are to be watched.
    pub fn watch(&self, name: &str, runtime: Handle) {
        self.runtimes.lock().push((Arc::from(name), runtime));
    }

    /// Adds up what workers have counted, now and then, so that what is idle is forgotten though nobody reads. Never ends.
    pub async fn tend(&self) {
        loop {
            tokio::time::sleep(TEND_EVERY).await;
            self.traffic.collect(Instant::now());
        }
    }

    /// Lets one reader at a time set gauges and read them.
    pub fn read<T>(&self, read: impl FnOnce() -> T) -> T {
        let _alone = self.reading.lock();
        read()
    }

    /// All metrics.
    pub fn families(&self) -> Vec<Exposed> {
        self.traffic.collect(Instant::now());
        let mut all = about::of(&self.about);
        let tables = self.traffic.tables();
        all.extend(families::of(&tables));
        if self.settings.istio {
            all.extend(istio::of(&tables, &self.about));
        }
        drop(tables);
        all.extend(self.registry.lock().families());
        all.extend(about::runtimes(&self.runtimes.lock()));
        all.extend(about::process(self.started));
        all
    }

    /// All metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        render(&self.families(), Format::OpenMetrics)
    }
}

/// How often what workers have counted is added up at least.
const TEND_EVERY: Duration = Duration::from_secs(10);

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
