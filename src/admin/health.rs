//! What health checks found of a host, for `/clusters`.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::stand::seconds;
use crate::resilience::health::{Finding, State};
use crate::upstream::HealthReport;

/// State, since when, the last check and why it failed, and when the next one is.
pub(super) fn report(report: &HealthReport, now: Instant) -> Value {
    let state = match report.state {
        State::Unchecked => "unchecked",
        State::Healthy => "healthy",
        State::Unhealthy => "unhealthy",
    };
    let last = report.last.as_ref().map(|last| {
        json!({
            "seconds_ago": seconds(now.saturating_duration_since(last.at)),
            "took_seconds": seconds(last.took),
            "result": match last.found.finding {
                Finding::Passed => "passed",
                Finding::Failed | Finding::Refused => "failed",
                Finding::Unknown => "inconclusive",
            },
            "why": (!last.found.why.is_empty()).then_some(&last.found.why),
        })
    });
    let mut value = json!({
        "state": state,
        "since_seconds": seconds(now.saturating_duration_since(report.since)),
        "next_check_in_seconds": seconds(report.next.saturating_duration_since(now)),
        "last_check": last,
    });
    if let Some(fields) = value.as_object_mut().filter(|_| report.streak > 0) {
        let key = if report.state == State::Healthy { "failures_in_a_row" } else { "successes_in_a_row" };
        fields.insert(key.to_owned(), json!(report.streak));
    }
    value
}
