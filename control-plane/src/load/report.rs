//! From LRS messages to sums per edge. Parses whatever a client sends: lengths and numbers are bounded here.

use pillion_wire::{
    load::{self, BUCKETS_MS, ENDPOINT_FIELDS},
    xds::{
        core::{address, socket_address},
        load_stats::{ClusterStats, UpstreamEndpointStats},
        value::Kind,
    },
};

use super::ring::Add;

/// The longest text that is kept of a report, in characters.
const LONGEST_TEXT: usize = 256;

/// The largest sum of a report: what sums of these keep whole as a JSON number.
const MOST_BYTES: f64 = 1e15;

/// What happened on an edge within some time. Numbers stop at 2³²−1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Answered, not by a failure.
    pub success: u32,
    /// Failed.
    pub error: u32,
    /// Sent to nobody.
    pub dropped: u32,
    /// Not waited for.
    pub cancelled: u32,
    /// Responses by class, 1xx first.
    pub classes: [u32; 5],
    /// Tries after the first.
    pub retries: u32,
    /// Over mutual TLS.
    pub mutual: u32,
    /// Connections.
    pub tcp_opened: u32,
    /// Connections that failed.
    pub tcp_failed: u32,
    /// Those that ended and were over mutual TLS.
    pub tcp_mutual: u32,
    /// Those that ended.
    pub tcp_closed: u32,
    /// Requests by latency.
    pub buckets: [u32; BUCKETS_MS.len() + 1],
    /// Bytes of response bodies.
    pub response_bytes: u64,
    /// Bytes from TCP clients.
    pub tcp_received: u64,
    /// Bytes to TCP clients.
    pub tcp_sent: u64,
}

impl Add for Sums {
    fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.success, other.success),
            (&mut self.error, other.error),
            (&mut self.dropped, other.dropped),
            (&mut self.cancelled, other.cancelled),
            (&mut self.retries, other.retries),
            (&mut self.mutual, other.mutual),
            (&mut self.tcp_opened, other.tcp_opened),
            (&mut self.tcp_failed, other.tcp_failed),
            (&mut self.tcp_mutual, other.tcp_mutual),
            (&mut self.tcp_closed, other.tcp_closed),
        ];
        let lists = self.classes.iter_mut().zip(other.classes).chain(self.buckets.iter_mut().zip(other.buckets));
        pairs.into_iter().chain(lists).for_each(|(sum, more)| *sum = sum.saturating_add(more));
        self.response_bytes = self.response_bytes.saturating_add(other.response_bytes);
        self.tcp_received = self.tcp_received.saturating_add(other.tcp_received);
        self.tcp_sent = self.tcp_sent.saturating_add(other.tcp_sent);
    }
}

impl Sums {
    /// Nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// All requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        [self.success, self.error, self.dropped, self.cancelled].into_iter().map(u64::from).sum()
    }

    /// The share of requests that succeeded, of those whose client waited. `None` without any.
    #[must_use]
    pub fn success_rate(&self) -> Option<f64> {
        let all = u64::from(self.success) + u64::from(self.error) + u64::from(self.dropped);
        (all > 0).then(|| f64::from(self.success) / all as f64)
    }

    /// The latency in milliseconds that this share of requests does not exceed: linear within a bucket, as Prometheus'
    /// `histogram_quantile` does it. `None` without any.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let all: u64 = self.buckets.iter().map(|count| u64::from(*count)).sum();
        let rank = all as f64 * share;
        let (mut below, mut from) = (0.0, 0.0);
        for (count, bound) in self.buckets.iter().zip(BUCKETS_MS) {
            let count = f64::from(*count);
            if count > 0.0 && below + count >= rank {
                return Some(from + (bound - from) * (rank - below) / count);
            }
            (below, from) = (below + count, bound);
        }
        (all > 0).then_some(from)
    }
}

/// What an edge is told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EdgeKey {
    /// To the reporter, not from it.
    pub inbound: bool,
    /// The cluster that was called, or the reporter's own port; empty when none was chosen.
    pub cluster: String,
    /// What was asked for, where the reporter says it.
    pub destination: String,
    /// Who called, for inbound edges: a SPIFFE id or nothing.
    pub peer: String,
}

