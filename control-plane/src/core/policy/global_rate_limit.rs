//! Section `globalRateLimit`: limits that a rate-limit service counts for all workloads together.

use std::time::Duration;

use pillion_wire::name::ServicePort;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GlobalRateLimit {
    /// Who is asked.
    pub service: ServicePort,
    /// Whose limits these are there.
    pub domain: String,
    /// How long a request waits for the answer.
    pub timeout: Duration,
    /// Are requests refused when there is none? Else they pass.
    pub deny_on_failure: bool,
    /// Are callers told what is left (`X-RateLimit-*`)?
    pub tell_limits: bool,
    /// What each request is asked about.
    pub descriptors: Vec<Descriptor>,
}

/// What one limit is looked up by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Descriptor {
    /// Keys and values, in the order in which the service looks for them.
    pub entries: Vec<Entry>,
    /// The limit itself, where not the service's own configuration says it.
    pub limit: Option<(u32, Unit)>,
    /// How much a request counts; once when there is none.
    pub hits: Option<u64>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// What the service calls it.
    pub key: String,
    /// Where its value comes from.
    pub value: Value,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// Always this.
    Fixed(String),
    /// The caller's SPIFFE id; `outside` for all without one.
    Caller,
    /// The address that the caller connects from; its key is always `remote_address`.
    SourceAddress,
    /// The path, without the query.
    Path,
    /// The method.
    Method,
    /// A header field, in lower case: requests without it are not asked about.
    Header(String),
}

/// What a limit's number of requests is for (`envoy.type.v3.RateLimitUnit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}
