//! How many requests a workload's port takes, as its own sidecar is told.
//!
//! Envoy's `local_ratelimit` filter has one algorithm and one bucket for a listener, so this is an extension: metadata
//! of the port's filter chain under [`RATE_LIMITS_METADATA`].

use std::num::NonZeroU32;

pub use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Key in `FilterChain.metadata.filter_metadata` (Envoy `listener.v3`). See [`RateLimits`].
pub const RATE_LIMITS_METADATA: &str = "pillion.dev/rate-limits";

/// Method of `envoy.service.ratelimit.v3.RateLimitService` that says whether a request is too much.
pub const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// The expressions that global rate limits know (`envoy.rate_limit_descriptors.expr`; Envoy, "Attributes"): Envoy
/// evaluates any, and what these mean is known without.
pub mod expression {
    /// The caller's SPIFFE id, and `outside` for callers without a proven one.
    pub const CALLER: &str = "connection.mtls ? connection.uri_san_peer_certificate : 'outside'";
    /// What [`CALLER`] says of callers outside the mesh.
    pub const OUTSIDE: &str = "outside";
    /// The caller's SPIFFE id; no descriptor for callers without one.
    pub const PROVEN_CALLER: &str = "connection.uri_san_peer_certificate";
    /// The path without the query.
    pub const PATH: &str = "request.url_path";
}

/// The most requests that [`Algorithm::SlidingWindowLog`] remembers for each key.
pub const MOST_LOGGED: u32 = 10_000;
/// The most keys that one limit remembers.
pub const MOST_KEYS: u32 = 1_000_000;

/// All limits of a port. A request has to fit each of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimits {
    /// In the order in which they are asked.
    pub limits: Vec<RateLimit>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// What it is called in answers, logs and metrics: lower-case letters, digits, `-`.
    pub name: String,
    /// How many requests...
    pub requests: NonZeroU32,
    /// ...in this many milliseconds.
    pub per_millis: NonZeroU32,
    /// Token bucket: how many at once, when nothing came for long.
    pub burst: NonZeroU32,
    /// Leaky bucket: how long a request may wait for its turn, in milliseconds.
    pub longest_wait_millis: u32,
    /// How requests are counted.
    pub algorithm: Algorithm,
    /// Requests that differ in any of these are counted apart. None: all together.
    pub keys: Vec<Key>,
    /// How many different keys are remembered; the one that was not used for longest is forgotten first.
    pub most_keys: NonZeroU32,
    /// Who is not counted.
    pub exempt: Exempt,
}

/// How requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Algorithm {
    /// A bucket of `burst` tokens that fills evenly.
    TokenBucket,
    /// Requests pass one by one at an even pace; those ahead of it wait their turn.
    LeakyBucket,
    /// Counted from each full period to the next.
    FixedWindow,
    /// Exactly those of the last period: remembers each, so 10,000 at most.
    SlidingWindowLog,
    /// About those of the last period: this window's, and the last one's in proportion.
    SlidingWindowCounter,
    /// Those that are under way: from their admission to the last byte of their answer. There is no period.
    Concurrency,
}

/// What tells requests apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Key {
    /// The SPIFFE id of the caller; all callers outside the mesh are one.
    Caller,
    /// The address that the caller connects from.
    SourceAddress,
    /// The path, without the query.
    Path,
    /// A header field, in lower case; requests without it are one.
    Header(String),
}

/// Who is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exempt {
    /// SPIFFE ids.
    pub callers: Vec<String>,
    /// Addresses that callers connect from.
    pub networks: Vec<IpNet>,
    /// Paths, exactly.
    pub paths: Vec<String>,
}
