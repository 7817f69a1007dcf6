//! Listeners: what a destination accepts, and what our own workload serves (LDS).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pillion_wire::load_shedding::LoadShedding;
use pillion_wire::name::Destination;
use pillion_wire::origin::Origins;
use pillion_wire::rate_limit::RateLimits;

use super::{Age, GlobalRateLimit, HttpFilter, RouteConfig, Split};

/// What may be sent to one destination (`envoy.config.listener.v3.Listener` by destination name).
#[derive(Clone, Debug, PartialEq)]
pub struct OutboundListener {
    /// The destination that was asked for.
    pub destination: Destination,
    /// `api_listener`: routes for HTTP. `None`: the destination takes no HTTP.
    pub http: Option<RouteSource>,
    /// `http_filters` of `api_listener` that we have, in their order, without the router.
    pub filters: Vec<HttpFilter>,
    /// `default_filter_chain` with a `TcpProxy`. `None`: the destination takes no opaque TCP.
    pub tcp: Option<Split>,
    /// `filter_chains` with a `TcpProxy`, for TLS that the application itself speaks. A server name is in one of them
    /// only, and at most one has none.
    pub tls: Vec<TlsChain>,
    /// What it comes from.
    pub origins: Arc<Origins>,
}

/// What TLS connections that ask for a name are sent to (`envoy.config.listener.v3.FilterChain` whose
/// `filter_chain_match` has `transport_protocol: "tls"`).
#[derive(Clone, Debug, PartialEq)]
pub struct TlsChain {
    /// `filter_chain_match.server_names`, in lower case: a DNS name, or `*.` and one for every name below it. None: all
    /// that no other chain takes, also connections that ask for no name.
    pub server_names: Vec<String>,
    /// Clusters.
    pub split: Split,
}

/// What DNS answers for a host name of the mesh (the `Listener` named `pillion/host?name=HOST`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostListener {
    /// The host name, in lower case, without a dot at its end.
    pub name: String,
    /// `address` and `additional_addresses`, in the order sent, each once. Empty: the name exists and has none.
    pub addresses: Vec<IpAddr>,
}

/// Where an `HttpConnectionManager` takes its routes from.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteSource {
    /// `rds.route_config_name`.
    Named(String),
    /// `route_config`.
    Inline(RouteConfig),
}

/// What our own workload serves (the `Listener` named by `server_listener_resource_name_template`).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct InboundListener {
    /// Ports of the application by workload port.
    pub ports: BTreeMap<u16, InboundPort>,
}

/// One port of the application.
#[derive(Clone, Debug, PartialEq)]
pub struct InboundPort {
    /// The workload's port: its name inside the mesh and the front port for callers outside it.
    pub port: u16,
    /// Where the application listens.
    pub application: SocketAddr,
    /// What the application speaks there.
    pub protocol: AppProtocol,
    /// Who may call it from outside the mesh.
    pub access: Access,
    /// How many requests it takes. None: any number.
    pub rate_limits: RateLimits,
    /// How old HTTP connections from outside the mesh become. None: however old.
    pub age: Option<Age>,
    /// Who else is asked whether it takes a request.
    pub global: Option<Arc<GlobalRateLimit>>,
    /// When it takes no more of them, found by their latency. `None`: it takes all.
    pub load_shedding: Option<LoadShedding>,
    /// What it comes from.
    pub origins: Arc<Origins>,
}

impl InboundPort {
    /// Nothing said of it but where it is and what it speaks.
    pub fn new(port: u16, application: SocketAddr, protocol: AppProtocol) -> Self {
        Self {
            port,
            application,
            protocol,
            access: Access::Strict,
            rate_limits: RateLimits::default(),
            age: None,
            global: None,
            load_shedding: None,
            origins: Arc::default(),
        }
    }
}

/// What an application speaks on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AppProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, gRPC included.
    Http2,
    /// Bytes that are not looked at.
    Tcp,
    /// TLS that the application itself speaks: passed through untouched, never taken for the mesh's own.
    Tls,
    /// Not declared: HTTP in the version that the client spoke, and opaque TCP.
    #[default]
    Auto,
}

impl AppProtocol {
    /// Its bytes are never read as HTTP.
    pub fn is_opaque(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }
}

/// What callers without a mesh identity may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Access {
    /// Plaintext is refused. The default.
    #[default]
    Strict,
    /// Plaintext is let in beside mutual TLS.
    Permissive,
}
