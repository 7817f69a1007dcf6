//! The hosts of a cluster at one time, and which of them a call goes to.

mod view;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::{Host, HostKey};
use crate::balance::{self, LoadBalancer, Spec};
use crate::config::{Balancing, Endpoint, Endpoints, Health};
use view::Candidates;

/// Percent of its share that a host can take (Envoy `overprovisioning_factor`).
const OVERPROVISIONING: u32 = 140;
/// To what weights are brought where they are fractions.
const SCALE: f64 = 65_536.0;

/// The hosts of a cluster by priority, best first. Replaced whole when endpoints change.
#[derive(Debug, Default)]
pub(super) struct HostSet {
    levels: Vec<Level>,
    balancing: Balancing,
    overprovisioning: f64,
    /// Hosts that nothing is balanced to, but that keep their sessions.
    draining: Vec<Arc<Host>>,
    /// All of them, once a session has asked for one.
    by_address: OnceLock<HashMap<SocketAddr, Arc<Host>>>,
}

/// Hosts of one priority.
#[derive(Debug)]
struct Level {
    priority: u32,
    hosts: Vec<Arc<Host>>,
    weights: Vec<u32>,
    is_even: bool,
    /// When the last host has started; only with slow start.
    warm_at: Option<Instant>,
    is_warm: AtomicBool,
    balancer: Box<dyn LoadBalancer>,
}

/// A host with what the control plane said of its place.
#[derive(Clone, Debug)]
pub struct Member {
    /// The host.
    pub host: Arc<Host>,
    /// Its priority, 0 first.
    pub priority: u32,
    /// Its weight among the hosts of that priority.
    pub weight: u32,
}

/// A call that a host is picked for.
pub(super) struct Pick<'a, N> {
    /// Hosts that were tried in vain.
    pub(super) tried: &'a [HostKey],
    /// What balancers that hash go by.
    pub(super) hash: Option<u64>,
    /// The clock, read only where the time matters.
    pub(super) now: &'a N,
    /// The host that it was compared with, if it was with any.
    pub(super) second: &'a Cell<Option<SocketAddr>>,
}

/// How a host was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// As it should be.
    Well,
    /// In a later priority, since the ones before have too few healthy hosts.
    Spilled,
    /// It was not checked yet, and of those that were none is well.
    Unchecked,
    /// Regardless of health.
    Panicked,
}

impl HostSet {
    /// The set that `endpoints` describe; hosts of `old` that are in it again are the same.
    pub(super) fn new(endpoints: &Endpoints, balancing: Balancing, old: &Self) -> Self {
        let known: HashMap<&HostKey, &Arc<Host>> = old.all().map(|host| (host.key(), host)).collect();
        // An address may stand in several places, and is one host.
        let mut made: HashMap<HostKey, Arc<Host>> = HashMap::new();
        let now = Instant::now();
        let mut draining = Vec::new();
        let mut by_priority: BTreeMap<u32, (Vec<Arc<Host>>, Vec<f64>)> = BTreeMap::new();
        for locality in &endpoints.localities {
            let healthy = || locality.endpoints.iter().filter(|endpoint| endpoint.health == Health::Healthy);
            let sum: f64 = healthy().map(|endpoint| f64::from(endpoint.weight.get())).sum();
            let share = if balancing.locality_weighted { f64::from(locality.weight.get()) / sum } else { 1.0 };
            let (hosts, weights) = by_priority.entry(locality.priority).or_default();
            for endpoint in healthy() {
                let key = key(endpoint);
                let host = match known.get(&key).copied().or_else(|| made.get(&key)) {
                    Some(host) => Arc::clone(host),
                    None => {
                        let host = Arc::new(Host::beside(key.clone(), hosts.last(), Some(now)));
                        made.insert(key, Arc::clone(&host));
                        host
                    }
                };
                if let Some(named) = &endpoint.named {
                    host.point_at(&named.addresses);
                }
                hosts.push(host);
                weights.push(f64::from(endpoint.weight.get()) * share);
            }
            let drain = |endpoint: &&Endpoint| balancing.keeps_draining && endpoint.health == Health::Draining;
            draining.extend(locality.endpoints.iter().filter(drain).map(|endpoint| {
                let key = key(endpoint);
                let same = known.get(&key).copied().or_else(|| made.get(&key)).map(Arc::clone);
                let host = same.unwrap_or_else(|| Arc::new(Host::new(key)));
                if let Some(named) = &endpoint.named {
                    host.point_at(&named.addresses);
                }
                host
            }));
        }
        let levels = by_priority.into_iter().filter(|(_, (hosts, _))| !hosts.is_empty());
        let overprovisioning = endpoints.overprovisioning.map_or(OVERPROVISIONING, std::num::NonZeroU32::get);
        Self {
            levels: levels
                .map(|(priority, (hosts, weights))| Level::new(priority, hosts, &weights, balancing))
                .collect(),
            balancing,
            overprovisioning: f64::from(overprovisioning) / 100.0,
            draining,
            by_address: OnceLock::new(),
        }
    }

