//! When a request is sent again, and after which pause: the conditions of Envoy and gRPC, full jitter, and what the host
//! itself asks for.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName};

use crate::config::{Conditions, RetryPolicy};

/// gRPC's number of tries before this one (gRFC A6).
pub const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
/// gRPC's pause that the host asks for, in milliseconds; anything else means that no retry is wanted (gRFC A6).
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What became of one try.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// A response began.
    Response {
        /// HTTP status.
        status: u16,
        /// Its fields.
        headers: &'a HeaderMap,
        /// The host's sidecar answered in its application's stead: what it met with there.
        behind: Option<Failure>,
    },
    /// There is none.
    Failure(Failure),
}

/// Why a try has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Connect,
    /// The host did not look at it.
    Refused,
    /// Cut, reset, or not valid HTTP.
    Reset,
    /// Not in time for one try.
    PerTry,
    /// Not the host's fault, or not to be helped.
    Final,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take what came: it is no failure, or none that is retried.
    Take,
    /// It would be retried, but that has been done often enough, or the host does not want it.
    Exhausted,
    /// Send it again after this pause.
    After(Duration),
}

/// The tries of one request.
#[derive(Debug)]
pub struct Retry<'a> {
    policy: &'a RetryPolicy,
    done: u32,
    step: u32,
}

impl<'a> Retry<'a> {
    /// Before the first try.
    pub fn new(policy: &'a RetryPolicy) -> Self {
        Self { policy, done: 0, step: 0 }
    }

    /// Retries so far.
    pub fn done(&self) -> u32 {
        self.done
    }

    /// A try ended. `chance` is uniform in `0.0..1.0`; `now` is for a `Retry-After` that is a date.
    pub fn handle(&mut self, outcome: Outcome<'_>, chance: f64, now: SystemTime) -> Verdict {
        let (is_retriable, headers) = match outcome {
            Outcome::Failure(failure) => (fails(self.policy.on, failure), None),
            Outcome::Response { status, headers, behind } => {
                (responds(self.policy, status, headers, behind), Some(headers))
            }
        };
        if !is_retriable {
            return Verdict::Take;
        }
        let pause = headers.map_or(Pause::Unasked, |headers| asked_pause(headers, now));
        if self.done >= self.policy.attempts {
            return Verdict::Exhausted;
        }
        let wait = match pause {
            Pause::Never => return Verdict::Exhausted,
            Pause::Asked(pause) if pause > self.policy.longest_pause => return Verdict::Exhausted,
            Pause::Exactly(pause) => {
                self.step = 0; // gRFC A6: the back-off begins anew.
                pause
            }
            Pause::Asked(pause) => pause.mul_f64(1.0 + chance / 2.0), // As Envoy, so that not all come back at once.
            Pause::Unasked => {
                self.step += 1;
                backoff(self.policy.base, self.policy.most, self.step, chance)
            }
        };
        self.done += 1;
        Verdict::After(wait)
    }
}

/// The n-th pause (1 is the first): uniform up to `base × (2^n − 1)`, and no longer than `most` (Envoy's
/// `JitteredExponentialBackOffStrategy`).
fn backoff(base: Duration, most: Duration, step: u32, chance: f64) -> Duration {
    let factor = (1_u32 << step.min(20)) - 1;
    base.saturating_mul(factor).min(most).mul_f64(chance)
}

fn fails(on: Conditions, failure: Failure) -> bool {
    let any = Conditions::RESET.or(Conditions::SERVER_ERROR).or(Conditions::GATEWAY_ERROR);
    let also = match failure {
        Failure::Connect => Conditions::CONNECT_FAILURE.or(Conditions::RESET_BEFORE_REQUEST),
        Failure::Refused => Conditions::REFUSED_STREAM.or(Conditions::RESET_BEFORE_REQUEST),
        Failure::Reset | Failure::PerTry => Conditions::default(),
        Failure::Final => return false,
    };
    on.has(any.or(also))
}

