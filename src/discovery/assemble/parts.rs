//! Parts of a cluster by metadata (`lb_subset_config`). To requests each is a cluster of its own, named after the whole and
//! its criteria: with its own hosts' state, limits and counters.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::{self, Endpoints, Labels};
use crate::snapshot::Cluster;
use crate::upstream::Upstream;

/// Those of one cluster that something leads to.
#[derive(Debug, Default)]
pub(super) struct Parts(Mutex<BTreeMap<Labels, Arc<Cluster>>>);

impl Parts {
    /// The part of `whole` for these criteria.
    pub(super) fn get(&self, whole: &Cluster, criteria: &Labels, endpoints: &Endpoints) -> Arc<Cluster> {
        let mut parts = self.0.lock();
        if let Some(part) = parts.get(criteria) {
            return Arc::clone(part);
        }
        let said: Vec<String> = criteria.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let name = format!("{}[{}]", whole.config.name, said.join(","));
        let part = made(&whole.config, &name, Arc::new(Upstream::new(&name)), criteria, endpoints);
        parts.insert(criteria.clone(), Arc::clone(&part));
        part
    }

    /// The whole cluster has these endpoints from now on. Parts that nobody leads to any more are forgotten.
    pub(super) fn update(&self, endpoints: &Endpoints) {
        let mut parts = self.0.lock();
        parts.retain(|_, part| is_used(part));
        for (criteria, part) in parts.iter() {
            if let Some(subsets) = &part.config.subsets {
                part.upstream.update(&subsets.select(criteria, endpoints), part.config.lb);
            }
        }
    }

    /// The whole cluster is configured so from now on. What was measured stays.
    pub(super) fn renew(&self, config: &config::Cluster, endpoints: &Endpoints) {
        let mut parts = self.0.lock();
        parts.retain(|_, part| config.subsets.is_some() && is_used(part));
        for (criteria, part) in parts.iter_mut() {
            *part = made(config, &part.config.name, Arc::clone(&part.upstream), criteria, endpoints);
        }
    }
}

/// Does anybody but us lead to it, or to what it was before it was renewed?
fn is_used(part: &Arc<Cluster>) -> bool {
    Arc::strong_count(part) > 1 || Arc::strong_count(&part.upstream) > 1
}

fn made(
    whole: &config::Cluster,
    name: &str,
    upstream: Arc<Upstream>,
    criteria: &Labels,
    endpoints: &Endpoints,
) -> Arc<Cluster> {
    let health = whole.health.as_deref().map(|rules| Arc::new(rules.asking_for(&whole.name)));
    upstream.protect(whole.resilience.clone());
    upstream.check(health.clone());
    if let Some(subsets) = &whole.subsets {
        upstream.update(&subsets.select(criteria, endpoints), whole.lb);
    }
    let config = config::Cluster { name: name.to_owned(), health, ..whole.clone() };
    Arc::new(Cluster { config, upstream })
}
