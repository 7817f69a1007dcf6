//! Configuration compiled for use: immutable, swapped whole, loaded once per request.
//!
//! ```text
//! Outbound ── Destination ── Target ─┬ http: Routes ── VirtualHost ── Route ── Split ─┐
//!                                    ├ tls: TlsSplits ── Split ──────────────────────┤
//!                                    └ tcp: Split ───────────────────────────────────┴─ Cluster ── Upstream (live)
//!          ── host name ─── addresses
//! Inbound  ── port ───────── InboundPort ┬─ Host (live)
//!                                        └─ GlobalLimit ── Cluster
//! ```
//! `discovery` builds these; `proxy` reads them. The two meet nowhere else.

mod directory;
mod filters;
mod global_limit;
mod routes;
mod tls;

pub use directory::{Demand, Directory, Unresolved};
pub use filters::{Changes, Filters, Mirror};
pub use global_limit::GlobalLimit;
pub use routes::{Action, Choice, Cluster, Fallback, Route, Routes, Split, VirtualHost};
pub use tls::TlsSplits;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use pillion_wire::name::Destination;
use pillion_wire::origin::Origins;

use crate::config;
use crate::policy::rate_limit::Limiter;
use crate::resilience::shedding::Shedder;
use crate::telemetry::explain::Chosen;
use crate::upstream::{Host, HostKey};

/// Everything that outbound traffic needs, by destination.
#[derive(Debug, Default)]
pub struct Outbound {
    /// What was asked for and answered. A destination that is missing has not been asked for yet.
    pub targets: HashMap<Destination, Lookup>,
    /// The same for host names, as DNS asks for them: their addresses, none when the name has none.
    pub hosts: HashMap<String, Lookup<[IpAddr]>>,
}

/// The control plane's answer for one destination, or for one host name.
#[derive(Debug)]
pub enum Lookup<T: ?Sized = Target> {
    /// It is known: here is how to reach it.
    Known(Arc<T>),
    /// The control plane has no such destination.
    Unknown,
    /// It was not asked, since too many destinations are known already.
    Refused,
}

impl Outbound {
    /// Every cluster in use, once.
    pub fn clusters(&self) -> Vec<Arc<Cluster>> {
        let known = self.targets.values().filter_map(|lookup| match lookup {
            Lookup::Known(target) => Some(target),
            Lookup::Unknown | Lookup::Refused => None,
        });
        let all = known.flat_map(|target| target.clusters());
        let by_name: BTreeMap<&str, &Arc<Cluster>> =
            all.map(|cluster| (cluster.config.name.as_str(), cluster)).collect();
        by_name.into_values().cloned().collect()
    }
}

impl<T: ?Sized> Clone for Lookup<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Known(known) => Self::Known(Arc::clone(known)),
            Self::Unknown => Self::Unknown,
            Self::Refused => Self::Refused,
        }
    }
}

/// One destination with all that it refers to.
#[derive(Debug)]
pub struct Target {
    /// What it is called.
    pub destination: Destination,
    /// Routes, when it takes HTTP.
    pub http: Option<Routes>,
    /// Clusters, when it takes opaque TCP.
    pub tcp: Option<Split>,
    /// Clusters for TLS that the application itself speaks, by the name that it asks for. See [`Self::tls_split`].
    pub tls: TlsSplits,
    /// Set whenever it is looked up, and taken back by whoever looks for targets that nobody uses.
    pub used: AtomicBool,
    /// What it comes from.
    pub chosen: Arc<Chosen>,
    label: Arc<str>,
}

impl Target {
    /// A destination that has just been asked for.
    pub fn new(destination: Destination, http: Option<Routes>, tcp: Option<Split>, tls: TlsSplits) -> Self {
        let routes = || Some(http.as_ref()?.name.clone());
        let cluster = || Some(tcp.as_ref()?.clusters().next()?.1.config.name.clone());
        let name = destination.ip().and_then(|_| routes().or_else(cluster));
        let label: Arc<str> = Arc::from(name.unwrap_or_else(|| destination.to_string()));
        let chosen = Arc::new(Chosen { name: Arc::clone(&label), ..Chosen::default() });
        Self { destination, http, tcp, tls, used: AtomicBool::new(true), chosen, label }
    }

    /// The same, that comes from there.
    #[must_use]
    pub fn from(mut self, origins: &Arc<Origins>) -> Self {
        self.chosen = Arc::new(Chosen { name: Arc::clone(&self.label), origins: Arc::clone(origins) });
        self
    }

    /// Where a TLS connection goes that asks for the name `sni`: what is told for that name or for the longest suffix
    /// of it, else for names in general, else where all TCP goes. `None`: the destination takes no such connection.
    pub fn tls_split(&self, sni: Option<&str>) -> Option<&Split> {
        self.tls.select(sni).or(self.tcp.as_ref())
    }