fn responds(policy: &RetryPolicy, status: u16, headers: &HeaderMap, behind: Option<Failure>) -> bool {
    let on = policy.on;
    let by_status = match status {
        502..=504 => on.has(Conditions::SERVER_ERROR.or(Conditions::GATEWAY_ERROR)),
        500..600 => on.has(Conditions::SERVER_ERROR),
        409 => on.has(Conditions::CONFLICT),
        _ => false,
    };
    by_status
        || behind.is_some_and(|failure| fails(on, failure))
        || on.has(Conditions::STATUS_CODES) && policy.codes.contains(&status)
        || grpc_condition(headers).is_some_and(|condition| on.has(condition))
}

/// What a gRPC call that failed without a message says (Trailers-Only): its status is in the head.
fn grpc_condition(headers: &HeaderMap) -> Option<Conditions> {
    match headers.get(GRPC_STATUS)?.as_bytes() {
        b"1" => Some(Conditions::CANCELLED),
        b"4" => Some(Conditions::DEADLINE_EXCEEDED),
        b"8" => Some(Conditions::RESOURCE_EXHAUSTED),
        b"13" => Some(Conditions::INTERNAL),
        b"14" => Some(Conditions::UNAVAILABLE),
        _ => None,
    }
}

/// The pause that a host asks for.
#[derive(Debug, PartialEq, Eq)]
enum Pause {
    Unasked,
    Asked(Duration),
    Exactly(Duration),
    Never,
}

