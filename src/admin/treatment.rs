//! Timeouts and retries in force, for `/config_dump` and `/clusters`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::{Conditions, Treatment};
use crate::snapshot::Cluster;

/// What a route says of time and repetition, in milliseconds; null where it says nothing.
pub(super) fn treatment(treatment: Option<&Treatment>) -> Value {
    let Some(treatment) = treatment else { return Value::Null };
    let millis = |duration: Option<Duration>| duration.map(|duration| duration.as_millis());
    let retry = treatment.retry.as_ref().map(|retry| {
        let on = Conditions::ALL.iter().filter(|(_, condition)| retry.on.has(*condition)).map(|(name, _)| *name);
        json!({
            "on": on.collect::<Vec<_>>(),
            "codes": retry.codes,
            "attempts": retry.attempts,
            "backoff_base_ms": retry.base.as_millis(),
            "backoff_max_ms": retry.most.as_millis(),
            "body_limit": retry.body_limit,
        })
    });
    json!({
        "request_ms": millis(treatment.request),
        "per_try_ms": millis(treatment.per_try),
        "stream_idle_ms": millis(treatment.stream_idle),
        "max_duration_ms": millis(treatment.max_duration),
        "join_trace": !treatment.detached,
        "retry": retry,
    })
}

/// The retry budget of a cluster and what of it is used.
pub(super) fn budget(cluster: &Cluster) -> Value {
    let (active, retrying) = cluster.upstream.budget.counts();
    let limit = cluster.config.retry_budget;
    json!({
        "percent": limit.percent,
        "min_per_second": limit.min_per_second,
        "active_requests": active,
        "retries_under_way": retrying,
    })
}
