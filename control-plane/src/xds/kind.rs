//! The resource types that are served.

use pillion_wire::xds::type_url;

/// A resource type that is served, in the order in which changes are sent: what
/// is referred to goes before what refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `Cluster`.
    Cluster,
    /// `ClusterLoadAssignment`.
    Endpoints,
    /// `Listener`.
    Listener,
    /// `RouteConfiguration`.
    Route,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Cluster, Self::Endpoints, Self::Listener, Self::Route];

    /// The kind with this type URL.
    #[must_use]
    pub fn of(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// Its type URL.
    #[must_use]
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => type_url::CLUSTER,
            Self::Endpoints => type_url::ENDPOINTS,
            Self::Listener => type_url::LISTENER,
            Self::Route => type_url::ROUTE,
        }
    }

    /// Its short name, for people and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
            Self::Listener => "listener",
            Self::Route => "route",
        }
    }
}

/// One `T` for each [`Kind`].
#[derive(Clone, Debug, Default)]
pub struct PerKind<T> {
    cluster: T,
    endpoints: T,
    listener: T,
    route: T,
}

impl<T> PerKind<T> {
    /// The one of `kind`.
    pub const fn get(&self, kind: Kind) -> &T {
        match kind {
            Kind::Cluster => &self.cluster,
            Kind::Endpoints => &self.endpoints,
            Kind::Listener => &self.listener,
            Kind::Route => &self.route,
        }
    }

    /// The one of `kind`, to change it.
    pub const fn get_mut(&mut self, kind: Kind) -> &mut T {
        match kind {
            Kind::Cluster => &mut self.cluster,
            Kind::Endpoints => &mut self.endpoints,
            Kind::Listener => &mut self.listener,
            Kind::Route => &mut self.route,
        }
    }

    /// Each with its kind.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &T)> {
        Kind::ALL.into_iter().map(|kind| (kind, self.get(kind)))
    }
}