fn asked_pause(headers: &HeaderMap, now: SystemTime) -> Pause {
    if let Some(pushback) = headers.get(PUSHBACK) {
        let millis = pushback.to_str().ok().and_then(|text| text.parse::<u32>().ok());
        return millis.map_or(Pause::Never, |millis| Pause::Exactly(Duration::from_millis(millis.into())));
    }
    let Some(text) = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()) else { return Pause::Unasked };
    if let Ok(seconds) = text.trim().parse::<u32>() {
        return Pause::Asked(Duration::from_secs(seconds.into()));
    }
    // RFC 9110, section 10.2.3: or a date. What is neither says nothing.
    let date = httpdate::parse_http_date(text).ok();
    date.map_or(Pause::Unasked, |date| Pause::Asked(date.duration_since(now).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::config::{BACKOFF_BASE, BODY_LIMIT, LONGEST_PAUSE};

    fn policy(on: &[&str], attempts: u32) -> RetryPolicy {
        let on = on.iter().map(|name| Conditions::named(name).expect("a condition"));
        RetryPolicy {
            on: on.fold(Conditions::default(), Conditions::or),
            codes: vec![429],
            attempts,
            base: BACKOFF_BASE,
            most: BACKOFF_BASE * 10,
            longest_pause: LONGEST_PAUSE,
            body_limit: BODY_LIMIT,
        }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn response(policy: &RetryPolicy, status: u16, fields: &[(&'static str, &'static str)]) -> Verdict {
        let headers = headers(fields);
        let outcome = Outcome::Response { status, headers: &headers, behind: None };
        Retry::new(policy).handle(outcome, 0.5, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn statuses_are_retried_under_their_conditions_only() {
        for (on, status, expected) in [
            ("5xx", 500, true),
            ("5xx", 503, true),
            ("5xx", 499, false),
            ("gateway-error", 500, false),
            ("gateway-error", 502, true),
            ("gateway-error", 504, true),
            ("gateway-error", 505, false),
            ("retriable-4xx", 409, true),
            ("retriable-4xx", 429, false),
            ("retriable-status-codes", 429, true),
            ("retriable-status-codes", 503, false),
            ("reset", 503, false),
            ("unavailable", 503, false),
            ("5xx", 200, false),
        ] {
            let verdict = response(&policy(&[on], 1), status, &[]);
            assert_eq!(matches!(verdict, Verdict::After(_)), expected, "{on} {status}: {verdict:?}");
        }
    }

    #[test]
    fn grpc_statuses_are_retried_by_name() {
        for (on, status) in [
            ("cancelled", "1"),
            ("deadline-exceeded", "4"),
            ("resource-exhausted", "8"),
            ("internal", "13"),
            ("unavailable", "14"),
        ] {
            let policy = policy(&[on], 1);
            let said = |status| headers(&[("grpc-status", status)]);
            for (status, expected) in [(status, true), ("0", false), ("5", false)] {
                let headers = said(status);
                let outcome = Outcome::Response { status: 200, headers: &headers, behind: None };
                let verdict = Retry::new(&policy).handle(outcome, 0.0, SystemTime::UNIX_EPOCH);
                assert_eq!(verdict == Verdict::After(Duration::ZERO), expected, "{on} {status}");
            }
        }
    }

    #[test]
    fn failures_are_retried_under_their_conditions_only() {
        use Failure::{Connect, Final, PerTry, Refused, Reset};
        for (on, retried) in [
            ("5xx", &[Connect, Refused, Reset, PerTry][..]),
            ("gateway-error", &[Connect, Refused, Reset, PerTry]),
            ("reset", &[Connect, Refused, Reset, PerTry]),
            ("reset-before-request", &[Connect, Refused]),
            ("connect-failure", &[Connect]),
            ("refused-stream", &[Refused]),
            ("unavailable", &[]),
        ] {
            for failure in [Connect, Refused, Reset, PerTry, Final] {
                let verdict = Retry::new(&policy(&[on], 1)).handle(Outcome::Failure(failure), 0.0, SystemTime::now());
                assert_eq!(verdict != Verdict::Take, retried.contains(&failure), "{on} {failure:?}");
            }
        }
        let fields = HeaderMap::new();
        let unreachable = Outcome::Response { status: 200, headers: &fields, behind: Some(Connect) };
        let verdict = Retry::new(&policy(&["connect-failure"], 1)).handle(unreachable, 0.0, SystemTime::now());
        assert_ne!(verdict, Verdict::Take, "gRPC hears of it in a 200");
    }

    #[test]
    fn what_the_host_asks_for_is_honoured() {
        let policy = policy(&["5xx", "unavailable"], 1);
        let after = |seconds| Verdict::After(Duration::from_secs_f64(seconds));
        for (name, value, expected) in [
            ("retry-after", "2", after(2.5)),
            ("retry-after", "0", after(0.0)),
            ("retry-after", "Thu, 01 Jan 1970 00:00:04 GMT", after(5.0)),
            ("retry-after", "301", Verdict::Exhausted),
            ("grpc-retry-pushback-ms", "100", after(0.1)),
            ("grpc-retry-pushback-ms", "-1", Verdict::Exhausted),
            ("grpc-retry-pushback-ms", "soon", Verdict::Exhausted),
            ("retry-after", "soon", after(0.0125)),
        ] {
            assert_eq!(response(&policy, 503, &[(name, value)]), expected, "{name}: {value}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_limit_and_tries_end() {
        let policy = policy(&["5xx"], 5);
        let mut retry = Retry::new(&policy);
        let mut pauses = Vec::new();
        let reset = Outcome::Failure(Failure::Reset);
        while let Verdict::After(pause) = retry.handle(reset, 0.999_999, SystemTime::UNIX_EPOCH) {
            pauses.push((pause.as_secs_f64() * 1000.0).round());
        }
        assert_eq!(pauses, [25.0, 75.0, 175.0, 250.0, 250.0]);
        assert_eq!(retry.handle(reset, 0.5, SystemTime::UNIX_EPOCH), Verdict::Exhausted);
        assert_eq!(retry.done(), 5);
    }

    proptest! {
        #[test]
        fn no_pause_is_longer_than_the_limit_and_no_request_is_sent_more_often_than_allowed(
            attempts in 0_u32..12, base in 1_u64..5_000, most in 1_u64..5_000, chances in prop::collection::vec(0.0_f64..1.0, 30),
        ) {
            let policy = RetryPolicy {
                base: Duration::from_millis(base), most: Duration::from_millis(most), ..policy(&["reset"], attempts)
            };
            let mut retry = Retry::new(&policy);
            let mut sent = 1;
            for chance in chances {
                match retry.handle(Outcome::Failure(Failure::Reset), chance, SystemTime::UNIX_EPOCH) {
                    Verdict::After(pause) => { prop_assert!(pause <= policy.most); sent += 1; }
                    verdict => prop_assert_eq!(verdict, Verdict::Exhausted),
                }
            }
            prop_assert_eq!(sent, 1 + attempts.min(30));
        }
    }
}