impl EdgeKey {
    /// The edge to a cluster.
    #[must_use]
    pub fn outbound(cluster: &str) -> Self {
        Self { inbound: false, cluster: cluster.to_owned(), destination: String::new(), peer: String::new() }
    }
}

/// How an endpoint stands, as its caller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and port.
    pub address: String,
    /// `healthy`, `open`, `half-open`, `ejected`, `unhealthy`, `unreachable`; empty when the reporter does not say.
    pub state: String,
    /// Why, when it is not healthy.
    pub why: String,
    /// Its SPIFFE id.
    pub identity: String,
    /// Requests under way to it.
    pub in_progress: u32,
}

/// What one cluster's part of a report says.
#[derive(Clone, Debug)]
pub struct Told {
    /// The edge.
    pub key: EdgeKey,
    /// What happened on it.
    pub sums: Sums,
    /// Its endpoints, if they are told of.
    pub endpoints: Vec<Endpoint>,
}

/// Reads one cluster's part of a report.
#[must_use]
pub fn read(stats: &ClusterStats) -> Told {
    let key = match load::parse_inbound_cluster(&stats.cluster_name) {
        Some((port, peer)) => {
            EdgeKey { inbound: true, cluster: cut(port), destination: String::new(), peer: cut(peer) }
        }
        None => EdgeKey {
            inbound: false,
            cluster: cut(&stats.cluster_name),
            destination: cut(&stats.cluster_service_name),
            peer: String::new(),
        },
    };
    let (mut success, mut error) = (0_u64, 0_u64);
    let mut sums = Sums { dropped: small(stats.total_dropped_requests), ..Sums::default() };
    let mut endpoints = Vec::new();
    for locality in &stats.upstream_locality_stats {
        success = success.saturating_add(locality.total_successful_requests);
        error = error.saturating_add(locality.total_error_requests);
        endpoints.extend(locality.upstream_endpoint_stats.iter().map(endpoint));
        for metric in &locality.load_metric_stats {
            let count = small(metric.num_requests_finished_with_metric);
            named(&mut sums, &metric.metric_name, count, whole(metric.total_metric_value));
        }
    }
    // The standard's numbers hold connections as well.
    let ended_well = sums.tcp_closed.saturating_sub(sums.tcp_failed);
    sums.success = small(success).saturating_sub(ended_well);
    sums.error = small(error).saturating_sub(sums.tcp_failed);
    Told { key, sums, endpoints }
}

fn named(sums: &mut Sums, name: &str, count: u32, sum: u64) {
    if let Some(bucket) = load::bucket_of(name) {
        if let Some(known) = sums.buckets.get_mut(bucket) {
            *known = known.saturating_add(count);
        }
        return;
    }
    if let Some(class) = name.strip_prefix(load::STATUS) {
        let class = class.strip_suffix("xx").and_then(|class| class.parse::<usize>().ok()).unwrap_or(0);
        if let Some(known) = sums.classes.get_mut(class.wrapping_sub(1)) {
            *known = known.saturating_add(count);
        }
        return;
    }
    let counter = match name {
        load::CANCELLED => &mut sums.cancelled,
        load::RETRIES => &mut sums.retries,
        load::MUTUAL_TLS => &mut sums.mutual,
        load::TCP_OPENED => &mut sums.tcp_opened,
        load::TCP_CLOSED => &mut sums.tcp_closed,
        load::TCP_FAILED => &mut sums.tcp_failed,
        load::TCP_MUTUAL_TLS => &mut sums.tcp_mutual,
        load::RESPONSE_BYTES => return sums.response_bytes = sums.response_bytes.saturating_add(sum),
        load::TCP_RECEIVED => return sums.tcp_received = sums.tcp_received.saturating_add(sum),
        load::TCP_SENT => return sums.tcp_sent = sums.tcp_sent.saturating_add(sum),
        _ => return, // Others' metrics, and those to come.
    };
    *counter = counter.saturating_add(count);
}

