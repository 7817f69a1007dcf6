//! Limits that a rate-limit service counts for many workloads at once (Envoy's HTTP filter `ratelimit`).

use std::time::Duration;

use http::StatusCode;

use super::{HeaderChange, HeaderMatch, HeaderName};

/// Default of [`GlobalRateLimit::timeout`], as Envoy's.
pub const RATE_LIMIT_TIMEOUT: Duration = Duration::from_millis(20);

/// `envoy.extensions.filters.http.ratelimit.v3.RateLimit` with the `rate_limits` of its virtual host.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalRateLimit {
    /// `rate_limit_service.grpc_service.envoy_grpc.cluster_name`.
    pub cluster: String,
    /// `envoy_grpc.authority`; the cluster's name when it is empty.
    pub authority: String,
    /// `domain`: whose limits these are at the service.
    pub domain: String,
    /// `timeout`: how long a request waits for the answer; [`RATE_LIMIT_TIMEOUT`] by default.
    pub timeout: Duration,
    /// `failure_mode_deny` with `status_on_error`: what requests get when there is no answer. `None`, the default: they pass.
    pub on_failure: Option<StatusCode>,
    /// `rate_limited_status`: 429 by default.
    pub status: StatusCode,
    /// `rate_limited_as_resource_exhausted`: what gRPC callers are told; UNAVAILABLE when false.
    pub resource_exhausted: bool,
    /// `enable_x_ratelimit_headers`: `X-RateLimit-*` (draft-polli-ratelimit-headers-03) on each answer.
    pub tell_limits: bool,
    /// Not `disable_x_envoy_ratelimited_header`.
    pub tell_limited: bool,
    /// `response_headers_to_add`: changes of the answer to who is refused.
    pub answers: Vec<HeaderChange>,
    /// `VirtualHost.rate_limits` of the filter's stage. None: nobody is asked.
    pub descriptors: Vec<Descriptor>,
}

/// `envoy.config.route.v3.RateLimit`: what one limit is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptor {
    /// `actions`. Without one that is not optional there is no descriptor.
    pub entries: Vec<Entry>,
    /// `limit.rate_limit`: requests, and the number of `envoy.type.v3.RateLimitUnit`.
    pub limit: Option<(u32, i32)>,
    /// `hits_addend.number`: how much a request counts; as the service has it when there is none.
    pub hits: Option<u64>,
}

/// `RateLimit.Action`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What the service calls it.
    pub key: String,
    /// What it is.
    pub value: EntryValue,
    /// `skip_if_absent`, `skip_if_error`: without a value the descriptor goes without it. Otherwise there is none then.
    pub is_optional: bool,
}

/// Where the value of an [`Entry`] comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryValue {
    /// `generic_key`.
    Fixed(String),
    /// `remote_address`: the address that the caller connects from.
    SourceAddress,
    /// `masked_remote_address`: the network of so many bits that it lies in, for IPv4 and IPv6.
    SourceNetwork(u8, u8),
    /// `request_headers`: the first field of this name.
    Header(HeaderName),
    /// `header_value_match`: this value when all of these match, or (`false`) do not.
    HeaderMatch(String, Vec<HeaderMatch>, bool),
    /// [`CALLER`](pillion_wire::rate_limit::expression::CALLER).
    Caller,
    /// [`PROVEN_CALLER`](pillion_wire::rate_limit::expression::PROVEN_CALLER).
    ProvenCaller,
    /// [`PATH`](pillion_wire::rate_limit::expression::PATH).
    Path,
}
