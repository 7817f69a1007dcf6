//! Routes, clusters and endpoints: what was received, and which destinations use it.
//!
//! An item exists exactly as long as some destination, or our own ports, use it; the first use
//! asks for it, the last one ends that.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use pillion_wire::mesh::INVALID_BACKEND;

use super::parts::Parts;
use super::{Reference, User};
use crate::config::{
    self, Action, Endpoints, InboundListener, Labels, OutboundListener, RouteConfig, RouteSource, Split,
};
use crate::discovery::Kind;
use crate::snapshot::Cluster;
use crate::upstream::Upstream;

/// Everything that listeners refer to, directly or not.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    routes: HashMap<String, Item<RouteConfig>>,
    clusters: HashMap<String, ClusterItem>,
    endpoints: HashMap<String, Item<Arc<Endpoints>>>,
    /// Clusters by the endpoints that they have or wait for.
    by_endpoints: HashMap<String, BTreeSet<String>>,
    /// Upstreams of clusters that nothing refers to any more, but that requests may still be using.
    retired: HashMap<String, Weak<Upstream>>,
}

type Users = BTreeSet<User>;

#[derive(Debug)]
struct Item<T> {
    state: State<T>,
    users: Users,
}

/// What the source said of an item.
#[derive(Debug, Default)]
enum State<T> {
    /// Nothing yet.
    #[default]
    Pending,
    /// That there is none.
    Absent,
    Known(T),
}

/// A cluster changes over only when the endpoints of its next configuration are there.
#[derive(Debug, Default)]
struct ClusterItem {
    current: Option<Arc<Cluster>>,
    next: Option<config::Cluster>,
    /// Parts of [`Self::current`] that routes lead to.
    parts: Parts,
    users: Users,
}

impl Catalog {
    /// All that `listener` refers to, as far as it is known.
    pub(super) fn references(&self, listener: &OutboundListener) -> BTreeSet<Reference> {
        let mut references = BTreeSet::new();
        match &listener.http {
            Some(RouteSource::Named(name)) => {
                references.insert((Kind::Route, name.clone()));
                if let Some(State::Known(config)) = self.routes.get(name).map(|item| &item.state) {
                    self.add_route(config, &mut references);
                }
            }
            Some(RouteSource::Inline(config)) => self.add_route(config, &mut references),
            None => {}
        }
        for split in listener.tcp.iter().chain(listener.tls.iter().map(|chain| &chain.split)) {
            self.add_split(split, &mut references);
        }
        references
    }

    /// All that `listener`, our own, refers to, as far as it is known.
    pub(super) fn inbound_references(&self, listener: &InboundListener) -> BTreeSet<Reference> {
        let mut references = BTreeSet::new();
        for limit in listener.ports.values().filter_map(|port| port.global.as_ref()) {
            self.add_cluster(&limit.cluster, &mut references);
        }
        references
    }

    fn add_route(&self, config: &RouteConfig, references: &mut BTreeSet<Reference>) {
        for route in config.virtual_hosts.iter().flat_map(|host| &host.routes) {
            if let Action::Forward(split) = &route.action {
                self.add_split(split, references);
            }
            for mirror in &route.filters.mirrors {
                self.add_cluster(&mirror.cluster, references);
            }
            for backend in route.fallback.iter().flat_map(|fallback| &fallback.backends) {
                self.add_cluster(&backend.to_string(), references);
            }
        }
    }

    fn add_split(&self, split: &Split, references: &mut BTreeSet<Reference>) {
        for cluster in split.clusters.iter().filter(|cluster| cluster.name != INVALID_BACKEND) {
            self.add_cluster(&cluster.name, references);
        }
    }

    fn add_cluster(&self, name: &str, references: &mut BTreeSet<Reference>) {
        references.insert((Kind::Cluster, name.to_owned()));
        let Some(item) = self.clusters.get(name) else { return };
        let current = item.current.as_ref().map(|current| &current.config);
        let endpoints = current.into_iter().chain(&item.next).map(|config| &config.endpoints);
        references.extend(endpoints.map(|name| (Kind::Endpoints, name.clone())));
    }

    /// True: nobody used it before, so it has to be asked for.
    pub(super) fn begin_use(&mut self, kind: Kind, name: &str, user: &User) -> bool {
        let users = match kind {
            Kind::Route => &mut self.routes.entry(name.to_owned()).or_default().users,
            Kind::Cluster => &mut self.clusters.entry(name.to_owned()).or_default().users,
            Kind::Endpoints => &mut self.endpoints.entry(name.to_owned()).or_default().users,
            Kind::Listener => return false,
        };
        users.insert(user.clone());
        users.len() == 1
    }

