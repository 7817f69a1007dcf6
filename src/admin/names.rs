//! How the names stand that the hosts of a cluster are found by: for `/clusters` and the metrics.

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::config::DnsKind;
use crate::dns::Standing;
use crate::proxy::Shared;
use crate::snapshot::Cluster;

/// Each name with its addresses, how old they are, and what was wrong the last time. `null` for other clusters.
pub(super) fn of(shared: &Shared, cluster: &Cluster) -> Value {
    let Some(dns) = &cluster.config.dns else { return Value::Null };
    let now = Instant::now();
    let all = shared.resolutions.of(&cluster.config.endpoints);
    let names: Map<String, Value> = all.iter().map(|(name, it)| (name.to_string(), standing(it, now))).collect();
    let kind = match dns.kind {
        DnsKind::Strict => "strict",
        DnsKind::Logical => "logical",
    };
    json!({ "kind": kind, "family": format!("{:?}", dns.family), "names": names })
}

/// Counts the names of a cluster by how they stand.
pub(super) fn gauge(shared: &Shared, cluster: &Cluster) {
    if cluster.config.dns.is_none() {
        return;
    }
    let all = shared.resolutions.of(&cluster.config.endpoints);
    for state in ["fresh", "stale", "empty"] {
        let count = all.values().filter(|standing| state_of(standing) == state).count();
        shared.telemetry.metrics.names_in_use(cluster.upstream.name(), state, count);
    }
}

fn standing(standing: &Standing, now: Instant) -> Value {
    let ago = |at: Instant| seconds(now.saturating_duration_since(at));
    json!({
        "state": state_of(standing),
        "addresses": standing.addresses,
        "resolved_seconds_ago": standing.resolved_at.map(ago),
        "ttl_seconds": standing.ttl.map(seconds),
        "asked_again_in_seconds": standing.next_at.map(|at| seconds(at.saturating_duration_since(now))),
        "last_error": standing.trouble,
    })
}

fn state_of(standing: &Standing) -> &'static str {
    match standing {
        Standing { is_stale: true, .. } => "stale",
        Standing { addresses, .. } if addresses.is_empty() => "empty",
        Standing { .. } => "fresh",
    }
}

/// Rounded: more digits tell people nothing.
fn seconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
