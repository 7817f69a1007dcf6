//! Clusters and their endpoints (CDS and EDS).

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use pillion_wire::health::HealthCheck;
use pillion_wire::mesh::MeshEndpoint;

use super::{Balancing, Dns, Labels, Resilience, Subsets};

/// Envoy's default of `Cluster.connect_timeout`.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A set of interchangeable hosts and how to talk to them (`envoy.config.cluster.v3.Cluster`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Name, `<service>.<namespace>:<port>`.
    pub name: String,
    /// Name of the endpoints resource: `eds_cluster_config.service_name`, or the cluster's own name.
    pub endpoints: String,
    /// Longest wait for TCP and TLS set-up of one connection. Envoy's default is 5 s.
    pub connect_timeout: Duration,
    /// How a host is picked.
    pub lb: Balancing,
    /// `lb_subset_config`: requests go to a part of its hosts. `None`: to any.
    pub subsets: Option<Arc<Subsets>>,
    /// The HTTP version that hosts outside the mesh are spoken to with.
    pub protocol: UpstreamProtocol,
    /// Limits, breaker and outlier detection; `None` when it has none of them.
    pub resilience: Option<Arc<Resilience>>,
    /// How its hosts are asked whether they are well; `None`: not at all.
    pub health: Option<Arc<HealthCheck>>,
    /// How many requests may be retries.
    pub retry_budget: super::RetryBudget,
    /// How long its connections are kept.
    pub keep: Keep,
    /// Where its hosts come from names: then [`Self::endpoints`] is [`Dns::key`]. `None`: they come over EDS.
    pub dns: Option<Arc<Dns>>,
}

impl Cluster {
    /// Nothing said of it but its name: Envoy's defaults, and hosts that come over EDS under the same name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            endpoints: name.to_owned(),
            connect_timeout: CONNECT_TIMEOUT,
            lb: Balancing::default(),
            subsets: None,
            protocol: UpstreamProtocol::default(),
            resilience: None,
            health: None,
            retry_budget: super::RetryBudget::default(),
            keep: Keep::default(),
            dns: None,
        }
    }
}

/// How long connections are kept for use (`common_http_protocol_options`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Keep {
    /// `idle_timeout`: a connection that rested longer is not used again. `None`: as the sidecar's own settings say.
    pub rest: Option<Duration>,
    /// An older connection takes no more requests; those that it has are finished. `None`: however old.
    pub age: Option<Age>,
}

/// `max_connection_duration` and its jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// The least.
    pub limit: Duration,
    /// How much more it may be by chance, in per cent: connections that were made together do not end together.
    pub jitter: u8,
}

impl Age {
    /// The age that a connection with this `luck` becomes, 0 to 1.
    pub fn with(self, luck: f32) -> Duration {
        self.limit + self.limit.mul_f32(f32::from(self.jitter) / 100.0 * luck)
    }
}

/// `HttpProtocolOptions.upstream_protocol_options`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UpstreamProtocol {
    /// `explicit_http_config.http_protocol_options`.
    Http1,
    /// `explicit_http_config.http2_protocol_options`: HTTP/2 with prior knowledge.
    Http2,
    /// `use_downstream_protocol_config`: what the client spoke.
    #[default]
    Downstream,
}

/// The hosts of a cluster (`ClusterLoadAssignment`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Endpoints {
    /// Name of the resource.
    pub name: String,
    /// Hosts by locality, in the order sent.
    pub localities: Vec<Locality>,
    /// `policy.overprovisioning_factor` in percent: how much more than its share a host can take. `None`: 140.
    pub overprovisioning: Option<NonZeroU32>,
}

impl Endpoints {
    /// Hosts that are all in one place.
    pub fn new(name: &str, endpoints: Vec<Endpoint>) -> Self {
        let locality = Locality { zone: String::new(), priority: 0, weight: NonZeroU32::MIN, endpoints };
        Self { name: name.to_owned(), localities: vec![locality], overprovisioning: None }
    }
}

/// Hosts of one locality (`LocalityLbEndpoints`), or names that they are found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locality<E = Endpoint> {
    /// Zone name; empty when unknown.
    pub zone: String,
    /// 0 is used first.
    pub priority: u32,
    /// Share of the traffic among localities of the same priority.
    pub weight: NonZeroU32,
    /// The hosts.
    pub endpoints: Vec<E>,
}

/// One host (`LbEndpoint`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and port that callers outside the mesh dial.
    pub address: SocketAddr,
    /// Share of the traffic among hosts of the same locality.
    pub weight: NonZeroU32,
    /// What the control plane knows of its health.
    pub health: Health,
    /// Present when a sidecar stands before it: its mesh port and identity.
    pub mesh: Option<MeshEndpoint>,
    /// `metadata.filter_metadata["envoy.lb"]`, where it has any.
    pub labels: Option<Arc<Labels>>,
    /// Present when it is one host by its name, whatever addresses that has (`LOGICAL_DNS`).
    pub named: Option<Named>,
}

impl Endpoint {
    /// Outside the mesh, well, and with the weight of any.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, weight: NonZeroU32::MIN, health: Health::Healthy, mesh: None, labels: None, named: None }
    }
}

/// What a host that is known by its name is dialled at now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Name and port: what makes it the same host.
    pub name: Arc<str>,
    /// Its addresses, in the order in which they are tried. Never empty.
    pub addresses: Arc<[SocketAddr]>,
}

/// `envoy.config.core.v3.HealthStatus`, as far as it changes what we do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Health {
    /// `UNKNOWN` or `HEALTHY`: may be picked.
    #[default]
    Healthy,
    /// `DRAINING`: keeps what it has, gets nothing new.
    Draining,
    /// `UNHEALTHY`, `TIMEOUT`, `DEGRADED`: not picked.
    Unhealthy,
}
