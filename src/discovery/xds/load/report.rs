//! From counts to LRS messages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pillion_wire::load::{self, ENDPOINT_FIELDS};
use pillion_wire::xds::core::{Address, SocketAddress, address, socket_address};
use pillion_wire::xds::load_stats::{
    ClusterStats, EndpointLoadMetricStats, UpstreamEndpointStats, UpstreamLocalityStats, cluster_stats::DroppedRequests,
};
use pillion_wire::xds::{Struct, Value, value::Kind};

use crate::resilience::breaker::State;
use crate::resilience::health;
use crate::snapshot::{Cluster, Outbound};
use crate::telemetry::load::{Counts, Edges};
use crate::upstream::Host;

/// Endpoints that are told of in a report, over all clusters.
const MOST_ENDPOINTS: usize = 512;

/// What was counted on `edges` over `interval`, and how the endpoints of the clusters in use stand.
pub(super) fn clusters(edges: &Edges, outbound: &Outbound, interval: Duration) -> Vec<ClusterStats> {
    let mut outgoing: BTreeMap<(String, &str), ClusterStats> = BTreeMap::new();
    let mut all = Vec::new();
    let interval = Some(load::to_duration(interval));
    for (edge, counts) in edges.iter() {
        if edge.inbound {
            let cluster_name = load::inbound_cluster(port(&edge.cluster), &edge.peer);
            all.push(ClusterStats { cluster_name, load_report_interval: interval, ..stats(counts) });
            continue;
        }
        let told = ClusterStats {
            cluster_name: edge.cluster.to_string(),
            cluster_service_name: edge.destination.to_string(),
            load_report_interval: interval,
            ..stats(counts)
        };
        outgoing.insert((told.cluster_name.clone(), &edge.destination), told);
    }
    let mut room = MOST_ENDPOINTS;
    for cluster in outbound.clusters() {
        let endpoints = endpoints(&cluster, &mut room);
        let name = cluster.config.name.clone();
        // An edge without a locality is the one that all endpoints are told with.
        let known = outgoing.iter_mut().find(|((cluster, _), _)| *cluster == name).map(|(_, told)| told);
        let fresh =
            || ClusterStats { cluster_name: name.clone(), load_report_interval: interval, ..ClusterStats::default() };
        match known {
            Some(told) => place(told, endpoints),
            None => {
                let mut told = fresh();
                place(&mut told, endpoints);
                all.push(told);
            }
        }
    }
    all.extend(outgoing.into_values());
    all
}

fn place(told: &mut ClusterStats, endpoints: Vec<UpstreamEndpointStats>) {
    let in_progress = endpoints.iter().map(|endpoint| endpoint.total_requests_in_progress).sum();
    if told.upstream_locality_stats.is_empty() {
        told.upstream_locality_stats.push(UpstreamLocalityStats::default());
    }
    if let Some(locality) = told.upstream_locality_stats.first_mut() {
        locality.total_requests_in_progress = in_progress;
        locality.upstream_endpoint_stats = endpoints;
    }
}

/// `port` of `127.0.0.1:port` or of a name with a port.
fn port(label: &str) -> &str {
    label.rsplit_once(':').map_or(label, |(_, port)| port)
}

fn stats(counts: &Counts) -> ClusterStats {
    let dropped = counts.dropped.iter();
    let locality = UpstreamLocalityStats {
        total_successful_requests: counts.success + counts.tcp_closed.saturating_sub(counts.tcp_failed),
        total_error_requests: counts.error + counts.tcp_failed,
        total_issued_requests: counts.success + counts.error + counts.cancelled + counts.tcp_opened,
        load_metric_stats: metrics(counts),
        ..UpstreamLocalityStats::default()
    };
    ClusterStats {
        upstream_locality_stats: vec![locality],
        total_dropped_requests: dropped.clone().map(|(_, count)| count).sum(),
        dropped_requests: dropped
            .map(|(reason, count)| DroppedRequests { category: (*reason).to_owned(), dropped_count: *count })
            .collect(),
        ..ClusterStats::default()
    }
}

/// Those that say something.
fn metrics(counts: &Counts) -> Vec<EndpointLoadMetricStats> {
    let mut all = Vec::new();
    let mut add = |name: &str, count: u64, sum: f64| {
        if count > 0 || sum > 0.0 {
            all.push(EndpointLoadMetricStats {
                metric_name: name.to_owned(),
                num_requests_finished_with_metric: count,
                total_metric_value: sum,
            });
        }
    };
    let timed: u64 = counts.buckets.iter().sum();
    add(load::LATENCY, timed, counts.latency_us as f64 / 1000.0);
    for (bucket, count) in counts.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
        add(&load::bucket_name(bucket), *count, 0.0);
    }
    for (class, count) in counts.classes.iter().enumerate().filter(|(_, count)| **count > 0) {
        add(&format!("{}{}xx", load::STATUS, class + 1), *count, 0.0);
    }
    add(load::CANCELLED, counts.cancelled, 0.0);
    add(load::RETRIES, counts.retries, 0.0);
    add(load::MUTUAL_TLS, counts.mutual, 0.0);
    add(load::RESPONSE_BYTES, counts.success + counts.error, counts.response_bytes as f64);
    add(load::TCP_OPENED, counts.tcp_opened, 0.0);
    add(load::TCP_CLOSED, counts.tcp_closed, 0.0);
    add(load::TCP_FAILED, counts.tcp_failed, 0.0);
    add(load::TCP_MUTUAL_TLS, counts.tcp_mutual, 0.0);
    add(load::TCP_RECEIVED, 0, counts.tcp_received as f64);
    add(load::TCP_SENT, 0, counts.tcp_sent as f64);
    all
}

fn endpoints(cluster: &Arc<Cluster>, room: &mut usize) -> Vec<UpstreamEndpointStats> {
    let members = cluster.upstream.members();
    let told: Vec<_> = members.iter().take(*room).map(|member| endpoint(&member.host)).collect();
    *room -= told.len();
    told
}

fn endpoint(host: &Host) -> UpstreamEndpointStats {
    let address = host.address();
    let socket = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(address.port().into())),
        ..SocketAddress::default()
    };
    let (state, why) = stand(host);
    let identity = host.key().mesh.as_ref().map(|mesh| mesh.identity.to_string()).unwrap_or_default();
    let fields = ENDPOINT_FIELDS.into_iter().zip([state.to_owned(), why, identity]);
    let text = |text: String| Value { kind: Some(Kind::StringValue(text)) };
    let fields = fields.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_owned(), text(value)));
    UpstreamEndpointStats {
        address: Some(Address { address: Some(address::Address::SocketAddress(socket)) }),
        metadata: Some(Struct { fields: fields.collect() }),
        total_requests_in_progress: host.in_flight() as u64,
        ..UpstreamEndpointStats::default()
    }
}

/// What keeps requests away from a host, and why.
fn stand(host: &Host) -> (&'static str, String) {
    let report = host.report();
    if let Some(breaker) = report.breaker {
        match breaker.state {
            State::Open { .. } => return ("open", breaker.why),
            State::HalfOpen { .. } => return ("half-open", breaker.why),
            State::Closed => {}
        }
    }
    if let Some((_, _, why)) = report.ejected {
        return ("ejected", why);
    }
    if host.health().is_some_and(|known| known.state == health::State::Unhealthy) {
        return ("unhealthy", "it fails its health checks".to_owned());
    }
    if !host.is_reachable() {
        return ("unreachable", "it could not be connected to".to_owned());
    }
    ("healthy", String::new())
}