    /// Clusters that it may lead to, some perhaps several times.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        let routes = self.http.iter().flat_map(|routes| &routes.virtual_hosts).flat_map(|host| &host.routes);
        let fallbacks = routes.clone().filter_map(|route| route.fallback.as_ref());
        let mirrors = routes.clone().filter_map(|route| route.filters.as_ref()).flat_map(|filters| &filters.mirrors);
        let http = routes.filter_map(|route| match &route.action {
            Action::Forward(split) => Some(split),
            Action::Redirect(_) | Action::DirectResponse { .. } => None,
        });
        let all = http.chain(&self.tcp).chain(self.tls.all()).flat_map(Split::clusters).map(|(_, cluster)| cluster);
        let all = all.chain(mirrors.map(|mirror| &mirror.cluster));
        all.chain(fallbacks.flat_map(|fallback| &fallback.clusters))
    }

    /// What it is called in metrics and logs: an address by the name of what stands behind it.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }
}

/// Everything that inbound traffic needs, by workload port.
#[derive(Debug, Default)]
pub struct Inbound {
    /// The application's ports.
    pub ports: BTreeMap<u16, Arc<InboundPort>>,
}

impl Inbound {
    /// Clusters that its ports ask, some perhaps several times.
    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.ports.values().filter_map(|port| port.global.as_ref()).map(|limit| &limit.cluster)
    }
}

/// One port of our own application.
#[derive(Clone, Debug)]
pub struct InboundPort {
    /// What we were told.
    pub config: config::InboundPort,
    /// Where the application may listen, in the order in which that is tried. Never empty.
    pub hosts: Vec<Arc<Host>>,
    /// What its rate limits have counted.
    pub limiters: Arc<[Arc<Limiter>]>,
    /// Who else is asked whether it takes a request.
    pub global: Option<Arc<GlobalLimit>>,
    /// How much it can do at once. `None`: that is not asked.
    pub shedder: Option<Arc<Shedder>>,
    /// What it comes from.
    pub chosen: Arc<Chosen>,
    label: Arc<str>,
}

impl InboundPort {
    /// A port that is tried at `addresses`, in this order.
    pub fn new(config: config::InboundPort, addresses: &[SocketAddr]) -> Self {
        let host = |address: &SocketAddr| Arc::new(Host::new(HostKey::application(*address, None)));
        let label: Arc<str> = Arc::from(format!("inbound:{}", config.port));
        let chosen = Arc::new(Chosen { name: Arc::clone(&label), origins: Arc::clone(&config.origins) });
        let limiters = config.rate_limits.limits.iter().map(|limit| Arc::new(Limiter::new(limit.clone()))).collect();
        let shedder = config.load_shedding.as_ref().map(|told| Arc::new(Shedder::new(told.gradient.clone())));
        Self { config, hosts: addresses.iter().map(host).collect(), limiters, global: None, shedder, chosen, label }
    }

    /// Takes over what `old`, the same port before, has counted for limits that are still the same, and its shedder with
    /// all that is under way, whatever its settings are now.
    pub fn keep_counting(&mut self, old: &Self) {
        if let (Some(told), Some(old)) = (&self.config.load_shedding, &old.shedder) {
            old.set(&told.gradient);
            self.shedder = Some(Arc::clone(old));
        }
        let kept = |new: &Arc<Limiter>| {
            let same = old.limiters.iter().find(|old| old.config() == new.config());
            Arc::clone(same.unwrap_or(new))
        };
        self.limiters = self.limiters.iter().map(kept).collect();
    }

    /// The same, which asks the rate-limit service behind `cluster`, if its configuration says so.
    #[must_use]
    pub fn asking(mut self, cluster: impl FnOnce(&str) -> Arc<Cluster>, old: Option<&Self>) -> Self {
        let old = old.and_then(|old| old.global.as_deref());
        let asked = |config| Arc::new(GlobalLimit::new(Arc::clone(config), cluster(&config.cluster), old));
        self.global = self.config.global.as_ref().map(asked);
        self
    }

    /// The same, tried at `addresses`.
    #[must_use]
    pub fn at(&self, addresses: &[SocketAddr]) -> Self {
        let mut port = Self::new(self.config.clone(), addresses);
        port.limiters = Arc::clone(&self.limiters);
        port.global.clone_from(&self.global);
        port.shedder = self.shedder.clone();
        port
    }

    /// The same, for connections that the application is to see as coming from `source`.
    #[must_use]
    pub fn seen_from(&self, source: IpAddr) -> Self {
        let host = |host: &Arc<Host>| {
            let address = host.key().address;
            // The kernel lets nothing but loopback itself speak to loopback.
            let source = Some(source).filter(|_| !address.ip().is_loopback());
            Arc::new(Host::new(HostKey::application(address, source)))
        };
        // An IPv4 address cannot speak to an IPv6 address.
        let fits = |address: &SocketAddr| address.ip().is_loopback() || address.is_ipv4() == source.is_ipv4();
        let reachable = self.hosts.iter().filter(|host| fits(&host.key().address));
        Self {
            config: self.config.clone(),
            hosts: reachable.map(host).collect(),
            limiters: Arc::clone(&self.limiters),
            global: self.global.clone(),
            shedder: self.shedder.clone(),
            chosen: Arc::clone(&self.chosen),
            label: Arc::clone(&self.label),
        }
    }

    /// What it is called in metrics and logs.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Where the application may listen.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.hosts.iter().map(|host| host.key().address)
    }
}
