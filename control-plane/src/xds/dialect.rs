//! Which xDS client a node is. The resources are the same in substance; each
//! dialect leaves out what its client would refuse and adds what it needs.

use pillion_wire::xds::core::Node;

/// A family of xDS clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Our sidecar: identities per endpoint, on demand.
    Pillion,
    /// gRPC's own client (proxyless): the subset of the gRPC A-series.
    Grpc,
    /// Envoy: static secrets by name, wildcards.
    Envoy,
}

impl Dialect {
    /// How many there are.
    pub const COUNT: usize = 3;

    /// The dialect of the node that opened a stream.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        if node.user_agent_name.starts_with("pillion") {
            Self::Pillion
        } else if node.user_agent_name.starts_with("envoy") {
            Self::Envoy
        } else {
            Self::Grpc
        }
    }

    /// Its place in arrays of [`Dialect::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Pillion => 0,
            Self::Grpc => 1,
            Self::Envoy => 2,
        }
    }

    /// Its name, for people and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pillion => "pillion",
            Self::Grpc => "grpc",
            Self::Envoy => "envoy",
        }
    }
}
