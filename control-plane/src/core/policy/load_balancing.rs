//! How an endpoint is picked.

use std::time::Duration;

/// `spec.loadBalancing`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LoadBalancing {
    /// The algorithm (`Cluster.lb_policy`, `load_balancing_policy`).
    pub algorithm: Algorithm,
    /// What keeps calls on one endpoint, the first that a call has (`RouteAction.hash_policy`). Only for algorithms that
    /// hash, and never empty there.
    pub hash_on: Vec<HashOn>,
    /// `common_lb_config.healthy_panic_threshold` in percent; 0 when `None`.
    pub panic_threshold: Option<u32>,
    /// `slow_start_config`: new endpoints get their share little by little.
    pub slow_start: Option<SlowStart>,
    /// The order of zones, as priorities (`LocalityLbEndpoints.priority`).
    pub zones: Option<Zones>,
}

/// How an endpoint is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Each in turn, by weight.
    #[default]
    RoundRobin,
    /// Any, by weight.
    Random,
    /// The least busy of so many random ones.
    LeastRequest {
        /// 2 at least.
        choices: u32,
    },
    /// The least busy of all.
    LeastConnections,
    /// The lesser of two by expected latency times load.
    PeakEwma {
        /// How fast a latency is forgotten.
        decay: Duration,
        /// What is expected of an endpoint that has not answered yet.
        default_rtt: Duration,
    },
    /// By hash on a ring.
    RingHash {
        /// Least number of places on it.
        minimum: u32,
    },
    /// By hash in a table.
    Maglev {
        /// Number of its rows, a prime.
        table: u32,
    },
}

impl Algorithm {
    /// Whether it goes by [`HashOn`].
    #[must_use]
    pub const fn hashes(self) -> bool {
        matches!(self, Self::RingHash { .. } | Self::Maglev { .. })
    }

    /// Whether Envoy lets new endpoints start slowly with it.
    #[must_use]
    pub const fn starts_slowly(self) -> bool {
        matches!(self, Self::RoundRobin | Self::LeastRequest { .. } | Self::LeastConnections)
    }
}

/// What keeps calls together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HashOn {
    /// A header's value; its name in lower case.
    Header(String),
    /// A cookie's value.
    Cookie {
        /// Its name.
        name: String,
        /// Given to clients that have none, for so long (zero: for their session). `None`: not given.
        ttl: Option<Duration>,
        /// Its path.
        path: String,
    },
    /// A query parameter's value.
    Query(String),
    /// The client's address.
    SourceAddress,
}

/// The share of a new endpoint grows to its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlowStart {
    /// How long it takes; never 0.
    pub window: Duration,
    /// 100 grows evenly, more grows faster at first.
    pub aggression_percent: u32,
    /// What it starts with.
    pub minimum_percent: u32,
}

/// Which zones are used first. Each of the following takes over as the ones before have too few healthy endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Zones {
    /// The caller's own comes before all others.
    pub prefer_own: bool,
    /// Those that come next, one after the other; then all that are left.
    pub failover: Vec<String>,
}

impl Zones {
    /// The place of `zone` for a caller in `own`, from 0. Not without gaps.
    #[must_use]
    pub fn rank(&self, zone: Option<&str>, own: Option<&str>) -> usize {
        if self.prefer_own && zone.is_some() && zone == own {
            return 0;
        }
        let listed = zone.and_then(|zone| self.failover.iter().position(|other| other == zone));
        1 + listed.unwrap_or(self.failover.len())
    }
}
