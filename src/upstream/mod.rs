//! What we measure about the hosts that we call: live state that survives configuration changes.
//!
//! `config::Cluster` is what we were told; an [`Upstream`] is what we see. It is
//! kept by name while anything refers to it, and a [`Host`] is kept while its
//! address, mesh port and identity stay the same.

mod connect;
mod host;
mod pool;

pub use host::{Host, HostKey, InFlight};
pub use pool::{Lease1, Lease2, Pool};

use std::sync::Arc;

use tokio::time::Instant;

use crate::balance::{self, LoadBalancer};
use crate::config::{Endpoints, Health, LbPolicy};
use crate::resilience::Budget;
use crate::slot::Slot;

/// The hosts of one cluster, shared by all workers.
#[derive(Debug)]
pub struct Upstream {
    name: Arc<str>,
    hosts: Slot<HostSet>,
    /// Of the requests that may be retried.
    pub budget: Budget,
}

/// The hosts of a cluster by priority, best first. Replaced whole when endpoints change.
#[derive(Debug, Default)]
pub struct HostSet {
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    hosts: Vec<Arc<Host>>,
    balancer: Box<dyn LoadBalancer>,
}

impl Upstream {
    /// A cluster without hosts yet.
    pub fn new(name: &str) -> Self {
        Self { name: Arc::from(name), hosts: Slot::new(HostSet::default()), budget: Budget::new(Instant::now()) }
    }

    /// The cluster's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Takes over new endpoints. Hosts that stay keep their counters, back-off and connections. Linear in the hosts.
    pub fn update(&self, endpoints: &Endpoints, policy: LbPolicy) {
        let old = self.hosts.load_full();
        let known: std::collections::HashMap<&HostKey, &Arc<Host>> =
            old.groups.iter().flat_map(|group| &group.hosts).map(|host| (host.key(), host)).collect();
        let mut by_priority: std::collections::BTreeMap<u32, Vec<Arc<Host>>> = std::collections::BTreeMap::new();
        for locality in &endpoints.localities {
            let group = by_priority.entry(locality.priority).or_default();
            for endpoint in locality.endpoints.iter().filter(|endpoint| endpoint.health == Health::Healthy) {
                let key = HostKey::remote(endpoint.address, endpoint.mesh.clone());
                let host = match known.get(&key) {
                    Some(host) => Arc::clone(host),
                    None => Arc::new(Host::beside(key, group.last())),
                };
                group.push(host);
            }
        }
        let groups = by_priority
            .into_values()
            .map(|hosts| Group {
                balancer: balance::make(policy.name(), rand::random_range(0..hosts.len().max(1))),
                hosts,
            })
            .collect();
        self.hosts.publish(HostSet { groups });
    }

    /// Picks a host that is not in `tried`, not backing off, from the best priority that has one.
    ///
    /// When every host backs off, one of them is picked all the same: a guess that
    /// a host is down must not turn into an outage.
    pub fn pick(&self, tried: &[HostKey], now: impl Fn() -> Instant) -> Option<Arc<Host>> {
        let set = self.hosts.load();
        let fresh = |host: &Host| !tried.contains(host.key());
        set.pick(&|host| fresh(host) && host.is_usable(&now)).or_else(|| set.pick(&fresh))
    }

    /// All hosts, for the admin pages.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        self.hosts.load().groups.iter().flat_map(|group| group.hosts.iter().cloned()).collect()
    }
}

impl HostSet {
    fn pick(&self, usable: &dyn Fn(&Host) -> bool) -> Option<Arc<Host>> {
        self.groups.iter().find_map(|group| {
            let at =
                group.balancer.pick(group.hosts.len(), &|at| group.hosts.get(at).is_some_and(|host| usable(host)))?;
            group.hosts.get(at).cloned()
        })
    }
}

impl LbPolicy {
    /// Its name in xDS.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "ROUND_ROBIN",
        }
    }
}