    /// True: nobody uses it any more, and it is forgotten.
    pub(super) fn end_use(&mut self, kind: Kind, name: &str, user: &User) -> bool {
        let users = match kind {
            Kind::Route => self.routes.get_mut(name).map(|item| &mut item.users),
            Kind::Cluster => self.clusters.get_mut(name).map(|item| &mut item.users),
            Kind::Endpoints => self.endpoints.get_mut(name).map(|item| &mut item.users),
            Kind::Listener => None,
        };
        let Some(users) = users else { return false };
        users.remove(user);
        if !users.is_empty() {
            return false;
        }
        match kind {
            Kind::Route => drop(self.routes.remove(name)),
            Kind::Cluster => self.retire(name),
            Kind::Endpoints => drop(self.endpoints.remove(name)),
            Kind::Listener => {}
        }
        true
    }

    /// These and the following setters return the users that are affected.
    pub(super) fn set_route(&mut self, name: &str, config: RouteConfig) -> Users {
        let Some(item) = self.routes.get_mut(name) else { return Users::new() };
        if matches!(&item.state, State::Known(known) if *known == config) {
            return Users::new();
        }
        item.state = State::Known(config);
        item.users.clone()
    }

    pub(super) fn set_cluster(&mut self, name: &str, config: config::Cluster) -> Users {
        let Some(item) = self.clusters.get_mut(name) else { return Users::new() };
        let unchanged = match &item.next {
            Some(next) => *next == config,
            None => item.current.as_ref().is_some_and(|current| current.config == config),
        };
        if unchanged {
            return Users::new();
        }
        self.by_endpoints.entry(config.endpoints.clone()).or_default().insert(name.to_owned());
        item.next = Some(config);
        let users = item.users.clone();
        self.settle_cluster(name);
        users
    }

    pub(super) fn set_endpoints(&mut self, name: &str, config: Endpoints) -> Users {
        let Some(item) = self.endpoints.get_mut(name) else { return Users::new() };
        if matches!(&item.state, State::Known(known) if **known == config) {
            return Users::new();
        }
        let config = Arc::new(config);
        item.state = State::Known(Arc::clone(&config));
        for cluster in self.by_endpoints.get(name).into_iter().flatten() {
            let current = self.clusters.get(cluster).and_then(|item| item.current.as_ref());
            if let Some(current) = current.filter(|current| current.config.endpoints == name) {
                current.upstream.update(&config, current.config.lb);
            }
            if let Some(item) = self.clusters.get(cluster) {
                item.parts.update(&config);
            }
        }
        self.settle_users_of(name)
    }

    /// There is none, or no longer. What is in force stays so until it is replaced.
    pub(super) fn set_absent(&mut self, kind: Kind, name: &str) -> Users {
        match kind {
            Kind::Route => self.routes.get_mut(name).map(Item::set_absent).unwrap_or_default(),
            Kind::Endpoints => match self.endpoints.get_mut(name).map(Item::set_absent) {
                Some(users) if !users.is_empty() => self.settle_users_of(name),
                _ => Users::new(),
            },
            Kind::Cluster => {
                let Some(item) = self.clusters.get_mut(name) else { return Users::new() };
                if item.current.is_some() || item.next.is_some() {
                    return Users::new();
                }
                item.current = Some(Arc::new(hostless(name)));
                item.users.clone()
            }
            Kind::Listener => Users::new(),
        }
    }

    /// The route configuration, empty if there is none. `None`: not known yet.
    pub(super) fn route(&self, name: &str) -> Option<RouteConfig> {
        match &self.routes.get(name)?.state {
            State::Pending => None,
            State::Absent => Some(RouteConfig { name: name.to_owned(), virtual_hosts: Vec::new() }),
            State::Known(config) => Some(config.clone()),
        }
    }

    /// The cluster with its hosts, without any if there is none of that name. `None`: not known yet.
    pub(super) fn cluster(&self, name: &str) -> Option<Arc<Cluster>> {
        match name {
            INVALID_BACKEND => Some(Arc::new(hostless(name))),
            _ => self.clusters.get(name)?.current.clone(),
        }
    }

