//! A Service that stands for a name elsewhere (`type: ExternalName`).

use pillion_wire::name::ServicePort;

/// The name, and what its addresses are taken to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct External {
    /// `externalName`, without a dot at its end.
    pub name: String,
    /// What its addresses are.
    pub resolution: Resolution,
    /// Which addresses are asked for. `None`: IPv4 or else IPv6 for [`Resolution::Strict`], both for
    /// [`Resolution::Logical`], which copes with a family that leads nowhere.
    pub family: Option<Family>,
}

/// What the addresses of a name are, in Envoy's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Resolution {
    /// An endpoint each, which load is balanced over.
    #[default]
    Strict,
    /// Ways to one endpoint.
    Logical,
}

/// Which addresses are asked for (Envoy `dns_lookup_family`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv6, or else IPv4.
    Auto,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// IPv4, or else IPv6.
    V4Preferred,
    /// Both.
    All,
}

/// What is behind one port of such a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalPort {
    /// The name.
    pub host: External,
    /// The port there.
    pub port: u16,
}

impl External {
    /// The families that are asked for.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family.unwrap_or(match self.resolution {
            Resolution::Strict => Family::V4Preferred,
            Resolution::Logical => Family::All,
        })
    }

    /// The Service that this name would be in a cluster: `svc.ns.svc`, `svc.ns.svc.cluster.local`.
    #[must_use]
    pub fn service(&self) -> Option<(&str, &str)> {
        let name = self.name.strip_suffix(".cluster.local").unwrap_or(&self.name);
        name.strip_suffix(".svc")?.split_once('.').filter(|(_, namespace)| !namespace.contains('.'))
    }
}

/// What to say of `key`, whose name is that of a Service of the mesh.
#[must_use]
pub(super) fn past_the_mesh(name: &str, key: &ServicePort) -> String {
    format!(
        "{name} is a Service of the mesh: {key} calls it as one outside would, in plaintext and past its policies; \
         a route with that Service as backend does what is meant"
    )
}
