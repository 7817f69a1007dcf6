//! A Workload: one running instance, its ports, and its sidecar if it has one.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::{
    protocol::Protocol,
    service::{Name, Target},
};

/// One running instance of an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name.
    pub name: Name,
    /// What Services select it by.
    pub labels: BTreeMap<String, String>,
    /// The address that callers dial.
    pub address: IpAddr,
    /// Other addresses that lead to it, as those of another family.
    pub more_addresses: Vec<IpAddr>,
    /// The account whose identity it has.
    pub service_account: String,
    /// Its ports, each number once.
    pub ports: Vec<WorkloadPort>,
    /// The sidecar's mesh port; `None` for a workload outside the mesh.
    pub mesh_port: Option<u16>,
    /// Its share of the traffic beside others of its Service; 1 unless it says.
    pub weight: u32,
    /// Where it runs, from the label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Addresses of the sidecar itself, read only by `pillion run`.
    pub sidecar: Sidecar,
}

/// A port of a [`Workload`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadPort {
    /// Its name, where it has one.
    pub name: Option<String>,
    /// The number that callers outside the mesh dial, and its name inside.
    pub port: u16,
    /// Where the application listens.
    pub application: SocketAddr,
    /// What the Workload says that the application speaks.
    pub protocol: Option<Protocol>,
    /// Who may connect.
    pub access: Access,
}

/// Who may connect to a workload's port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// Only callers that prove a mesh identity.
    #[default]
    Strict,
    /// Plaintext from outside the mesh too.
    Permissive,
}

/// Addresses that a workload's sidecar listens on, for `pillion run`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sidecar {
    /// Outbound HTTP port.
    pub outbound: Option<SocketAddr>,
    /// TCP ports bound to one destination each.
    pub tcp: Vec<TcpPort>,
    /// Admin pages.
    pub admin: Option<SocketAddr>,
    /// Readiness.
    pub health: Option<SocketAddr>,
}

/// A local port that leads to one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpPort {
    /// Where the sidecar listens.
    pub listen: SocketAddr,
    /// Where it leads.
    pub destination: pillion_wire::name::Destination,
}

impl Workload {
    /// The port that a Service's target means here.
    #[must_use]
    pub fn port(&self, target: &Target) -> Option<&WorkloadPort> {
        self.ports.iter().find(|port| match target {
            Target::Number(number) => port.port == *number,
            Target::Name(name) => port.name.as_ref() == Some(name),
        })
    }

    /// All its addresses, each once, the one that Services lead to first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.address).chain(self.more_addresses.iter().copied())
    }

    /// The address that other sidecars dial.
    #[must_use]
    pub fn mesh_address(&self) -> Option<SocketAddr> {
        self.mesh_port.map(|port| SocketAddr::new(self.address, port))
    }
}
