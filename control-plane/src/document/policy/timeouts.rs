//! `spec.timeouts`.

use std::time::Duration;

use serde::Deserialize;

use super::super::{Issues, duration::Written, path::FieldPath};
use crate::core::policy::Timeouts;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    connect: Option<Written>,
    request: Option<Written>,
    per_try: Option<Written>,
    idle: Option<Written>,
    stream_idle: Option<Written>,
    max_duration: Option<Written>,
    connection_age: Option<Written>,
    join_trace: Option<bool>,
}

pub(super) fn read(raw: &Raw, path: &FieldPath, issues: &mut Issues) -> Timeouts {
    let connect = raw.connect.map(|written| written.0);
    if connect.is_some_and(|connect| connect.is_zero()) {
        issues.error(path.key("connect"), "no connection is made in no time");
    }
    Timeouts {
        connect,
        request: raw.request.map(|written| written.0),
        per_try: positive(raw.per_try, path, "perTry", issues),
        idle: positive(raw.idle, path, "idle", issues),
        stream_idle: positive(raw.stream_idle, path, "streamIdle", issues),
        max_duration: positive(raw.max_duration, path, "maxDuration", issues),
        connection_age: positive(raw.connection_age, path, "connectionAge", issues),
        join_trace: raw.join_trace,
    }
}

/// A duration that is not zero.
pub(super) fn positive(
    written: Option<Written>,
    path: &FieldPath,
    key: &'static str,
    issues: &mut Issues,
) -> Option<Duration> {
    let duration = written?.0;
    if duration.is_zero() {
        issues.error(path.key(key), "has to be longer than 0: leave it out for no limit");
    }
    Some(duration)
}
