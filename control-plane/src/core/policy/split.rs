//! What keeps callers on one of a route's backends.

use super::HashOn;

/// `spec.split`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StickySplit {
    /// What keeps calls together, the first that a call has (`RouteAction.hash_policy`,
    /// `weighted_clusters.use_hash_policy`). Never empty.
    pub hash_on: Vec<HashOn>,
}
