//! `timeouts` and `retry` of an `HTTPRoute`'s rule.

use std::time::Duration;

use super::super::{
    Issues,
    gateway::{RuleRetry as Raw, RuleTimeouts},
    path::FieldPath,
    policy::retries::statuses,
};
use crate::core::policy::RuleRetry;

/// The limits of the whole request and of one try (GEP-1742).
pub(super) fn timeouts(
    raw: Option<RuleTimeouts>,
    path: &FieldPath,
    issues: &mut Issues,
) -> (Option<Duration>, Option<Duration>) {
    let Some(RuleTimeouts { request, backend_request }) = raw else { return (None, None) };
    let (request, one) = (request.map(|written| written.0), backend_request.map(|written| written.0));
    let whole = request.filter(|request| !request.is_zero());
    if whole.zip(one).is_some_and(|(whole, one)| one > whole) {
        issues.error(path.key("backendRequest"), "is longer than `request`");
    }
    (request, one.filter(|one| !one.is_zero()))
}

/// When it is sent again (GEP-1731).
pub(super) fn retry(raw: Option<Raw>, path: &FieldPath, issues: &mut Issues) -> Option<RuleRetry> {
    let Raw { codes, attempts, backoff } = raw?;
    statuses(&codes, &path.key("codes"), issues);
    if attempts.is_some_and(|attempts| attempts > 100) {
        issues.error(path.key("attempts"), "more than 100 tries help nobody");
    }
    let backoff = backoff.map(|written| written.0);
    if backoff.is_some_and(|backoff| backoff.is_zero()) {
        issues.error(path.key("backoff"), "has to be longer than 0");
    }
    Some(RuleRetry { codes, attempts, backoff })
}