    /// The same for requests with these criteria (`metadata_match`): of a cluster that has subsets a part.
    pub(super) fn part(&self, name: &str, criteria: &Labels) -> Option<Arc<Cluster>> {
        let whole = self.cluster(name)?;
        let (Some(_), Some(item)) = (&whole.config.subsets, self.clusters.get(name)) else { return Some(whole) };
        let endpoints = match self.endpoints.get(&whole.config.endpoints).map(|item| &item.state) {
            Some(State::Known(endpoints)) => Arc::clone(endpoints),
            _ => Arc::default(),
        };
        Some(item.parts.get(&whole, criteria, &endpoints))
    }

    /// The cluster with its hosts, without any when there is none of that name or it is not known yet.
    pub(super) fn cluster_or_none(&self, name: &str) -> Arc<Cluster> {
        self.cluster(name).unwrap_or_else(|| Arc::new(hostless(name)))
    }

    /// The names that the endpoints called `endpoints` come from. `None`: they come over EDS.
    pub(super) fn dns(&self, endpoints: &str) -> Option<Arc<config::Dns>> {
        let clusters = self.by_endpoints.get(endpoints)?.iter().filter_map(|name| self.clusters.get(name));
        let configs = clusters
            .flat_map(|item| item.current.as_ref().map(|current| &current.config).into_iter().chain(&item.next));
        configs.filter(|config| config.endpoints == endpoints).find_map(|config| config.dns.clone())
    }

    /// Settles all clusters that wait for the endpoints `name`; returns who uses them.
    fn settle_users_of(&mut self, name: &str) -> Users {
        let mut users = Users::new();
        for cluster in self.by_endpoints.get(name).cloned().unwrap_or_default() {
            if self.settle_cluster(&cluster)
                && let Some(item) = self.clusters.get(&cluster)
            {
                users.extend(item.users.iter().cloned());
            }
        }
        users
    }

    /// Changes the cluster over to its next configuration if the endpoints of that are there.
    fn settle_cluster(&mut self, name: &str) -> bool {
        let Some(item) = self.clusters.get_mut(name) else { return false };
        let Some(next) = &item.next else { return false };
        let endpoints = match self.endpoints.get(&next.endpoints).map(|item| &item.state) {
            Some(State::Known(endpoints)) => Arc::clone(endpoints),
            Some(State::Absent) => Arc::default(),
            Some(State::Pending) | None => return false,
        };
        let Some(config) = item.next.take() else { return false };
        let old = item.current.take();
        let retired = self.retired.remove(name).and_then(|upstream| upstream.upgrade());
        let upstream = old.as_ref().map(|old| Arc::clone(&old.upstream)).or(retired);
        let upstream = upstream.unwrap_or_else(|| Arc::new(Upstream::new(name)));
        upstream.protect(config.resilience.clone());
        upstream.check(config.health.clone());
        upstream.update(&endpoints, config.lb);
        if let Some(old) = old.filter(|old| old.config.endpoints != config.endpoints) {
            unindex(&mut self.by_endpoints, &old.config.endpoints, name);
        }
        item.parts.renew(&config, &endpoints);
        item.current = Some(Arc::new(Cluster { config, upstream }));
        true
    }

    fn retire(&mut self, name: &str) {
        let Some(item) = self.clusters.remove(name) else { return };
        let current = item.current.as_ref().map(|current| &current.config);
        for config in current.into_iter().chain(&item.next) {
            unindex(&mut self.by_endpoints, &config.endpoints, name);
        }
        self.retired.retain(|_, upstream| upstream.strong_count() > 0);
        if let Some(current) = item.current {
            self.retired.insert(name.to_owned(), Arc::downgrade(&current.upstream));
        }
    }
}

impl<T> Item<T> {
    fn set_absent(&mut self) -> Users {
        match self.state {
            State::Pending => {
                self.state = State::Absent;
                self.users.clone()
            }
            State::Absent | State::Known(_) => Users::new(),
        }
    }
}

impl<T> Default for Item<T> {
    fn default() -> Self {
        Self { state: State::Pending, users: Users::new() }
    }
}

fn unindex(by_endpoints: &mut HashMap<String, BTreeSet<String>>, endpoints: &str, cluster: &str) {
    if let Some(clusters) = by_endpoints.get_mut(endpoints) {
        clusters.remove(cluster);
        if clusters.is_empty() {
            by_endpoints.remove(endpoints);
        }
    }
}

/// Stands for a cluster that does not exist.
fn hostless(name: &str) -> Cluster {
    Cluster { config: config::Cluster::new(name), upstream: Arc::new(Upstream::new(name)) }
}