fn endpoint(stats: &UpstreamEndpointStats) -> Endpoint {
    let address = match stats.address.as_ref().and_then(|address| address.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => {
            let port = match socket.port_specifier {
                Some(socket_address::PortSpecifier::PortValue(port)) => port,
                _ => 0,
            };
            let bare = socket.address.contains(':');
            if bare { format!("[{}]:{port}", cut(&socket.address)) } else { format!("{}:{port}", cut(&socket.address)) }
        }
        _ => String::new(),
    };
    let field = |name: &str| match stats.metadata.as_ref().and_then(|all| all.fields.get(name)?.kind.as_ref()) {
        Some(Kind::StringValue(text)) => cut(text),
        _ => String::new(),
    };
    let [state, why, identity] = ENDPOINT_FIELDS.map(field);
    Endpoint { address, state, why, identity, in_progress: small(stats.total_requests_in_progress) }
}

/// What is no number or below 0 is nothing; what is endless or more than anybody sends is that most.
fn whole(number: f64) -> u64 {
    if number > 0.0 { number.min(MOST_BYTES) as u64 } else { 0 }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use pillion_wire::xds::load_stats::{EndpointLoadMetricStats, UpstreamLocalityStats};
    use proptest::prelude::*;

    use super::*;

    fn metric(name: &str, count: u64, sum: f64) -> EndpointLoadMetricStats {
        EndpointLoadMetricStats {
            metric_name: name.to_owned(),
            num_requests_finished_with_metric: count,
            total_metric_value: sum,
        }
    }

    #[test]
    fn our_metrics_and_the_standard_ones_are_read() {
        let stats = ClusterStats {
            cluster_name: "orders.shop:80".to_owned(),
            total_dropped_requests: 2,
            upstream_locality_stats: vec![UpstreamLocalityStats {
                total_successful_requests: 90,
                total_error_requests: 8,
                load_metric_stats: vec![
                    metric("pillion.latency_ms.le_5", 50, 0.0),
                    metric("pillion.latency_ms.le_10", 50, 0.0),
                    metric("pillion.status.5xx", 8, 0.0),
                    metric("pillion.tcp.sent_bytes", 0, 123.0),
                    metric("something.else", 1, f64::NAN),
                ],
                ..UpstreamLocalityStats::default()
            }],
            ..ClusterStats::default()
        };
        let told = read(&stats);
        assert_eq!(told.sums.success_rate(), Some(0.9));
        assert_eq!((told.sums.classes[4], told.sums.tcp_sent), (8, 123));
        assert_eq!(told.sums.quantile(0.5), Some(5.0));
        assert_eq!(told.sums.quantile(0.75), Some(7.5));
    }

    #[test]
    fn numbers_that_make_no_sense_do_no_harm() {
        for (value, kept) in [
            (f64::NAN, 0),
            (-5.0, 0),
            (f64::NEG_INFINITY, 0),
            (f64::INFINITY, 1_000_000_000_000_000),
            (1e300, 1_000_000_000_000_000),
            (7.9, 7),
        ] {
            let mut sums = Sums::default();
            named(&mut sums, load::TCP_SENT, small(u64::MAX), whole(value));
            assert_eq!((sums.tcp_sent, sums.tcp_received), (kept, 0), "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_report_panics(name: String, metric_name: String, count: u64, sum: f64, success: u64) {
            let stats = ClusterStats {
                cluster_name: name,
                total_dropped_requests: count,
                upstream_locality_stats: vec![UpstreamLocalityStats {
                    total_successful_requests: success,
                    load_metric_stats: vec![metric(&metric_name, count, sum), metric(load::TCP_SENT, count, sum)],
                    ..UpstreamLocalityStats::default()
                }],
                ..ClusterStats::default()
            };
            let mut sums = read(&stats).sums;
            sums.add(&read(&stats).sums);
            let _ = (sums.quantile(0.99), sums.success_rate());
        }
    }
}
