//! The edges of the shop, as the sidecars themselves count them on their outbound side.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::documents::sidecar;
use crate::{child::Board, client, metrics::Samples};

const SCRAPE_DEADLINE: Duration = Duration::from_secs(5);

/// Who calls whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    /// The calling service.
    pub(super) from: &'static str,
    /// The called service.
    pub(super) to: &'static str,
    /// The workload whose sidecar counts.
    caller: &'static str,
    /// What it counts under.
    destination: &'static str,
    /// TCP edges count connections.
    pub(super) tcp: bool,
}

/// All edges, from the customer inwards.
pub(super) const EDGES: [Edge; 5] = [
    Edge { from: "shopper", to: "web", caller: "shopper", destination: "web.shop:80", tcp: false },
    Edge { from: "web", to: "orders", caller: "web-1", destination: "orders.shop:80", tcp: false },
    Edge { from: "orders", to: "inventory", caller: "orders-1", destination: "inventory.shop:50051", tcp: false },
    Edge { from: "orders", to: "payment", caller: "orders-1", destination: "payment.shop:80", tcp: false },
    Edge { from: "orders", to: "ledger", caller: "orders-1", destination: "ledger.shop:7000", tcp: true },
];

/// The edge whose requests an HTTPRoute splits.
pub(super) const SPLIT: &str = "payment";

/// One edge over some time.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) peer: String,
    pub(super) mtls: bool,
}

/// A reading of every caller's sidecar.
pub(super) type Reading = BTreeMap<&'static str, Samples>;

/// Reads the metrics page of every sidecar that counts an edge.
pub(super) async fn read(board: &Board) -> anyhow::Result<Reading> {
    let mut reading = Reading::new();
    for edge in EDGES {
        if reading.contains_key(edge.caller) {
            continue;
        }
        let admin = board.get(&sidecar(edge.caller)).and_then(|status| status.address("admin"));
        let admin = admin.ok_or_else(|| anyhow::anyhow!("the sidecar of {} has no admin address", edge.caller))?;
        let page = client::get(admin, "/metrics", SCRAPE_DEADLINE).await?;
        reading.insert(edge.caller, Samples::parse(&page.text()));
    }
    Ok(reading)
}

/// What was added to every reading since an earlier one.
pub(super) fn since(later: &Reading, earlier: &Reading) -> Reading {
    let empty = Samples::default();
    let grown = later.iter().map(|(caller, samples)| (*caller, samples.since(earlier.get(caller).unwrap_or(&empty))));
    grown.collect()
}

/// The rows of a reading. TCP edges have no duration of their own in it: the customers' `ledger_ms` says it.
pub(super) fn rows(reading: &Reading, ledger_ms: &[f64]) -> Vec<Row> {
    let empty = Samples::default();
    EDGES.iter().map(|edge| edge.row(reading.get(edge.caller).unwrap_or(&empty), ledger_ms)).collect()
}

/// The percentages of the clusters that an edge's requests went to: `payment-v1 90 %`.
pub(super) fn split(reading: &Reading) -> Vec<(String, f64)> {
    let Some(edge) = EDGES.iter().find(|edge| edge.to == SPLIT) else { return Vec::new() };
    let mut clusters: BTreeMap<String, f64> = BTreeMap::new();
    let labels = edge.labels();
    for sample in reading.get(edge.caller).into_iter().flat_map(|samples| samples.select(edge.metric(), &labels)) {
        let cluster = sample.label("cluster");
        *clusters.entry(cluster.split('.').next().unwrap_or(cluster).to_owned()).or_default() += sample.value;
    }
    let total: f64 = clusters.values().sum();
    clusters.into_iter().filter(|(_, count)| *count > 0.0).map(|(name, count)| (name, 100.0 * count / total)).collect()
}

impl Edge {
    const fn metric(&self) -> &'static str {
        if self.tcp { "pillion_tcp_connections_total" } else { "pillion_requests_total" }
    }

    const fn labels(&self) -> [(&'static str, &'static str); 2] {
        [("direction", "outbound"), ("destination", self.destination)]
    }

    fn row(&self, samples: &Samples, ledger_ms: &[f64]) -> Row {
        let labels = self.labels();
        let (mut requests, mut failed, mut plain) = (0.0, 0.0, 0.0);
        let mut peers: Vec<&str> = Vec::new();
        for sample in samples.select(self.metric(), &labels).filter(|sample| sample.value > 0.0) {
            requests += sample.value;
            let ok = if self.tcp { sample.label("result") == "ok" } else { is_answered(sample.label("status")) };
            if !ok {
                failed += sample.value;
                continue;
            }
            if sample.label("tls") != "mutual" {
                plain += sample.value;
            }
            if !peers.contains(&sample.label("peer")) {
                peers.push(sample.label("peer"));
            }
        }
        let quantile = |q: f64| {
            if self.tcp {
                quantile_of(ledger_ms, q)
            } else {
                samples.quantile("pillion_request_duration_seconds", &labels, q).unwrap_or(0.0) * 1000.0
            }
        };
        Row {
            from: self.from,
            to: self.to,
            requests: requests as u64,
            failed: failed as u64,
            p50_ms: rounded(quantile(0.5)),
            p99_ms: rounded(quantile(0.99)),
            peer: peers.join(", "),
            mtls: requests > failed && plain == 0.0,
        }
    }
}

/// Whether a status is an answer and not a failure: 0 is a client that left.
fn is_answered(status: &str) -> bool {
    status.parse::<u16>().is_ok_and(|status| (100..500).contains(&status))
}

fn quantile_of(values: &[f64], quantile: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// To a hundredth of a millisecond: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
pillion_requests_total{direction=\"outbound\",destination=\"payment.shop:80\",cluster=\"payment-v1.shop:80\",peer=\"spiffe://a\",tls=\"mutual\",status=\"200\",reason=\"\"} 90
pillion_requests_total{direction=\"outbound\",destination=\"payment.shop:80\",cluster=\"payment-v2.shop:80\",peer=\"spiffe://a\",tls=\"mutual\",status=\"200\",reason=\"\"} 9
pillion_requests_total{direction=\"outbound\",destination=\"payment.shop:80\",cluster=\"payment-v2.shop:80\",peer=\"\",tls=\"none\",status=\"503\",reason=\"connect_failure\"} 1
pillion_requests_total{direction=\"inbound\",destination=\"payment.shop:80\",cluster=\"x\",peer=\"spiffe://b\",tls=\"none\",status=\"200\",reason=\"\"} 5
pillion_tcp_connections_total{direction=\"outbound\",destination=\"ledger.shop:7000\",peer=\"spiffe://l\",tls=\"mutual\",result=\"ok\"} 4
";

    fn reading() -> Reading {
        Reading::from([("orders-1", Samples::parse(PAGE))])
    }

    #[test]
    fn a_row_counts_one_destination_outbound() {
        let rows = rows(&reading(), &[3.0, 1.0, 2.0]);
        let payment = &rows[3];
        assert_eq!((payment.requests, payment.failed, payment.mtls), (100, 1, true));
        assert_eq!(payment.peer, "spiffe://a");
        let ledger = &rows[4];
        assert_eq!((ledger.requests, ledger.p50_ms, ledger.p99_ms), (4, 2.0, 3.0));
        assert!(!rows[0].mtls, "nothing was seen of it");
    }

    #[test]
    fn the_split_is_by_cluster() {
        assert_eq!(split(&reading()), [("payment-v1".to_owned(), 90.0), ("payment-v2".to_owned(), 10.0)]);
    }
}
