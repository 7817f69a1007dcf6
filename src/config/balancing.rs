//! How a host of a cluster is picked (`Cluster.lb_policy` and what goes with it).

use std::time::Duration;

/// A load-balancing policy with all that changes its picks. Fractions are whole percent, so that it can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Balancing {
    /// The algorithm.
    pub policy: LbPolicy,
    /// `common_lb_config.healthy_panic_threshold`: of a priority with a smaller share of healthy hosts all are used, in
    /// percent. 0: never, while one is left.
    pub panic_threshold: u32,
    /// `common_lb_config.locality_weighted_lb_config`: hosts share the weight of their locality.
    pub locality_weighted: bool,
    /// `common_lb_config.override_host_status` has `DRAINING`: hosts that drain keep their sessions.
    pub keeps_draining: bool,
    /// `slow_start_config`; `None`: a new host gets its whole share at once.
    pub slow_start: Option<SlowStart>,
}

/// Load-balancing policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LbPolicy {
    /// `ROUND_ROBIN`: each host in turn, as often as its weight says.
    #[default]
    RoundRobin,
    /// `RANDOM`.
    Random,
    /// `LEAST_REQUEST`: the least busy of a few.
    LeastRequest {
        /// `choice_count`: hosts that are compared, from 2.
        choices: u32,
        /// `active_request_bias` in percent: how much load counts against weight, where weights differ.
        bias: u32,
        /// `selection_method: FULL_SCAN`: all hosts are compared.
        full_scan: bool,
    },
    /// `PeakEwma` (Envoy contrib): the lesser of two by expected latency times load.
    PeakEwma {
        /// `decay_time` of the average.
        decay: Duration,
        /// `default_rtt`: what is expected of a host that has not answered yet.
        default_rtt: Duration,
        /// The latency that a failure counts as, at least; zero: failures count as what they took.
        penalty: Duration,
    },
    /// `RING_HASH`.
    RingHash {
        /// `minimum_ring_size`.
        minimum: u32,
        /// `maximum_ring_size`.
        maximum: u32,
    },
    /// `MAGLEV`.
    Maglev {
        /// `table_size`, a prime.
        table: u32,
    },
}

/// `SlowStartConfig`: the share of a new host grows to its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStart {
    /// `slow_start_window`: how long it takes.
    pub window: Duration,
    /// `aggression` in percent: 100 grows evenly, more grows faster at first.
    pub aggression: u32,
    /// `min_weight_percent`: what it starts with.
    pub minimum: u32,
}

/// What the hash of a request is made of (`RouteAction.HashPolicy`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashPolicy {
    /// Where it is taken from.
    pub source: HashSource,
    /// `terminal`: when there is a hash by now, the policies after this one are passed over.
    pub terminal: bool,
}

/// `RouteAction.HashPolicy.policy_specifier`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashSource {
    /// `header`: all values of a field.
    Header(http::HeaderName),
    /// `cookie`.
    Cookie {
        /// Its name.
        name: String,
        /// `ttl`: one is given to a client that has none, for so long; zero: until the client ends its session.
        ttl: Option<Duration>,
        /// `path` of the cookie that is given; may be empty.
        path: String,
    },
    /// `connection_properties.source_ip`: the client's address.
    SourceIp,
    /// `query_parameter`: the first of that name.
    Query(String),
}

impl LbPolicy {
    /// Its name in xDS.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "ROUND_ROBIN",
            Self::Random => "RANDOM",
            Self::LeastRequest { .. } => "LEAST_REQUEST",
            Self::PeakEwma { .. } => "PEAK_EWMA",
            Self::RingHash { .. } => "RING_HASH",
            Self::Maglev { .. } => "MAGLEV",
        }
    }
}
