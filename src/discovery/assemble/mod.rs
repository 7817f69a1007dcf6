//! From single resources to snapshots: what refers to what, what is still missing, and what may be published.
//!
//! ```text
//! Destination ── Listener ── RouteConfig ── Cluster ── Endpoints
//!  (demand)                                 (catalog: kept while anything uses it)
//! host name ──── Listener
//! our ports ──── Listener ─────────────── Cluster ── Endpoints
//! ```
//! *Make before break*: a destination's new target is published only when all
//! that it refers to is there; until then the old one stays, and stays subscribed,
//! so that its endpoints keep being updated. A resource that is withdrawn while
//! something published uses it stays in force until that is replaced. Endpoints
//! flow straight into their live `Upstream`: they never rebuild a target.
//!
//! No I/O and no clock: time is an argument.

mod catalog;
mod compile;
mod demand;
mod parts;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pillion_wire::name::{Destination, ListenerName};
use tokio::time::Instant;

use super::{Change, Config, Kind, Update};
use crate::config::{self, HostListener, InboundListener, OutboundListener};
use crate::snapshot::{Demand, Inbound, InboundPort, Lookup, Outbound};
use crate::upstream::Host;

use catalog::Catalog;
use demand::{Admission, Book};

/// A resource by kind and name.
type Reference = (Kind, String);

/// Who uses something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum User {
    /// Our own ports.
    Inbound,
    Destination(Destination),
}

/// All that is known, and who uses it.
#[derive(Debug)]
pub struct Assembly {
    /// Our own listener's name, when we take part in the mesh.
    inbound_name: Option<String>,
    /// Our workload's address, when connections to it are intercepted.
    workload: Option<IpAddr>,
    inbound: BTreeMap<u16, Arc<InboundPort>>,
    /// What we were told last of our own ports: in force when all that it refers to is there.
    own_listener: Option<InboundListener>,
    /// Until when it waits for that; `None`: no longer.
    inbound_waits: Option<Instant>,
    /// What our own ports keep subscribed.
    inbound_uses: BTreeSet<Reference>,
    destinations: HashMap<Destination, Entry>,
    /// Host names; `None` until they are answered.
    hosts: HashMap<String, Option<Lookup<[IpAddr]>>>,
    connected: bool,
    catalog: Catalog,
    book: Book,
    /// Those whose target may have changed since the last poll.
    dirty: BTreeSet<User>,
    outbound_changed: bool,
    inbound_changed: bool,
    subscriptions: Vec<Subscription>,
}

/// A change of what has to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// From now on it is needed.
    Begin(Kind, String),
    /// It is no longer needed.
    End(Kind, String),
    /// The same of endpoints that no control plane says: these names have to be asked for.
    Resolve(Arc<config::Dns>),
    /// The endpoints of this name, [`config::Dns::key`], are no longer needed.
    Unresolve(String),
}

/// What has to be done after input was handled.
#[derive(Debug, Default)]
pub struct Output {
    /// What to ask for, and what no longer, in this order.
    pub subscriptions: Vec<Subscription>,
    /// To be published, if it changed.
    pub outbound: Option<Outbound>,
    /// To be published, if it changed.
    pub inbound: Option<Inbound>,
}

/// One destination.
#[derive(Debug, Default)]
struct Entry {
    listener: Option<OutboundListener>,
    published: Option<Published>,
    /// What it keeps subscribed: for the target that is in force, and for the one to come.
    uses: BTreeSet<Reference>,
}

#[derive(Debug)]
struct Published {
    lookup: Lookup,
    uses: BTreeSet<Reference>,
}

/// How long our own ports wait for the clusters that they refer to.
const INBOUND_PATIENCE: Duration = Duration::from_secs(5);

impl Assembly {
    /// Knows nothing yet. `mesh` is the address that our inbound listener is named by; with `intercepted`, its IP address
    /// is one that the application may itself listen on. What is not used for `idle` to twice that is given up.
    pub fn new(mesh: Option<SocketAddr>, intercepted: bool, idle: Duration) -> Self {
        let inbound_name = mesh.map(|address| ListenerName::Inbound(address).to_string());
        let subscriptions = inbound_name.iter().map(|name| Subscription::Begin(Kind::Listener, name.clone())).collect();
        Self {
            inbound_name,
            workload: mesh.filter(|_| intercepted).map(|mesh| mesh.ip()),
            inbound: BTreeMap::new(),
            own_listener: None,
            inbound_waits: None,
            inbound_uses: BTreeSet::new(),
            destinations: HashMap::new(),
            hosts: HashMap::new(),
            connected: false,
            catalog: Catalog::default(),
            book: Book::new(idle),
            dirty: BTreeSet::new(),
            outbound_changed: false,
            inbound_changed: false,
            subscriptions,
        }
    }

