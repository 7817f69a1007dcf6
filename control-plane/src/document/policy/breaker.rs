//! `spec.breaker`.

use std::{collections::BTreeSet, time::Duration};

use pillion_wire::resilience::{Breaker, FailureRate, Failures};
use serde::Deserialize;

use super::super::{Issues, duration::Written, path::FieldPath};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    consecutive_failures: Option<u32>,
    failure_rate: Option<RawRate>,
    open_time: Option<Written>,
    max_open_time: Option<Written>,
    jitter_percent: Option<u32>,
    probes: Option<u32>,
    successes_to_close: Option<u32>,
    minimum_healthy: Option<u32>,
    fail_on: Option<Vec<Condition>>,
    statuses: Option<Vec<u16>>,
    grpc_codes: Option<Vec<GrpcCode>>,
    slow_call: Option<Written>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRate {
    percent: u32,
    window: Option<Written>,
    minimum_requests: Option<u32>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Condition {
    #[serde(rename = "5xx")]
    ServerError,
    GatewayError,
    ConnectFailure,
    Reset,
    Timeout,
}

/// gRPC's codes by name (gRPC, `doc/statuscodes.md`), each at its number.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum GrpcCode {
    Cancelled = 1,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

/// The window of a failure rate, if the document does not say: Linkerd's.
const WINDOW: Duration = Duration::from_secs(10);
/// Requests in it below which nothing is concluded, if the document does not say.
const MINIMUM: u32 = 20;

pub(super) fn read(raw: Raw, path: &FieldPath, issues: &mut Issues) -> Breaker {
    let base = Breaker::default();
    let open = raw.open_time.map_or(base.open, |written| written.0);
    let max_open = raw.max_open_time.map_or_else(|| base.max_open.max(open), |written| written.0);
    let jitter_percent = raw.jitter_percent.unwrap_or(base.jitter_percent);
    let probes = raw.probes.unwrap_or(base.probes);
    let successes = raw.successes_to_close.unwrap_or(probes);
    let rate = raw.failure_rate.map(|raw| rate(&raw, &path.key("failureRate"), issues));
    // 0: never. A rate alone is a breaker, too.
    let consecutive = match raw.consecutive_failures {
        Some(failures) => Some(failures).filter(|failures| *failures > 0),
        None => base.consecutive.filter(|_| rate.is_none()),
    };
    if consecutive.is_none() && rate.is_none() {
        issues
            .error(path.key("consecutiveFailures"), "without it, and without a failureRate, nothing opens the breaker");
    }
    if open.is_zero() {
        issues.error(path.key("openTime"), "has to be longer than 0");
    }
    if max_open < open {
        issues.error(path.key("maxOpenTime"), "is shorter than openTime");
    }
    if jitter_percent > 100 {
        issues.error(path.key("jitterPercent"), "is more than 100");
    }
    if probes == 0 {
        issues.error(path.key("probes"), "without a probe it would stay open for ever");
    }
    if successes == 0 || successes > probes {
        issues.error(path.key("successesToClose"), "has to be from 1 to `probes`");
    }
    let failures = failures(raw.fail_on, raw.statuses, raw.grpc_codes, raw.slow_call, path, issues);
    let keep = raw.minimum_healthy.unwrap_or(base.keep);
    Breaker { consecutive, rate, open, max_open, jitter_percent, probes, successes, keep, failures }
}

fn rate(raw: &RawRate, path: &FieldPath, issues: &mut Issues) -> FailureRate {
    let window = raw.window.map_or(WINDOW, |written| written.0);
    if !(1..=100).contains(&raw.percent) {
        issues.error(path.key("percent"), "has to be from 1 to 100");
    }
    if window < Duration::from_millis(100) || window > Duration::from_secs(3600) {
        issues.error(path.key("window"), "has to be from 100ms to 1h");
    }
    FailureRate { percent: raw.percent, window, minimum: raw.minimum_requests.unwrap_or(MINIMUM).max(1) }
}

fn failures(
    fail_on: Option<Vec<Condition>>,
    statuses: Option<Vec<u16>>,
    grpc: Option<Vec<GrpcCode>>,
    slow: Option<Written>,
    path: &FieldPath,
    issues: &mut Issues,
) -> Failures {
    let base = Failures::default();
    let slow = slow.map(|written| written.0);
    if slow.is_some_and(|slow| slow.is_zero()) {
        issues.error(path.key("slowCall"), "every call takes longer than 0");
    }
    for (index, status) in statuses.iter().flatten().enumerate() {
        if !(100..600).contains(status) {
            issues.error(path.key("statuses").index(index), "is no HTTP status");
        }
    }
    let statuses = statuses.map_or_else(BTreeSet::new, |statuses| statuses.into_iter().collect());
    let grpc = grpc.map_or(base.grpc, |codes| codes.into_iter().map(|code| code as u8).collect());
    let Some(on) = fail_on else { return Failures { statuses, grpc, slow, ..base } };
    Failures {
        server_errors: on.contains(&Condition::ServerError),
        gateway_errors: on.contains(&Condition::GatewayError),
        connect: on.contains(&Condition::ConnectFailure),
        reset: on.contains(&Condition::Reset),
        timeout: on.contains(&Condition::Timeout),
        statuses,
        grpc,
        slow,
    }
}
