//! Listeners: what a destination accepts, and what our own workload serves (LDS).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use pillion_wire::name::Destination;

use super::{RouteConfig, Split};

/// What may be sent to one destination (`envoy.config.listener.v3.Listener` by destination name).
#[derive(Clone, Debug, PartialEq)]
pub struct OutboundListener {
    /// The destination that was asked for.
    pub destination: Destination,
    /// `api_listener`: routes for HTTP. `None`: the destination takes no HTTP.
    pub http: Option<RouteSource>,
    /// `default_filter_chain` with a `TcpProxy`. `None`: the destination takes no opaque TCP.
    pub tcp: Option<Split>,
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
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct InboundListener {
    /// Ports of the application by workload port.
    pub ports: BTreeMap<u16, InboundPort>,
}

/// One port of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundPort {
    /// The workload's port: its name inside the mesh and the front port for callers outside it.
    pub port: u16,
    /// Where the application listens.
    pub application: SocketAddr,
    /// What the application speaks there.
    pub protocol: AppProtocol,
    /// Who may call it from outside the mesh.
    pub access: Access,
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
    /// Not declared: HTTP in the version that the client spoke, and opaque TCP.
    #[default]
    Auto,
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
