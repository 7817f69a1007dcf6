//! Which sockets are open: fixed ones from the settings, front ports as the control plane names them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin};
use crate::bootstrap::{Bootstrap, Intercept, Redirection};
use crate::net::{self, Namespace, Reach};
use crate::proxy::{Entry, Shared};
use crate::readiness::Fronts;
use crate::slot::Slot;
use crate::snapshot::Inbound;
use crate::worker::Job;

/// Sockets that are bound but not served yet: bound first, so that a port that is taken ends the start at once.
#[derive(Debug)]
pub struct Bound {
    data: Vec<(Entry, Vec<TcpListener>)>,
    admin: TcpListener,
    health: TcpListener,
    metrics: Option<TcpListener>,
    /// Served by the control runtime, not by workers.
    pub(crate) dns: (Vec<UdpSocket>, Vec<TcpListener>),
}

/// Hands listening sockets to the workers.
#[derive(Debug)]
pub struct Listeners {
    shared: Arc<Shared>,
    workers: Vec<mpsc::Sender<Job>>,
    fronts: Arc<Slot<Fronts>>,
}

/// A front port that could not be bound is tried again this often.
const BIND_AGAIN: Duration = Duration::from_secs(1);

impl Bound {
    /// Binds everything that the settings name. Ports given as 0 become the ones chosen.
    ///
    /// # Errors
    /// When an address is taken or not ours; the message names it.
    pub async fn bind(settings: &mut Bootstrap, namespace: Option<&Namespace>) -> anyhow::Result<Self> {
        let workers = settings.workers.get();
        let mut data = match settings.intercept.clone() {
            Some(intercept) => intercepting(settings, intercept, namespace).await?,
            None => Vec::new(),
        };
        if let Some(address) = settings.outbound_http.as_mut().filter(|_| settings.intercept.is_none()) {
            data.push((Entry::OutboundHttp, bind("outbound-http", address, workers, Reach::Own)?));
        }
        for binding in &mut settings.tcp {
            let sockets = bind("tcp", &mut binding.listen, workers, Reach::Own)?;
            data.push((Entry::OutboundTcp(binding.destination.clone()), sockets));
        }
        if let Some(address) = &mut settings.mesh {
            // Where connections are intercepted, the workload has its addresses for itself, and may have several.
            let every = settings.intercept.as_ref().is_some_and(|intercept| intercept.namespace.is_none());
            let ip = if every { wildcard(address.ip()) } else { address.ip() };
            let mut bound = SocketAddr::new(ip, address.port());
            data.push((Entry::Mesh, bind("mesh", &mut bound, workers, Reach::OneFamily)?));
            address.set_port(bound.port());
            if every {
                let mut other = SocketAddr::new(other_family(wildcard(address.ip())), bound.port());
                data.extend(optional(Entry::Mesh, &mut other, workers, Reach::OneFamily));
            }
        }
        let single = |name, address: &mut SocketAddr| -> anyhow::Result<TcpListener> {
            bind(name, address, 1, Reach::Own)?.pop().context("no socket")
        };
        let dns = match settings.dns.as_mut() {
            Some(dns) => bind_dns(&mut dns.listen, namespace).await?,
            None => Default::default(),
        };
        let admin = single("admin", &mut settings.admin)?;
        let health = single("health", &mut settings.health)?;
        let metrics = settings.metrics.listen.as_mut().map(|address| single("metrics", address)).transpose()?;
        Ok(Self { data, admin, health, metrics, dns })
    }
}