    /// A host that is usable, of the priority that has to take the call.
    ///
    /// When no host is usable one of them is picked all the same: a guess that a host is down must not turn into an outage.
    pub(super) fn pick<N: Fn() -> Instant>(&self, call: &Pick<'_, N>) -> Option<(Arc<Host>, Found)> {
        let fresh = |host: &Host| !call.tried.contains(host.key());
        let usable = |host: &Host| fresh(host) && host.is_usable(call.now);
        // One that is full is never asked; one that is out of service only when no other is well.
        let not_full = |host: &Host| fresh(host) && !host.standing.is_full() && !host.standing.is_barred();
        if (self.levels.len() > 1 || self.balancing.panic_threshold > 0)
            && let Some((at, panics)) = self.choose(call.now)
            && let Some(level) = self.levels.get(at)
        {
            let found = if panics {
                Found::Panicked
            } else if at > 0 {
                Found::Spilled
            } else {
                Found::Well
            };
            let host = if panics { self.pick_of(level, call, &not_full) } else { self.pick_of(level, call, &usable) };
            if let Some(host) = host {
                return Some((host, found));
            }
        }
        let of_any = |may: &dyn Fn(&Host) -> bool| self.levels.iter().find_map(|level| self.pick_of(level, call, may));
        match of_any(&usable) {
            Some(host) => Some((host, Found::Well)),
            // Nothing is known of those yet, and that is better than what is known of the others.
            None if let Some(host) = of_any(&|host: &Host| fresh(host) && host.is_usable_unchecked(call.now)) => {
                let found = if self.has_healthy() { Found::Well } else { Found::Unchecked };
                Some((host, found))
            }
            None => {
                let others = self.has_healthy();
                let resort = |host: &Host| fresh(host) && host.standing.is_last_resort(others);
                of_any(&resort).map(|host| (host, Found::Panicked))
            }
        }
    }

    /// Is there a host that answered last and is in service?
    pub(super) fn has_healthy(&self) -> bool {
        let mut hosts = self.levels.iter().flat_map(|level| &level.hosts);
        hosts.any(|host| host.is_reachable() && host.standing.is_in_service())
    }

    /// The priority that takes the call, and whether it panics. Linear in the hosts.
    fn choose(&self, now: &impl Fn() -> Instant) -> Option<(usize, bool)> {
        let count = |level: &Level, well: &dyn Fn(&Host) -> bool| balance::Level {
            hosts: level.hosts.len(),
            healthy: level.hosts.iter().filter(|host| well(host)).count(),
        };
        let usable = |host: &Host| host.is_usable(now);
        if count(self.levels.first()?, &usable).is_enough(self.overprovisioning) {
            return Some((0, false));
        }
        let mut levels: Vec<balance::Level> = self.levels.iter().map(|level| count(level, &usable)).collect();
        if levels.iter().all(|level| level.healthy == 0) {
            // Perhaps they were just not checked yet.
            let unchecked = |host: &Host| host.is_usable_unchecked(now);
            levels = self.levels.iter().map(|level| count(level, &unchecked)).collect();
        }
        let point = rand::random_range(0.0..1.0);
        balance::choose_priority(&levels, self.overprovisioning, self.balancing.panic_threshold, point)
    }

    fn pick_of<N: Fn() -> Instant>(
        &self,
        level: &Level,
        call: &Pick<'_, N>,
        may: &dyn Fn(&Host) -> bool,
    ) -> Option<Arc<Host>> {
        let time = std::cell::OnceCell::new();
        let view = Candidates { level, balancing: &self.balancing, may, call, time, second: Cell::new(None) };
        let host = level.hosts.get(level.balancer.pick(&view)?).cloned();
        if let Some(second) = view.second.get().and_then(|at| level.hosts.get(at)) {
            call.second.set(Some(second.address()));
        }
        host
    }

    /// All hosts, best priority first.
    pub(super) fn members(&self) -> impl Iterator<Item = Member> {
        self.levels.iter().flat_map(|level| {
            level.hosts.iter().zip(&level.weights).map(|(host, weight)| Member {
                host: Arc::clone(host),
                priority: level.priority,
                weight: *weight,
            })
        })
    }

    /// All hosts, those that drain last.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.levels.iter().flat_map(|level| &level.hosts).chain(&self.draining)
    }

    /// The host at `address`, also one that drains. One that is known by its name is at none.
    pub(super) fn at(&self, address: SocketAddr) -> Option<&Arc<Host>> {
        let found = || self.all().filter(|host| !host.key().address.ip().is_unspecified());
        let index = || found().map(|host| (host.key().address, Arc::clone(host))).collect();
        self.by_address.get_or_init(index).get(&address)
    }

    /// How hosts are picked.
    pub(super) fn balancing(&self) -> Balancing {
        self.balancing
    }
}

fn key(endpoint: &Endpoint) -> HostKey {
    match &endpoint.named {
        Some(named) => HostKey::named(Arc::clone(&named.name), endpoint.address.port()),
        None => HostKey::remote(endpoint.address, endpoint.mesh.clone()),
    }
}

impl Level {
    fn new(priority: u32, hosts: Vec<Arc<Host>>, weights: &[f64], balancing: Balancing) -> Self {
        let heaviest = weights.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let is_whole = weights.iter().all(|weight| weight.fract() == 0.0);
        // Both are positive and below 2^32.
        let whole = |weight: f64| if is_whole { weight as u32 } else { ((weight / heaviest * SCALE) as u32).max(1) };
        let weights: Vec<u32> = weights.iter().map(|weight| whole(*weight)).collect();
        let name = |at: usize| hosts.get(at).map(|host| host.key().address.to_string()).unwrap_or_default();
        let start = rand::random_range(0..hosts.len().max(1));
        let balancer = balance::make(&Spec { policy: balancing.policy, weights: &weights, name: &name, start });
        let newest = hosts.iter().filter_map(|host| host.since()).max();
        Self {
            priority,
            is_even: weights.iter().all(|weight| Some(weight) == weights.first()),
            warm_at: balancing.slow_start.and_then(|slow| newest.map(|newest| newest + slow.window)),
            is_warm: AtomicBool::new(false),
            balancer,
            hosts,
            weights,
        }
    }
}

#[cfg(test)]
mod tests;
