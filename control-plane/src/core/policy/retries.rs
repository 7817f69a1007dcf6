//! When requests are sent again.

use std::time::Duration;

use crate::core::route::Rule;

use super::{Policy, Timeouts};

/// `spec.retries`. Nothing is retried without [`Self::on`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Retries {
    /// Tries after the first (`RetryPolicy.num_retries`); 1 when `None`.
    pub attempts: Option<u32>,
    /// Conditions, by their names in Envoy and gRPC (`RetryPolicy.retry_on`).
    pub on: Vec<&'static str>,
    /// Statuses for the condition `retriable-status-codes`, which they imply.
    pub codes: Vec<u16>,
    /// The first back-off (`retry_back_off.base_interval`); 25 ms when `None`.
    pub base: Option<Duration>,
    /// The longest back-off (`retry_back_off.max_interval`); ten times the first when `None`.
    pub most: Option<Duration>,
    /// Goes before `timeouts.perTry`.
    pub per_try: Option<Duration>,
    /// Bytes of a request's body that are kept for another try; 64 KiB when `None`.
    pub body_limit: Option<u32>,
    /// Of the destination.
    pub budget: Option<Budget>,
}

/// How many of the requests to a destination may be retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Per cent of the requests that wait for an answer; 20 when `None`.
    pub percent: Option<u8>,
    /// Retries per second besides; 10 when `None`.
    pub min_per_second: Option<u32>,
}

/// A condition for codes that are listed.
const STATUS_CODES: &str = "retriable-status-codes";

/// The conditions that a document may name: those of Envoy, and of gRPC (gRFC A44).
pub const CONDITIONS: [&str; 13] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "refused-stream",
    "retriable-4xx",
    STATUS_CODES,
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// What GEP-1731 asks for wherever a rule says `retry`: a new try when there was no answer at all.
const OF_RULES: [&str; 3] = ["connect-failure", "refused-stream", "reset"];

/// `retry` of a rule (GEP-1731).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleRetry {
    /// Statuses that are retried, besides no answer at all.
    pub codes: Vec<u16>,
    /// Tries after the first.
    pub attempts: Option<u32>,
    /// The first back-off.
    pub backoff: Option<Duration>,
}

impl Retries {
    /// The first back-off, if none is said.
    pub const BASE: Duration = Duration::from_millis(25);

    /// The same with the condition that its codes imply.
    #[must_use]
    pub fn with_implied(mut self) -> Self {
        if !self.codes.is_empty() && !self.on.contains(&STATUS_CODES) {
            self.on.push(STATUS_CODES);
        }
        self
    }

    /// Is anything retried?
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.on.is_empty() && self.attempts != Some(0)
    }
}

impl Policy {
    /// What holds for requests that `rule` matches: its own fields go before those of policies.
    #[must_use]
    pub fn for_rule(mut self, rule: &Rule) -> Self {
        if rule.request.is_some() || rule.backend_request.is_some() {
            let timeouts = self.timeouts.get_or_insert_with(Timeouts::default);
            timeouts.request = rule.request.or(timeouts.request);
            timeouts.per_try = rule.backend_request.or(timeouts.per_try);
        }
        if let Some(per_try) = rule.backend_request
            && let Some(retries) = &mut self.retries
        {
            retries.per_try = Some(per_try);
        }
        if let Some(rule) = &rule.retry {
            let retries = self.retries.get_or_insert_with(Retries::default);
            retries.on = OF_RULES.to_vec();
            retries.codes.clone_from(&rule.codes);
            retries.attempts = rule.attempts.or(retries.attempts);
            if rule.backoff.is_some() {
                (retries.base, retries.most) = (rule.backoff, None);
            }
            *retries = std::mem::take(retries).with_implied();
        }
        super::session::for_rule(&mut self, rule);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule {
            name: None,
            matches: Vec::new(),
            filters: crate::core::filter::Filters::default(),
            backends: Vec::new(),
            request: None,
            backend_request: None,
            retry: None,
            session: None,
        }
    }

    #[test]
    fn fields_of_a_rule_go_before_those_of_policies_one_by_one() {
        let second = Some(Duration::from_secs(1));
        let timeouts = Timeouts { request: second, per_try: second, stream_idle: second, ..Timeouts::default() };
        let retries = Retries {
            on: vec!["5xx"],
            attempts: Some(5),
            base: second,
            most: second,
            per_try: second,
            body_limit: Some(1),
            ..Retries::default()
        };
        let of_retries = Policy { retries: Some(retries.clone()), ..Policy::default() };
        let policy = Policy { timeouts: Some(timeouts.clone()), ..of_retries };
        assert_eq!(policy.clone().for_rule(&rule()), policy);

        let (zero, short) = (Some(Duration::ZERO), Some(Duration::from_millis(10)));
        let own = RuleRetry { codes: vec![503], attempts: None, backoff: short };
        let own = Rule { request: zero, backend_request: short, retry: Some(own), ..rule() };
        let told = policy.for_rule(&own);
        assert_eq!(told.timeouts, Some(Timeouts { request: zero, per_try: short, ..timeouts }));
        let on = vec!["connect-failure", "refused-stream", "reset", "retriable-status-codes"];
        let expected = Retries { on, codes: vec![503], base: short, most: None, per_try: short, ..retries };
        assert_eq!(told.retries, Some(expected));
    }

    #[test]
    fn a_rule_needs_no_policy() {
        let own = Rule { retry: Some(RuleRetry::default()), request: Some(Duration::from_secs(1)), ..rule() };
        let told = Policy::default().for_rule(&own);
        assert_eq!(told.retries.unwrap().on, OF_RULES);
        assert_eq!(told.timeouts.unwrap().request, Some(Duration::from_secs(1)));
    }
}
