//! Active health checks of a cluster, as documents ask for them and as proxies make them.
//!
//! They travel in Envoy's field, `Cluster.health_checks` (`envoy.config.core.v3.HealthCheck`); only
//! [`HealthCheck::keep`] has none there, and stands in the metadata (see [`crate::setting`]).

use std::ops::Range;
use std::time::Duration;

/// How endpoints are asked whether they are well, and what follows from the answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// From the end of one check to the beginning of the next (`interval`).
    pub interval: Duration,
    /// An answer that takes longer is none (`timeout`), connection included.
    pub timeout: Duration,
    /// Failures in a row that make an endpoint unhealthy (`unhealthy_threshold`); at least 1.
    pub unhealthy_threshold: u32,
    /// Successes in a row that make an unhealthy endpoint healthy (`healthy_threshold`); at least 1. For an endpoint that was
    /// never checked one is enough, as in Envoy.
    pub healthy_threshold: u32,
    /// At most so much is added to each interval, at random (`interval_jitter`).
    pub jitter: Duration,
    /// At most so long the first check waits, at random (`initial_jitter`).
    pub initial_jitter: Duration,
    /// The interval while an endpoint is unhealthy (`unhealthy_interval`).
    pub unhealthy_interval: Duration,
    /// The interval as long as nothing was ever sent to the cluster (`no_traffic_interval`).
    pub no_traffic_interval: Duration,
    /// One connection serves many checks (`reuse_connection`); HTTP and gRPC only.
    pub reuse: bool,
    /// Endpoints that are used even when all fail their checks: 0 is none, so that requests fail fast; otherwise all.
    pub keep: u32,
}

/// What is asked, and which answers are good (`HealthCheck.health_checker`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Probe {
    /// A request (`http_health_check`).
    Http(HttpProbe),
    /// A call of `grpc.health.v1.Health/Check` (`grpc_health_check`).
    Grpc {
        /// The service that is asked about; empty: the server as a whole.
        service: String,
        /// `:authority`; empty: the cluster's name.
        authority: String,
    },
    /// A connection (`tcp_health_check`).
    Tcp {
        /// What is sent; empty: nothing.
        send: Vec<u8>,
        /// What has to come, in this order, whatever is between; empty: to be connected is enough.
        receive: Vec<Vec<u8>>,
    },
}

/// A request of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpProbe {
    /// Path and query.
    pub path: String,
    /// `Host`; empty: the cluster's name.
    pub host: String,
    /// HEAD instead of GET.
    pub head_only: bool,
    /// Statuses of an endpoint that is well (`expected_statuses`).
    pub expected: Vec<Range<u16>>,
    /// Statuses of a failure that counts towards the threshold (`retriable_statuses`); any other failure makes the endpoint
    /// unhealthy at once.
    pub retriable: Vec<Range<u16>>,
    /// HTTP/2 with prior knowledge towards endpoints outside the mesh (`codec_client_type`).
    pub http2: bool,
}

impl HealthCheck {
    /// `no_traffic_interval`, if it is not said: Envoy's.
    pub const NO_TRAFFIC_INTERVAL: Duration = Duration::from_secs(60);
    /// Key of [`Self::keep`] among the settings in a cluster's metadata.
    pub const KEEP: &'static str = "healthChecksMinimumHealthy";

    /// A check with the defaults of documents. Times and thresholds are those of Kubernetes' probes (every 10 s, 1 s to
    /// answer, 3 failures, 1 success), and a tenth of the interval is added at random.
    #[must_use]
    pub fn new(probe: Probe) -> Self {
        let interval = Duration::from_secs(10);
        Self {
            probe,
            interval,
            timeout: Duration::from_secs(1),
            unhealthy_threshold: 3,
            healthy_threshold: 1,
            jitter: interval / 10,
            initial_jitter: interval / 10,
            unhealthy_interval: interval,
            no_traffic_interval: Self::NO_TRAFFIC_INTERVAL,
            reuse: true,
            keep: 1,
        }
    }
}

impl HealthCheck {
    /// The same for endpoints that are asked as those of the cluster `name`, where it is not said how.
    #[must_use]
    pub fn asking_for(&self, name: &str) -> Self {
        let mut rules = self.clone();
        match &mut rules.probe {
            Probe::Http(HttpProbe { host: authority, .. }) | Probe::Grpc { authority, .. } if authority.is_empty() => {
                name.clone_into(authority);
            }
            Probe::Http(_) | Probe::Grpc { .. } | Probe::Tcp { .. } => {}
        }
        rules
    }
}

impl HttpProbe {
    /// Envoy's `expected_statuses`, if none are said.
    pub const EXPECTED: Range<u16> = 200..201;
    /// All statuses that HTTP has.
    pub const ALL: Range<u16> = 100..600;
}
