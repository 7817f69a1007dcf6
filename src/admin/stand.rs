//! Why a destination or a host is, or is not, given requests: for `/clusters`.

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::resilience::breaker::State;
use crate::resilience::outlier::Verdict;
use crate::snapshot::Cluster;
use crate::upstream::{BreakerReport, Report};

/// Limits by name, with what is taken and who waits. `null` without any.
pub(super) fn limits(cluster: &Cluster) -> Value {
    let rules = cluster.config.resilience.as_ref();
    let Some(limits) = rules.and_then(|rules| rules.limits.as_ref()) else { return Value::Null };
    let most = |limit| match limit {
        "requests" => limits.requests,
        "connections" => limits.connections,
        _ => limits.retries,
    };
    let each = in_use(cluster).into_iter().map(|(limit, (used, waiting))| {
        let value = match most(limit) {
            Some(most) => json!({ "most": most, "in_use": used, "waiting": waiting }),
            None => json!("unlimited"),
        };
        (limit.to_owned(), value)
    });
    let mut all: Map<String, Value> = each.collect();
    all.insert(
        "pending".to_owned(),
        json!({ "most": limits.pending, "timeout_seconds": limits.pending_timeout.as_secs_f64() }),
    );
    all.insert(
        "per_endpoint".to_owned(),
        json!({ "requests": limits.endpoint_requests, "connections": limits.endpoint_connections }),
    );
    Value::Object(all)
}

/// What is taken of each limit of a destination, and who waits.
pub(super) fn in_use(cluster: &Cluster) -> [(&'static str, (u32, u32)); 3] {
    let load = cluster.upstream.load();
    [("requests", load.requests.now()), ("connections", load.connections.now()), ("retries", load.retries.now())]
}

/// The gauge of those who wait for a place within a limit.
pub(super) fn pending(limit: &'static str) -> &'static str {
    if limit == "requests" { "pending_requests" } else { "pending_connections" }
}

/// What protects callers from a host.
pub(super) fn host(report: &Report, now: Instant) -> Map<String, Value> {
    let mut fields = Map::new();
    if let Some((requests, connections)) = report.in_use {
        fields.insert("limits_in_use".to_owned(), json!({ "requests": requests, "connections": connections }));
    }
    if let Some(told) = &report.breaker {
        fields.insert("breaker".to_owned(), breaker(told, now));
    }
    if report.ejected.is_some() || report.verdict.is_some() {
        fields.insert("outlier".to_owned(), outlier(report, now));
    }
    fields
}

fn breaker(report: &BreakerReport, now: Instant) -> Value {
    let (state, retry) = match report.state {
        State::Closed => ("closed", None),
        State::Open { until } => ("open", Some(seconds(until.saturating_duration_since(now)))),
        State::HalfOpen { .. } => ("half-open", Some(0.0)),
    };
    let mut value = json!({ "state": state, "since_seconds": seconds(now.saturating_duration_since(report.since)) });
    if let Some(fields) = value.as_object_mut() {
        if !report.why.is_empty() {
            let key = if state == "closed" { "opened_last_because" } else { "why" };
            fields.insert(key.to_owned(), json!(report.why));
        }
        if let Some(retry) = retry {
            fields.insert("tried_again_in_seconds".to_owned(), json!(retry));
            fields.insert("times_opened".to_owned(), json!(report.openings));
        }
        if let State::HalfOpen { probes, succeeded } = report.state {
            fields.insert("probes".to_owned(), json!({ "let_through": probes, "succeeded": succeeded }));
        }
        if let Some(why) = &report.kept {
            let text = format!("{why}, but the floor of endpoints in use is reached");
            fields.insert("not_opened_because".to_owned(), json!(text));
        }
    }
    value
}

fn outlier(report: &Report, now: Instant) -> Value {
    if let Some((since, until, why)) = &report.ejected {
        return json!({
            "ejected": true,
            "why": why,
            "since_seconds": seconds(now.saturating_duration_since(*since)),
            "returns_in_seconds": seconds(until.saturating_duration_since(now)),
        });
    }
    let verdict = match &report.verdict {
        Some(Verdict::Fine(why)) => (*why).to_owned(),
        Some(Verdict::Keep { why, but }) => format!("{why}, but {but}"),
        Some(Verdict::Eject(why)) => format!("{why}, but the floor of endpoints in use is reached"),
        Some(Verdict::Away) | None => "it has just returned".to_owned(),
    };
    json!({ "ejected": false, "not_ejected_because": verdict })
}

/// Rounded: more digits tell people nothing.
pub(super) fn seconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