    /// The application wants to talk to a destination, or to know a host's addresses. False: there are too many, and
    /// it was refused.
    pub fn handle_demand(&mut self, demand: Demand, now: Instant) -> bool {
        if self.book.contains(&demand) {
            self.book.asked_again(&demand, now);
            return true;
        }
        if self.connected {
            let destinations = &self.destinations;
            if let Some(idle) = self.book.give_way(|known| was_used(destinations, known)) {
                self.forget(&idle);
            }
        }
        let admission = self.book.admit(&demand, now);
        let (Admission::Granted(evicted) | Admission::Refused(evicted)) = &admission;
        evicted.iter().for_each(|old| self.forget(old));
        let granted = matches!(admission, Admission::Granted(_));
        if granted {
            self.subscriptions.push(Subscription::Begin(Kind::Listener, demand.listener().to_string()));
        } else {
            self.outbound_changed = true;
        }
        match demand {
            Demand::Destination(destination) => {
                let entry = if granted { Entry::default() } else { Entry::answered(Lookup::Refused) };
                self.destinations.insert(destination, entry);
            }
            Demand::Host(host) => {
                self.hosts.insert(host, (!granted).then_some(Lookup::Refused));
            }
        }
        granted
    }

    /// The control plane can be asked, or no longer. While it cannot, nothing known gives way to something new.
    pub fn handle_connection(&mut self, connected: bool) {
        self.connected = connected;
        if self.inbound_waits.is_some() {
            self.dirty.insert(User::Inbound);
        }
    }

    /// News from the source.
    pub fn handle_update(&mut self, update: Update, now: Instant) {
        let Update { kind, name, change } = update;
        let users = match (kind, change) {
            (Kind::Listener, Change::Accepted(Config::Inbound(listener))) => {
                self.own_listener = Some(listener);
                self.inbound_waits = Some(now + INBOUND_PATIENCE);
                [User::Inbound].into()
            }
            (Kind::Listener, Change::Accepted(Config::Outbound(listener))) => return self.know(listener, now),
            (Kind::Listener, Change::Accepted(Config::Host(listener))) => return self.locate(&listener, now),
            (Kind::Listener, Change::Removed) => return self.unlist(&name, now),
            (Kind::Route, Change::Accepted(Config::Route(config))) => self.catalog.set_route(&name, config),
            (Kind::Cluster, Change::Accepted(Config::Cluster(config))) => self.catalog.set_cluster(&name, config),
            (Kind::Endpoints, Change::Accepted(Config::Endpoints(config))) => self.catalog.set_endpoints(&name, config),
            (kind, Change::Removed) => self.catalog.set_absent(kind, &name),
            // A source never says one kind and means another.
            (_, Change::Accepted(_)) => return,
        };
        self.dirty.extend(users);
    }

    /// What was asked for and never answered, or answered with "unknown", or is no longer used, is forgotten after a
    /// while.
    pub fn handle_time(&mut self, now: Instant) {
        let destinations = &self.destinations;
        for demand in self.book.expire(now, |known| was_used(destinations, known)) {
            self.forget(&demand);
        }
        if self.inbound_waits.take_if(|until| *until <= now).is_some() {
            self.dirty.insert(User::Inbound);
        }
    }

    /// When [`Self::handle_time`] has something to do.
    pub fn poll_time(&self) -> Option<Instant> {
        self.book.next_expiry().into_iter().chain(self.inbound_waits).min()
    }

    /// What follows from everything that was handled since the last call.
    pub fn poll_output(&mut self) -> Output {
        for user in std::mem::take(&mut self.dirty) {
            match user {
                User::Inbound => self.settle_inbound(),
                User::Destination(destination) => self.settle(&destination),
            }
        }
        Output {
            outbound: std::mem::take(&mut self.outbound_changed).then(|| self.outbound()),
            inbound: std::mem::take(&mut self.inbound_changed).then(|| Inbound { ports: self.inbound.clone() }),
            subscriptions: std::mem::take(&mut self.subscriptions),
        }
    }

    fn outbound(&self) -> Outbound {
        let published = |(destination, entry): (&Destination, &Entry)| {
            entry.published.as_ref().map(|published| (destination.clone(), published.lookup.clone()))
        };
        let answered = |(host, answer): (&String, &Option<_>)| {
            answer.as_ref().map(|lookup: &Lookup<_>| (host.clone(), lookup.clone()))
        };
        Outbound {
            targets: self.destinations.iter().filter_map(published).collect(),
            hosts: self.hosts.iter().filter_map(answered).collect(),
        }
    }