/// The sockets that connections are redirected to, for both IP families, in the application's network namespace.
async fn intercepting(
    settings: &mut Bootstrap,
    intercept: Intercept,
    namespace: Option<&Namespace>,
) -> anyhow::Result<Vec<(Entry, Vec<TcpListener>)>> {
    let workers = settings.workers.get();
    let outbound = settings.outbound_http.context("--intercept needs --outbound-http")?;
    let reach = match intercept.redirection {
        Redirection::Redirect => Reach::OneFamily,
        Redirection::Tproxy => Reach::Transparent,
    };
    let bind_all = move || {
        let mut sockets = Vec::new();
        let mut bound = outbound;
        sockets.push((Entry::Outbound, bind("outbound-http", &mut bound, workers, Reach::OneFamily)?));
        let mut other = SocketAddr::new(other_family(bound.ip()), bound.port());
        sockets.extend(optional(Entry::Outbound, &mut other, workers, Reach::OneFamily));
        let mut inbound = intercept.inbound;
        if inbound.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            inbound.set_ip(Ipv4Addr::UNSPECIFIED.into());
            let mut other = intercept.inbound;
            sockets.push((Entry::Inbound, bind("inbound", &mut inbound, workers, reach)?));
            other.set_port(inbound.port());
            sockets.extend(optional(Entry::Inbound, &mut other, workers, reach));
        } else {
            sockets.push((Entry::Inbound, bind("inbound", &mut inbound, workers, reach)?));
        }
        Ok::<_, anyhow::Error>((sockets, bound, inbound.port()))
    };
    let (sockets, outbound, inbound) = match namespace {
        Some(namespace) => namespace.run(move || Ok(bind_all())).await??,
        None => bind_all()?,
    };
    settings.outbound_http = Some(outbound);
    if let Some(intercept) = &mut settings.intercept {
        intercept.inbound.set_port(inbound);
    }
    Ok(sockets)
}

/// UDP and TCP; on the loopback addresses of both families when it is one of them that is asked for.
async fn bind_dns(
    address: &mut SocketAddr,
    namespace: Option<&Namespace>,
) -> anyhow::Result<(Vec<UdpSocket>, Vec<TcpListener>)> {
    let wanted = *address;
    let bind_all = move || {
        let mut tcp = net::listen(wanted, 1, Reach::OneFamily)?;
        let bound = tcp.first().context("no socket")?.local_addr()?;
        let mut udp = vec![UdpSocket::bind(bound)?];
        if bound.ip().is_loopback() {
            let other = SocketAddr::new(other_family(bound.ip()), bound.port());
            if let (Ok(more), Ok(socket)) = (net::listen(other, 1, Reach::OneFamily), UdpSocket::bind(other)) {
                tcp.extend(more);
                udp.push(socket);
            }
        }
        Ok::<_, anyhow::Error>((bound, (udp, tcp)))
    };
    let bound = match namespace {
        Some(namespace) => namespace.run(move || Ok(bind_all())).await?,
        None => bind_all(),
    };
    let (bound, sockets) =
        bound.with_context(|| format!("cannot listen on {wanted} (--dns); is another program using it?"))?;
    *address = bound;
    Ok(sockets)
}

/// A second IP family, where the machine has it.
fn optional(entry: Entry, address: &mut SocketAddr, count: usize, reach: Reach) -> Option<(Entry, Vec<TcpListener>)> {
    match net::listen(*address, count, reach) {
        Ok(sockets) => Some((entry, sockets)),
        Err(error) => {
            tracing::info!(%address, %error, "not listening on the second IP family");
            None
        }
    }
}

