//! One node: its traffic over time, its edges, its endpoints as their callers see them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    graph::{Flow, Sources, accounts, is_told},
    topology::Topology,
};
use crate::load::{report::EdgeKey, ring};

/// Endpoints that are listed.
const MOST_ENDPOINTS: usize = 500;

/// What is known of the node `id`: requests to it (`inbound`) and from it (`outbound`) by slot of time over the last
/// `window` seconds, and its endpoints.
pub(super) fn node(sources: &Sources<'_>, id: &str, window: u64) -> Value {
    let topology = Topology::new(sources.mesh);
    let mut series: [BTreeMap<u64, Flow>; 2] = Default::default();
    let mut endpoints = Vec::new();
    sources.store.read(sources.now, |all| {
        let reporting = accounts(all);
        for (reporter, reports) in all {
            let own = topology.of_reporter(reporter);
            let covered: BTreeMap<u64, f64> =
                reports.covered.slots(sources.now, window).map(|(at, ms)| (at, *ms as f64 / 1000.0)).collect();
            for (key, rings) in reports.edges.iter().filter(|(key, _)| is_told(key, &reporting)) {
                let other = match key.inbound {
                    true => topology.of_caller(&key.peer),
                    false => topology.of_target(key, &reporter.namespace),
                };
                let (from, to) = if key.inbound { (&other, &own) } else { (&own, &other) };
                for (matches, series) in [to.id() == id, from.id() == id].into_iter().zip(&mut series) {
                    if matches {
                        for (at, sums) in rings.slots(sources.now, window) {
                            let seconds = covered.get(&at).copied().unwrap_or_default();
                            series.entry(at).or_default().add(sums, seconds, reporter.dialect == "pillion");
                        }
                    }
                }
            }
            // Slots in which it reported, and there was nothing.
            if own.id() == id {
                for at in covered.keys() {
                    for series in &mut series {
                        series.entry(*at).or_default();
                    }
                }
            }
            for (cluster, known) in &reports.endpoints {
                if topology.of_target(&EdgeKey::outbound(cluster), &reporter.namespace).id() != id {
                    continue;
                }
                let room = MOST_ENDPOINTS.saturating_sub(endpoints.len());
                endpoints.extend(known.iter().take(room).map(|endpoint| {
                    json!({
                        "address": endpoint.address,
                        "workload": topology.endpoint(&endpoint.address).map(ToString::to_string),
                        "cluster": cluster,
                        "state": endpoint.state,
                        "why": endpoint.why,
                        "identity": endpoint.identity,
                        "in_progress": endpoint.in_progress,
                        "seen_by": format!("{}/{}", reporter.namespace, reporter.name),
                    })
                }));
            }
        }
    });
    let [inbound, outbound] = series.map(|series| slots(&series));
    json!({
        "id": id,
        "at": sources.now,
        "window": window,
        "slot_seconds": ring::width(window),
        "inbound": inbound,
        "outbound": outbound,
        "endpoints": endpoints,
    })
}

fn slots(series: &BTreeMap<u64, Flow>) -> Vec<Value> {
    let slot = |(at, flow): (&u64, &Flow)| {
        let traffic = flow.traffic();
        json!({
            "at": at,
            "requests_per_second": traffic.requests_per_second,
            "success_rate": traffic.success_rate,
            "p50_ms": traffic.p50_ms,
            "p95_ms": traffic.p95_ms,
            "p99_ms": traffic.p99_ms,
            "tcp_bytes_per_second": traffic.tcp_bytes_per_second,
        })
    };
    series.iter().map(slot).collect()
}
