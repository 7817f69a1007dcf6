//! Sessions that stay on one endpoint.

use std::time::Duration;

use super::{super::route::Rule, Policy};

/// `spec.sessionPersistence`, and `sessionPersistence` of a rule (GEP-1619).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SessionPersistence {
    /// Name of the cookie or header; derived from the route when `None`.
    pub name: Option<String>,
    /// A header carries it; else a cookie.
    pub by_header: bool,
    /// The cookie is kept for the absolute time (`lifetimeType: Permanent`); else until the client ends its own session.
    pub permanent: bool,
    /// How long it lasts, in whole seconds.
    pub absolute: Option<Duration>,
    /// How long it lasts without a request, in whole seconds.
    pub idle: Option<Duration>,
    /// A request whose endpoint is gone fails. Ours: GEP-1619 leaves it to implementations.
    pub strict: bool,
}

impl SessionPersistence {
    /// What its cookie or header is called, on a route of that name.
    #[must_use]
    pub fn name_for(&self, route: &str) -> String {
        let prefix = if self.by_header { "x-pillion-session." } else { "pillion-session." };
        let text =
            |character: char| if character.is_ascii_alphanumeric() || character == '-' { character } else { '.' };
        let name = || format!("{prefix}{}", route.chars().map(text).collect::<String>().to_ascii_lowercase());
        self.name.clone().unwrap_or_else(name)
    }
}

/// What a rule says goes before what policies say, as a whole.
pub(super) fn for_rule(policy: &mut Policy, rule: &Rule) {
    if rule.session.is_some() {
        policy.session.clone_from(&rule.session);
    }
}