fn wildcard(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Loopback for loopback, all addresses for all addresses.
pub(crate) fn other_family(address: IpAddr) -> IpAddr {
    match (address, address.is_unspecified()) {
        (IpAddr::V4(_), true) => Ipv6Addr::UNSPECIFIED.into(),
        (IpAddr::V4(_), false) => Ipv6Addr::LOCALHOST.into(),
        (IpAddr::V6(_), true) => Ipv4Addr::UNSPECIFIED.into(),
        (IpAddr::V6(_), false) => Ipv4Addr::LOCALHOST.into(),
    }
}

fn bind(name: &str, address: &mut SocketAddr, count: usize, reach: Reach) -> anyhow::Result<Vec<TcpListener>> {
    let sockets = net::listen(*address, count, reach)
        .with_context(|| format!("cannot listen on {address} (--{name}); is another program using it?"))?;
    if let Some(socket) = sockets.first() {
        *address = socket.local_addr()?;
    }
    Ok(sockets)
}

impl Listeners {
    /// Serves on `workers`.
    pub fn new(shared: Arc<Shared>, workers: Vec<mpsc::Sender<Job>>) -> Self {
        Self { shared, workers, fronts: Arc::new(Slot::new(Fronts::default())) }
    }

    /// Which front ports are open, and which could not be opened.
    pub fn fronts(&self) -> Arc<Slot<Fronts>> {
        Arc::clone(&self.fronts)
    }

    /// Starts serving; front ports follow the inbound configuration from now on. Returns the addresses by name.
    ///
    /// # Errors
    /// When a worker is gone.
    pub async fn start(self, bound: Bound, admin: &Arc<Admin>) -> anyhow::Result<BTreeMap<&'static str, Value>> {
        for (entry, sockets) in bound.data {
            self.hand_out(entry, sockets, &CancellationToken::new()).await?;
        }
        admin::serve(bound.admin, bound.health, bound.metrics, admin)?;
        let settings = &self.shared.settings;
        let tcp: BTreeMap<String, SocketAddr> =
            settings.tcp.iter().map(|binding| (binding.destination.to_string(), binding.listen)).collect();
        let addresses = BTreeMap::from([
            ("mesh", json!(settings.mesh)),
            ("outbound_http", json!(settings.outbound_http)),
            ("dns", json!(settings.dns.as_ref().map(|dns| dns.listen))),
            ("inbound", json!(settings.intercept.as_ref().map(|intercept| intercept.inbound))),
            ("tcp", json!(tcp)),
            ("admin", json!(settings.admin)),
            ("health", json!(settings.health)),
            ("metrics", json!(settings.metrics.listen)),
        ]);
        tokio::spawn(self.follow_fronts());
        Ok(addresses)
    }

    async fn hand_out(&self, entry: Entry, sockets: Vec<TcpListener>, stop: &CancellationToken) -> anyhow::Result<()> {
        let permits = Arc::new(Semaphore::new(self.shared.settings.limits.max_connections.get()));
        for (worker, listener) in self.workers.iter().zip(sockets) {
            let job = Job { listener, entry: entry.clone(), permits: Arc::clone(&permits), stop: stop.clone() };
            worker.send(job).await.ok().context("a worker thread is gone")?;
        }
        Ok(())
    }

    /// Opens and closes front ports as the inbound configuration says. A closed one keeps its connections.
    async fn follow_fronts(self) {
        let Some(mesh) = self.shared.settings.mesh else { return };
        if self.shared.settings.intercept.is_some() {
            // The application has its ports for itself; what comes from outside is redirected to us.
            self.fronts.publish(Fronts { settled: true, ..Fronts::default() });
            return;
        }
        let mut changes = self.shared.inbound.subscribe();
        let mut open: BTreeMap<u16, CancellationToken> = BTreeMap::new();
        loop {
            let inbound = self.shared.inbound.load_full();
            if let Some(inbound) = inbound.as_ref() {
                let failed = self.adjust_fronts(mesh, inbound, &mut open).await;
                self.fronts.publish(Fronts {
                    settled: true,
                    open: open.keys().map(|&port| SocketAddr::new(mesh.ip(), port)).collect(),
                    failed,
                });
            }
            let again = !self.fronts.load().failed.is_empty();
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(BIND_AGAIN), if again => {}
            }
        }
    }

    async fn adjust_fronts(
        &self,
        mesh: SocketAddr,
        inbound: &Inbound,
        open: &mut BTreeMap<u16, CancellationToken>,
    ) -> BTreeMap<SocketAddr, String> {
        // Where the application itself listens on the workload's address, there is no room for a front.
        let wanted: BTreeSet<u16> = inbound
            .ports
            .values()
            .filter(|port| port.config.application != SocketAddr::new(mesh.ip(), port.config.port))
            .map(|port| port.config.port)
            .collect();
        open.retain(|port, stop| {
            let keep = wanted.contains(port);
            if !keep {
                stop.cancel();
            }
            keep
        });
        let mut failed = BTreeMap::new();
        for port in wanted {
            if open.contains_key(&port) {
                continue;
            }
            let address = SocketAddr::new(mesh.ip(), port);
            match net::listen(address, self.workers.len(), Reach::Own) {
                Ok(sockets) => {
                    let stop = CancellationToken::new();
                    if self.hand_out(Entry::Front(port), sockets, &stop).await.is_ok() {
                        open.insert(port, stop);
                    }
                }
                Err(error) => {
                    tracing::warn!(%address, %error, "cannot listen in front of the application; is it bound there itself?");
                    failed.insert(address, error.to_string());
                }
            }
        }
        failed
    }
}
