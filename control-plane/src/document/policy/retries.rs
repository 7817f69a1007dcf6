//! `spec.retries`.

use serde::Deserialize;

use super::super::{Issues, duration::Written, path::FieldPath};
use super::timeouts::positive;
use crate::core::policy::{Budget, CONDITIONS, Retries};

/// The most that may be kept of a request's body.
const MAX_BODY_LIMIT: u64 = 64 << 20;
/// The most tries after the first: more are a mistake.
const MAX_ATTEMPTS: u32 = 100;
/// The highest floor of a budget.
const MAX_PER_SECOND: u32 = 1_000_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    attempts: Option<u32>,
    #[serde(default)]
    on: Vec<String>,
    #[serde(default)]
    codes: Vec<u16>,
    backoff: Option<RawBackoff>,
    per_try: Option<Written>,
    body_limit: Option<u64>,
    budget: Option<RawBudget>,
}

#[derive(Deserialize)]
struct RawBackoff {
    base: Option<Written>,
    max: Option<Written>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBudget {
    percent: Option<u8>,
    min_per_second: Option<u32>,
}

pub(super) fn read(raw: Raw, path: &FieldPath, issues: &mut Issues) -> Retries {
    if raw.attempts.is_some_and(|attempts| attempts > MAX_ATTEMPTS) {
        issues.error(path.key("attempts"), format!("more than {MAX_ATTEMPTS} tries help nobody"));
    }
    if raw.attempts.is_some_and(|attempts| attempts > 0) && raw.on.is_empty() && raw.codes.is_empty() {
        issues.error(path.key("on"), "say when to try again: there is no default");
    }
    let on = path.key("on");
    let conditions = raw.on.iter().enumerate().filter_map(|(at, name)| {
        let known = CONDITIONS.into_iter().find(|known| known == name);
        if known.is_none() {
            issues.error(on.index(at), format!("`{name}` is not known: write one of {}", CONDITIONS.join(", ")));
        }
        known
    });
    let conditions = conditions.collect();
    statuses(&raw.codes, &path.key("codes"), issues);
    let (base, most) = backoff(raw.backoff, &path.key("backoff"), issues);
    if raw.body_limit.is_some_and(|limit| limit > MAX_BODY_LIMIT) {
        issues.error(path.key("bodyLimit"), format!("is more than {MAX_BODY_LIMIT} bytes"));
    }
    Retries {
        attempts: raw.attempts,
        on: conditions,
        codes: raw.codes,
        base,
        most,
        per_try: positive(raw.per_try, path, "perTry", issues),
        body_limit: raw.body_limit.and_then(|limit| u32::try_from(limit).ok()),
        budget: raw.budget.map(|raw| budget(&raw, &path.key("budget"), issues)),
    }
    .with_implied()
}

/// Refuses what no failure has as its status.
pub(in super::super) fn statuses(codes: &[u16], path: &FieldPath, issues: &mut Issues) {
    for (at, code) in codes.iter().enumerate() {
        if !(400..600).contains(code) {
            issues.error(path.index(at), format!("{code} is no status of a failure, 400 to 599"));
        }
    }
}

fn backoff(
    raw: Option<RawBackoff>,
    path: &FieldPath,
    issues: &mut Issues,
) -> (Option<std::time::Duration>, Option<std::time::Duration>) {
    let Some(RawBackoff { base, max }) = raw else { return (None, None) };
    let (base, max) = (positive(base, path, "base", issues), positive(max, path, "max", issues));
    if max.is_some_and(|max| max < base.unwrap_or(Retries::BASE)) {
        issues.error(path.key("max"), "is shorter than the first back-off");
    }
    (base, max)
}

fn budget(raw: &RawBudget, path: &FieldPath, issues: &mut Issues) -> Budget {
    if raw.percent.is_some_and(|percent| percent > 100) {
        issues.error(path.key("percent"), "is more than 100");
    }
    if raw.min_per_second.is_some_and(|rate| rate > MAX_PER_SECOND) {
        issues.error(path.key("minPerSecond"), format!("is more than {MAX_PER_SECOND}"));
    }
    Budget { percent: raw.percent, min_per_second: raw.min_per_second }
}
