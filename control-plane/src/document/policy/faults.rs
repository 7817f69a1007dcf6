//! `spec.faults`.

use serde::Deserialize;

use super::super::{Issues, duration::Written, gateway::ValueMatch, path::FieldPath, route::header_matches};
use crate::core::policy::{Abort, Faults, Share};

/// Requests that one proxy holds back at a time, unless `maxActive` says otherwise.
const MAX_ACTIVE: u32 = 1024;

/// gRPC's status codes in their order (gRPC, `doc/statuscodes.md`).
const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    delay: Option<RawDelay>,
    abort: Option<RawAbort>,
    #[serde(default)]
    headers: Vec<ValueMatch>,
    max_active: Option<u32>,
}

#[derive(Deserialize)]
struct RawDelay {
    fixed: Written,
    percent: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAbort {
    http_status: Option<u16>,
    grpc_status: Option<String>,
    percent: f64,
}

pub(super) fn read(raw: Raw, path: &FieldPath, issues: &mut Issues) -> Faults {
    if raw.delay.is_none() && raw.abort.is_none() {
        issues.error(path.clone(), "harms nobody: write delay or abort");
    }
    let delay = raw.delay.map(|raw| {
        let path = path.key("delay");
        if raw.fixed.0.is_zero() {
            issues.error(path.key("fixed"), "no time is no delay");
        }
        (raw.fixed.0, share(raw.percent, &path.key("percent"), issues))
    });
    Faults {
        delay,
        abort: raw.abort.and_then(|raw| abort(raw, &path.key("abort"), issues)),
        headers: header_matches(raw.headers, &path.key("headers"), issues),
        max_active: raw.max_active.unwrap_or(MAX_ACTIVE),
    }
}

fn abort(raw: RawAbort, path: &FieldPath, issues: &mut Issues) -> Option<(Abort, Share)> {
    let share = share(raw.percent, &path.key("percent"), issues);
    let abort = match (raw.http_status, raw.grpc_status) {
        (Some(status), None) if (200..600).contains(&status) => Abort::Http(status),
        (Some(status), None) => {
            issues.error(path.key("httpStatus"), format!("{status} is not in 200..=599"));
            return None;
        }
        (None, Some(name)) => match (0..).zip(GRPC_CODES).find(|(_, code)| *code == name) {
            Some((number, _)) => Abort::Grpc(number),
            None => {
                issues.error(path.key("grpcStatus"), format!("`{name}` is not a status of gRPC such as UNAVAILABLE"));
                return None;
            }
        },
        (None, None) | (Some(_), Some(_)) => {
            issues.error(path.clone(), "has either httpStatus or grpcStatus");
            return None;
        }
    };
    Some((abort, share))
}

/// To the hundredth of a hundredth of a per cent, which is what xDS can say.
fn share(percent: f64, path: &FieldPath, issues: &mut Issues) -> Share {
    if !(0.0..=100.0).contains(&percent) {
        issues.error(path.clone(), format!("{percent} is not in 0..=100"));
        return Share(0);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a million")]
    Share((percent * 10_000.0).round() as u32)
}
