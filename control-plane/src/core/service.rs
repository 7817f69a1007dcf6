//! A Service: a name, its ports, and the labels of the workloads behind it.

use std::{collections::BTreeMap, net::IpAddr};

use super::{external::External, protocol::Protocol};

/// A namespace and a name in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Name {
    /// A name in a namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A Service as far as the mesh is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// Labels that a workload must carry to stand behind it. Empty selects none.
    pub selector: BTreeMap<String, String>,
    /// Where its virtual addresses come from.
    pub cluster_ip: ClusterIp,
    /// Its ports, each number once.
    pub ports: Vec<Port>,
    /// The name elsewhere that it stands for, instead of workloads.
    pub external: Option<External>,
}

/// Where the virtual addresses of a [`Service`] come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterIp {
    /// The Service says them; never empty.
    Given(Vec<IpAddr>),
    /// The mesh gives it one of each of these families, see [`super::address`].
    Automatic(Vec<Family>),
    /// It has none: callers go to its workloads (`clusterIP: None`, "headless").
    Headless,
}

/// A family of IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A port of a [`Service`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name, where it has one.
    pub name: Option<String>,
    /// The number that callers use.
    pub port: u16,
    /// The workload's port behind it.
    pub target: Target,
    /// What `appProtocol` says.
    pub app_protocol: Option<Protocol>,
}

/// A port of the workloads behind a [`Port`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By number.
    Number(u16),
    /// By name: each workload may have another number.
    Name(String),
}

impl Service {
    /// Whether a workload with these labels stands behind this Service.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}