    /// Serves what we were told if all that it refers to is there; else asks for what is missing, and waits for a while:
    /// what never comes must not keep the rest from being in force. What serves nothing yet, and cannot ask either, does
    /// not wait.
    fn settle_inbound(&mut self) {
        let Some(listener) = self.own_listener.take() else { return };
        let wanted = self.catalog.inbound_references(&listener);
        self.reconcile_inbound(&wanted | &self.inbound_uses);
        let mut limits = listener.ports.values().filter_map(|port| port.global.as_ref());
        let is_complete = limits.all(|limit| self.catalog.cluster(&limit.cluster).is_some());
        let cannot_wait = (!self.connected && self.inbound.is_empty()) || self.inbound_waits.is_none();
        if is_complete {
            self.inbound_waits = None;
            self.serve(&listener);
            self.reconcile_inbound(self.catalog.inbound_references(&listener));
        } else if cannot_wait {
            self.serve(&listener);
        }
        self.own_listener = Some(listener);
    }

    /// Makes `uses` what our own ports keep subscribed.
    fn reconcile_inbound(&mut self, uses: BTreeSet<Reference>) {
        let old = std::mem::take(&mut self.inbound_uses);
        self.change_uses(&old, &uses, &User::Inbound);
        self.inbound_uses = uses;
    }

    /// `user` has used `old`, and now uses `new`.
    fn change_uses(&mut self, old: &BTreeSet<Reference>, new: &BTreeSet<Reference>, user: &User) {
        for (kind, name) in new.difference(old) {
            self.begin_use(*kind, name, user);
        }
        for (kind, name) in old.difference(new) {
            self.end_use(*kind, name, user);
        }
    }

    /// Asks for it when nobody used it before: the control plane, or of endpoints that come from names nameservers.
    fn begin_use(&mut self, kind: Kind, name: &str, user: &User) {
        if !self.catalog.begin_use(kind, name, user) {
            return;
        }
        let dns = Some(kind).filter(|kind| *kind == Kind::Endpoints).and_then(|_| self.catalog.dns(name));
        let begin = || Subscription::Begin(kind, name.to_owned());
        self.subscriptions.push(dns.map_or_else(begin, Subscription::Resolve));
    }

    /// The end of that, when nobody uses it any more.
    fn end_use(&mut self, kind: Kind, name: &str, user: &User) {
        if !self.catalog.end_use(kind, name, user) {
            return;
        }
        let is_ours = kind == Kind::Endpoints && config::Dns::is_key(name);
        self.subscriptions.push(match is_ours {
            true => Subscription::Unresolve(name.to_owned()),
            false => Subscription::End(kind, name.to_owned()),
        });
    }

    /// Our own ports. Applications that stay where they are keep their host.
    fn serve(&mut self, listener: &InboundListener) {
        let old = std::mem::take(&mut self.inbound);
        let known: HashMap<SocketAddr, &Arc<Host>> =
            old.values().flat_map(|port| &port.hosts).map(|host| (host.key().address, host)).collect();
        let ports = listener.ports.iter().map(|(number, config)| {
            let mut port = InboundPort::new(config.clone(), &self.candidates(config));
            let before = old.get(number);
            if let Some(old) = before {
                port.keep_counting(old);
            }
            let mut port = port.asking(|name| self.catalog.cluster_or_none(name), before.map(AsRef::as_ref));
            for host in &mut port.hosts {
                if let Some(known) = known.get(&host.key().address) {
                    *host = Arc::clone(known);
                }
            }
            (*number, Arc::new(port))
        });
        self.inbound = ports.collect();
        self.inbound_changed = true;
    }

    /// Where the application of a port may listen. Behind interception it has its port for itself, on whatever address;
    /// in front of us only where it was told to.
    fn candidates(&self, config: &config::InboundPort) -> Vec<SocketAddr> {
        let told = config.application;
        match self.workload {
            Some(address) if told == SocketAddr::from(([127, 0, 0, 1], config.port)) => {
                vec![
                    SocketAddr::new(address, config.port),
                    told,
                    SocketAddr::new(Ipv6Addr::LOCALHOST.into(), config.port),
                ]
            }
            _ => vec![told],
        }
    }

    fn know(&mut self, listener: OutboundListener, now: Instant) {
        let destination = listener.destination.clone();
        let Some(entry) = self.destinations.get_mut(&destination) else { return };
        self.book.known(&Demand::Destination(destination.clone()), now);
        if entry.listener.as_ref() == Some(&listener) {
            return;
        }
        entry.listener = Some(listener);
        self.dirty.insert(User::Destination(destination));
    }

