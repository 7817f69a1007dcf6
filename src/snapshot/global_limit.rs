//! A limit that a rate-limit service counts, with the cluster that is asked.

use std::sync::Arc;

use super::Cluster;
use crate::config::GlobalRateLimit;
use crate::filter::Active;

/// See the module.
#[derive(Debug)]
pub struct GlobalLimit {
    /// What we were told.
    pub config: Arc<GlobalRateLimit>,
    /// Who is asked.
    pub cluster: Arc<Cluster>,
    /// Questions under way.
    pub calls: Active,
    /// Connections that are made ahead of questions.
    pub warming: Active,
}

impl GlobalLimit {
    /// Asks `cluster`; what is under way of `old`, which it replaces, goes on being counted.
    pub fn new(config: Arc<GlobalRateLimit>, cluster: Arc<Cluster>, old: Option<&Self>) -> Self {
        let (calls, warming) = old.map(|old| (old.calls.clone(), old.warming.clone())).unwrap_or_default();
        Self { config, cluster, calls, warming }
    }
}
