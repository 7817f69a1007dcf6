//! What a source tells: one resource at a time, already translated and checked.

use crate::config::{Cluster, Endpoints, HostListener, InboundListener, OutboundListener, RouteConfig};

/// The kinds of resources. Their order is that in which they refer to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What a destination accepts, or what our workload serves (LDS).
    Listener,
    /// Routes (RDS).
    Route,
    /// Clusters (CDS).
    Cluster,
    /// Their hosts (EDS).
    Endpoints,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Listener, Self::Route, Self::Cluster, Self::Endpoints];

    /// Its name in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Route => "route",
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
        }
    }
}

/// News of one resource that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What happened to it.
    pub change: Change,
}

/// What happened to a resource.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "made once for a resource that comes, and taken apart at once")]
pub enum Change {
    /// This is it now.
    Accepted(Config),
    /// There is none, or no longer.
    Removed,
}

/// A resource, translated.
#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    /// What a destination accepts.
    Outbound(OutboundListener),
    /// What our workload serves.
    Inbound(InboundListener),
    /// The addresses of a host name.
    Host(HostListener),
    /// Routes.
    Route(RouteConfig),
    /// A cluster.
    Cluster(Cluster),
    /// Hosts.
    Endpoints(Endpoints),
}
