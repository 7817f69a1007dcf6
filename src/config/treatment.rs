//! How long requests of a route may take, and when they are sent again.

use std::time::Duration;

/// What a route says of time and repetition. The default says nothing: no timeout and no retry.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Treatment {
    /// `RouteAction.timeout`: from the receipt of the request to the end of its response, over all tries.
    pub request: Option<Duration>,
    /// `RetryPolicy.per_try_timeout`: from the choice of a host to the head of its response.
    pub per_try: Option<Duration>,
    /// `RouteAction.idle_timeout`: without a byte either way.
    pub stream_idle: Option<Duration>,
    /// `max_stream_duration.max_stream_duration`: as [`Self::request`], under its own reason.
    pub max_duration: Option<Duration>,
    /// `max_stream_duration.grpc_timeout_header_max`: the most that a call's own `grpc-timeout` counts for; `None` and 0:
    /// it counts as it is.
    pub grpc_timeout_max: Option<Duration>,
    /// Not limited or cancelled by the inbound request that a call belongs to.
    pub detached: bool,
    /// `retry_policy`.
    pub retry: Option<RetryPolicy>,
}

/// `envoy.config.route.v3.RetryPolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// `retry_on`; never empty.
    pub on: Conditions,
    /// `retriable_status_codes`.
    pub codes: Vec<u16>,
    /// `num_retries`: tries after the first, 1 by default.
    pub attempts: u32,
    /// `retry_back_off.base_interval`: 25 ms by default.
    pub base: Duration,
    /// `retry_back_off.max_interval`: ten times the base by default.
    pub most: Duration,
    /// `rate_limited_retry_back_off.max_interval`: 300 s by default. Who asks for a longer pause is not asked again.
    pub longest_pause: Duration,
    /// `Route.per_request_buffer_limit_bytes`: bytes of a request's body that are kept for another try, 64 KiB by default.
    pub body_limit: usize,
}

/// Default of `retry_back_off.base_interval`, as Envoy's.
pub const BACKOFF_BASE: Duration = Duration::from_millis(25);
/// Default of `rate_limited_retry_back_off.max_interval`, as Envoy's.
pub const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// Default of [`RetryPolicy::body_limit`], as Linkerd's.
pub const BODY_LIMIT: usize = 64 << 10;

/// `CircuitBreakers.Thresholds.retry_budget` of a cluster. Always there: without limits retries turn an overload into an
/// outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Retries at one time in per cent of the requests that wait for their answer: 20 by default.
    pub percent: u8,
    /// Retries per second that are allowed besides: 10 by default (Gateway API, GEP-3388; no field of Envoy).
    pub min_per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20, min_per_second: 10 }
    }
}

/// A set of conditions for a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Conditions(u16);

macro_rules! conditions {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)+) => {
        impl Conditions {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)+
            /// All of them by the names of Envoy and gRPC.
            pub const ALL: &[(&'static str, Self)] = &[$(($text, Self::$name)),+];
        }
    };
}

conditions! {
    /// A 5xx, or no answer.
    SERVER_ERROR = 0, "5xx";
    /// 502, 503 or 504, or no answer.
    GATEWAY_ERROR = 1, "gateway-error";
    /// No answer: cut, reset, or not in time for one try.
    RESET = 2, "reset";
    /// Cut before anything was sent.
    RESET_BEFORE_REQUEST = 3, "reset-before-request";
    /// No connection could be made.
    CONNECT_FAILURE = 4, "connect-failure";
    /// The host says that it did not look at the request.
    REFUSED_STREAM = 5, "refused-stream";
    /// 409.
    CONFLICT = 6, "retriable-4xx";
    /// One of [`RetryPolicy::codes`].
    STATUS_CODES = 7, "retriable-status-codes";
    /// gRPC status 1.
    CANCELLED = 8, "cancelled";
    /// gRPC status 4.
    DEADLINE_EXCEEDED = 9, "deadline-exceeded";
    /// gRPC status 13.
    INTERNAL = 10, "internal";
    /// gRPC status 8.
    RESOURCE_EXHAUSTED = 11, "resource-exhausted";
    /// gRPC status 14.
    UNAVAILABLE = 12, "unavailable";
}

impl Conditions {
    /// The condition of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(text, _)| *text == name).map(|(_, condition)| *condition)
    }

    /// Both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Is any of `other` in it?
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// No condition: nothing is retried.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}
