//! `ReferenceGrant`: lets routes of another namespace send traffic to Services
//! of this one.

use super::{route::RouteKind, service::Name};

/// A grant, for the Services of its own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its name; the namespace is the one whose Services it opens.
    pub name: Name,
    /// Who may refer: kind of route and its namespace.
    pub from: Vec<(RouteKind, String)>,
    /// Which Services: `None` for all of the namespace.
    pub to: Vec<Option<String>>,
}

impl Grant {
    /// Whether a route of this kind and namespace may send traffic to `service`.
    #[must_use]
    pub fn permits(&self, kind: RouteKind, namespace: &str, service: &Name) -> bool {
        self.name.namespace == service.namespace
            && self.from.iter().any(|(from, from_namespace)| *from == kind && from_namespace == namespace)
            && self.to.iter().any(|to| to.as_ref().is_none_or(|name| *name == service.name))
    }
}
