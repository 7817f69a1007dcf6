//! Clusters whose hosts are found by name (`STRICT_DNS`, `LOGICAL_DNS`).

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::{Health, Labels, Locality};

/// What begins the key of a cluster that is found by name; no endpoints resource may be called so.
const PREFIX: &str = "dns:";

/// Names, and how they are asked for. Clusters that say the same share the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// What the addresses of a name are.
    pub kind: DnsKind,
    /// `dns_lookup_family`.
    pub family: LookupFamily,
    /// `dns_refresh_rate`: how long an answer holds, unless its TTL counts. Envoy's default is 5 s, at least 1 ms.
    pub refresh: Duration,
    /// `dns_failure_refresh_rate`: the first wait after a failure, doubled with each one up to the second. Envoy's
    /// default is the refresh rate, and ten times that.
    pub failure: (Duration, Duration),
    /// `respect_dns_ttl`: an answer holds as long as it says, see [`crate::dns::Refresh`]. Envoy's default is false.
    pub respect_ttl: bool,
    /// `dns_jitter`: each answer holds longer by a random part of this. Default 0.
    pub jitter: Duration,
    /// What is asked for, in the order sent. `Logical`: exactly one name.
    pub localities: Vec<Locality<DnsEndpoint>>,
    /// As in [`super::Endpoints`].
    pub overprovisioning: Option<NonZeroU32>,
}

/// What the addresses of a name are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsKind {
    /// `STRICT_DNS`: a host each.
    Strict,
    /// `LOGICAL_DNS`: ways to one host. New connections take the first that answers, connections that stand are kept.
    Logical,
}

/// `Cluster.DnsLookupFamily`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupFamily {
    /// IPv6, and IPv4 where there is none.
    Auto,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// IPv4, and IPv6 where there is none.
    V4Preferred,
    /// Both.
    All,
}

/// A name with a port. What it says holds for each of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsEndpoint {
    /// Name, or address.
    pub host: DnsHost,
    /// Port.
    pub port: u16,
    /// Share of the traffic of each address.
    pub weight: NonZeroU32,
    /// What the control plane knows of its health.
    pub health: Health,
    /// As in [`super::Endpoint`].
    pub labels: Option<Arc<Labels>>,
}

/// What stands where an address belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsHost {
    /// A name, absolute, in lower case and without a dot at its end.
    Name(Arc<str>),
    /// An address, which needs no asking.
    Address(IpAddr),
}

impl Dns {
    /// What it is called among endpoints resources: settings that differ differ in it.
    pub fn key(&self) -> String {
        format!("{PREFIX}{self:?}")
    }

    /// Is this the key of some [`Dns`]?
    pub fn is_key(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// The names that are asked for, some perhaps several times.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let all = self.localities.iter().flat_map(|locality| &locality.endpoints);
        all.filter_map(|endpoint| match &endpoint.host {
            DnsHost::Name(name) => Some(name),
            DnsHost::Address(_) => None,
        })
    }
}
