//! What the mesh says about one port of a Service and about one workload: all
//! that a resource is made of, comparable, so that what did not change is seen
//! not to have changed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pillion_wire::{
    load_shedding::LoadShedding,
    name::{PortName, ServicePort},
    origin::Origins,
    rate_limit::RateLimits,
};

use super::{
    external::ExternalPort,
    filter::{BackendFilters, Filters},
    origin::Unhashed,
    policy::{GlobalRateLimit, HashOn, Policy},
    protocol::Protocol,
    route::Match,
    service::Name,
    workload::Access,
};

/// One port of a Service, or of a single workload: where its callers' traffic goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortView {
    /// Which port.
    pub key: PortName,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Requests, when routes are attached: the first that matches. `None`: all
    /// requests go to the port itself.
    pub http: Option<Vec<RouteEntry>>,
    /// Byte streams, when a `TCPRoute` is attached.
    pub tcp: Option<Vec<Share>>,
    /// TLS that the application speaks, by the name that the client asks for, when `TLSRoute`s are attached: a name is
    /// in one entry only.
    pub tls: Vec<TlsEntry>,
    /// What holds for all traffic to it.
    pub policy: Policy,
    /// The workloads behind it, by address.
    pub endpoints: Vec<Endpoint>,
    /// The name elsewhere that is behind it instead; then there are no endpoints.
    pub external: Option<ExternalPort>,
    /// What it comes from.
    pub origins: Unhashed<Origins>,
}

/// One match and what is done with the requests that match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteEntry {
    /// `<kind>/<namespace>/<name>/<rule>`, for people.
    pub name: String,
    /// What requests must look like.
    pub matched: Match,
    /// What holds for them.
    pub policy: Policy,
    /// What is done to them besides. Mirrors are in [`Self::mirrors`].
    pub filters: Filters,
    /// Who gets copies of them, and of how many in a million.
    pub mirrors: Vec<(ServicePort, u32)>,
    /// Where they go. Empty: nowhere, they fail.
    pub shares: Vec<Share>,
    /// What it comes from.
    pub origins: Unhashed<Origins>,
}

/// TLS connections and what is done with them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsEntry {
    /// `<kind>/<namespace>/<name>`, for people.
    pub name: String,
    /// The names that are asked for (SNI), exact or `*.suffix`; empty for those that no other entry takes. Of several
    /// that fit, an exact name comes before a suffix and a longer suffix before a shorter.
    pub server_names: Vec<String>,
    /// Where they go. Empty: nowhere, they fail.
    pub shares: Vec<Share>,
}

/// A share of some traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Share {
    /// The port of a Service, or `None` for one that does not exist or may not be used.
    pub target: Option<ServicePort>,
    /// Its part of the sum of all weights, never 0.
    pub weight: u32,
    /// What keeps its callers on one endpoint; mostly empty.
    pub hash_on: Vec<HashOn>,
    /// What is done to its requests. Of byte streams: nothing.
    pub filters: BackendFilters,
}

/// A workload behind a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// What callers outside the mesh dial.
    pub address: SocketAddr,
    /// How the mesh reaches it, when it is inside.
    pub mesh: Option<Inside>,
    /// Where it runs.
    pub zone: Option<String>,
    /// Its share of the traffic beside the others.
    pub weight: u32,
}

/// What a caller inside the mesh must know of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inside {
    /// The mesh port at the endpoint's address.
    pub port: u16,
    /// Namespace of its identity.
    pub namespace: String,
    /// Service account of its identity.
    pub service_account: String,
}

/// What a workload's own sidecar is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadView {
    /// Which workload.
    pub name: Name,
    /// Its service account.
    pub service_account: String,
    /// Where its sidecar accepts mesh traffic.
    pub mesh_address: SocketAddr,
    /// Where it runs.
    pub zone: Option<String>,
    /// Its ports, in order.
    pub ports: Vec<InboundPort>,
}

/// A port of a [`WorkloadView`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundPort {
    /// The workload's port.
    pub port: u16,
    /// Where the application listens.
    pub application: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// Who may connect.
    pub access: Access,
    /// How many requests it takes.
    pub rate_limits: RateLimits,
    /// How old connections from outside the mesh become.
    pub connection_age: Option<Duration>,
    /// Who else is asked whether it takes a request.
    pub global_rate_limit: Option<Arc<GlobalRateLimit>>,
    /// When it takes no more of them.
    pub load_shedding: Option<LoadShedding>,
    /// What it comes from.
    pub origins: Unhashed<Origins>,
}

impl PortView {
    /// Whether any endpoint is inside the mesh.
    #[must_use]
    pub fn in_mesh(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.mesh.is_some())
    }
}