    fn locate(&mut self, listener: &HostListener, now: Instant) {
        let Some(answer) = self.hosts.get_mut(&listener.name) else { return };
        self.book.known(&Demand::Host(listener.name.clone()), now);
        if !matches!(answer, Some(Lookup::Known(known)) if **known == *listener.addresses) {
            *answer = Some(Lookup::Known(listener.addresses.as_slice().into()));
            self.outbound_changed = true;
        }
    }

    fn unlist(&mut self, name: &str, now: Instant) {
        if self.inbound_name.as_deref() == Some(name) {
            // What we serve stays as it is: a workload that is told nothing must not go dark.
            tracing::warn!(
                listener = name,
                "the control plane has no inbound configuration for this workload; \
                 is there a Workload with this mesh address, namespace and service account?"
            );
            return;
        }
        match name.parse() {
            Ok(ListenerName::Outbound(destination)) => {
                let Some(entry) = self.destinations.get_mut(&destination) else { return };
                *entry = Entry { uses: std::mem::take(&mut entry.uses), ..Entry::answered(Lookup::Unknown) };
                self.reconcile(&destination, BTreeSet::new());
                self.book.unknown(&Demand::Destination(destination), now);
            }
            Ok(ListenerName::Host(host)) => {
                let Some(answer) = self.hosts.get_mut(&host) else { return };
                *answer = Some(Lookup::Unknown);
                self.book.unknown(&Demand::Host(host), now);
            }
            Ok(ListenerName::Inbound(_) | ListenerName::GrpcServer(_)) | Err(_) => return,
        }
        self.outbound_changed = true;
    }

    /// Publishes the target of `destination` if all that it refers to is there; else asks for what is missing.
    fn settle(&mut self, destination: &Destination) {
        let Some(entry) = self.destinations.get(destination) else { return };
        let Some(listener) = &entry.listener else { return };
        // Each round may find a cluster in the catalog that leads to endpoints that were not asked for yet.
        let mut uses = self.catalog.references(listener);
        if let Some(published) = &entry.published {
            uses.extend(published.uses.iter().cloned());
        }
        self.reconcile(destination, uses);
        let Some(entry) = self.destinations.get_mut(destination) else { return };
        let Some(listener) = &entry.listener else { return };
        let Some(target) = compile::target(listener, &self.catalog) else { return };
        let uses = self.catalog.references(listener);
        entry.published = Some(Published { lookup: Lookup::Known(Arc::new(target)), uses: uses.clone() });
        self.outbound_changed = true;
        self.reconcile(destination, uses);
    }

    fn forget(&mut self, demand: &Demand) {
        let was_published = match demand {
            Demand::Destination(destination) => {
                self.reconcile(destination, BTreeSet::new());
                self.dirty.remove(&User::Destination(destination.clone()));
                self.destinations.remove(destination).is_some_and(|entry| entry.published.is_some())
            }
            Demand::Host(host) => self.hosts.remove(host).flatten().is_some(),
        };
        self.subscriptions.push(Subscription::End(Kind::Listener, demand.listener().to_string()));
        self.outbound_changed |= was_published;
    }

    /// Makes `uses` what `destination` keeps subscribed.
    fn reconcile(&mut self, destination: &Destination, uses: BTreeSet<Reference>) {
        let Some(entry) = self.destinations.get_mut(destination) else { return };
        let old = std::mem::take(&mut entry.uses);
        self.change_uses(&old, &uses, &User::Destination(destination.clone()));
        if let Some(entry) = self.destinations.get_mut(destination) {
            entry.uses = uses;
        }
    }
}

fn was_used(destinations: &HashMap<Destination, Entry>, known: &Demand) -> bool {
    match known {
        Demand::Destination(destination) => destinations.get(destination).is_some_and(Entry::was_used),
        Demand::Host(_) => false, // The next query asks again.
    }
}

impl Entry {
    /// Has it been used since this was last asked?
    fn was_used(&self) -> bool {
        match self.published.as_ref().map(|published| &published.lookup) {
            Some(Lookup::Known(target)) => target.used.swap(false, Ordering::Relaxed),
            _ => false,
        }
    }

    fn answered(lookup: Lookup) -> Self {
        Self { published: Some(Published { lookup, uses: BTreeSet::new() }), ..Self::default() }
    }
}

#[cfg(test)]
mod inbound_tests;
#[cfg(test)]
mod tests;
