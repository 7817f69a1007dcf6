//! One host: what it is called, how busy it is, and whether it answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use pillion_wire::mesh::MeshEndpoint;
use tokio::time::Instant;

use super::checks::Checks;
use super::report::Report;
use super::standing::Standing;
use crate::balance::Ewma;
use crate::config::LbPolicy;
use crate::net::Via;

/// What makes two hosts the same host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostKey {
    /// Where callers outside the mesh dial it; its port names the application port inside the mesh.
    pub address: SocketAddr,
    /// Its sidecar, when it has one.
    pub mesh: Option<MeshEndpoint>,
    /// How it is reached.
    pub via: Via,
    /// Name and port of a host that is the same whatever addresses its name has; then [`Self::address`] has none.
    pub name: Option<Arc<str>>,
}

impl HostKey {
    /// A host over the network, perhaps behind its sidecar.
    pub fn remote(address: SocketAddr, mesh: Option<MeshEndpoint>) -> Self {
        Self { address, mesh, via: Via::Network, name: None }
    }

    /// A host outside the mesh by its name, whatever its addresses; `port` is a part of the name.
    pub fn named(name: Arc<str>, port: u16) -> Self {
        let address = SocketAddr::from(([0; 4], port));
        Self { address, mesh: None, via: Via::Network, name: Some(name) }
    }

    /// Our own application, which sees `source` as its caller's address (`None`: ours).
    pub fn application(address: SocketAddr, source: Option<IpAddr>) -> Self {
        Self { address, mesh: None, via: Via::Application { source }, name: None }
    }

    /// The address that is really dialled: the mesh port when there is one.
    pub fn dial(&self) -> SocketAddr {
        self.mesh.as_ref().map_or(self.address, |mesh| SocketAddr::new(self.address.ip(), mesh.port))
    }
}

/// Live counters of one host, shared by all workers.
#[derive(Debug)]
pub struct Host {
    key: HostKey,
    peer: Arc<str>,
    in_flight: AtomicUsize,
    requests: AtomicU64,
    failures: AtomicU64,
    unreachable: AtomicU32,
    retry_at: Mutex<Option<Instant>>,
    since: Option<Instant>,
    latency: Ewma,
    /// Where it is dialled now, when it is known by its name.
    ways: OnceLock<Box<Mutex<Ways>>>,
    /// Limits, breaker, ejection.
    pub(super) standing: Standing,
    /// Health checks.
    pub(super) checks: Checks,
}

/// The addresses of a host that is known by its name.
#[derive(Debug, Default)]
struct Ways {
    addresses: Arc<[SocketAddr]>,
    /// The one that answered last.
    taken: Option<SocketAddr>,
}

/// The latency that a failure counts as, at most, whatever `Retry-After` says (Linkerd's load biaser).
const LONGEST_PENALTY: Duration = Duration::from_mins(5);

/// Measures how long a host takes to answer, for a policy that wants to know. Reports when dropped, too: a host that was
/// not waited for was at least so slow.
#[derive(Debug)]
pub struct Watch {
    host: Arc<Host>,
    start: Instant,
    decay: Duration,
    penalty: Duration,
    /// It failed, and asks for so much time, perhaps none.
    failed: Option<Duration>,
}

/// Counts one request or connection as being in flight until dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Host>);

impl Host {
    /// A host nothing is known of.
    pub fn new(key: HostKey) -> Self {
        Self::beside(key, None, None)
    }

    /// The same, known since then, which shares what it can with a `neighbour`: most hosts of a cluster have one identity.
    pub(super) fn beside(key: HostKey, neighbour: Option<&Arc<Self>>, since: Option<Instant>) -> Self {
        let identity = |key: &HostKey| key.mesh.as_ref().map(|mesh| mesh.identity.clone());
        let peer = match neighbour.filter(|neighbour| identity(&neighbour.key) == identity(&key)) {
            Some(neighbour) => Arc::clone(&neighbour.peer),
            None => identity(&key).map_or_else(Arc::default, |identity| Arc::from(identity.to_string())),
        };
        Self {
            key,
            peer,
            in_flight: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            unreachable: AtomicU32::new(0),
            retry_at: Mutex::new(None),
            since,
            latency: Ewma::default(),
            ways: OnceLock::new(),
            standing: Standing::new(),
            checks: Checks::default(),
        }
    }

    /// When it was first heard of; `None` where it does not matter.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Expected latency in seconds, of an average that decays in this time. `None`: it was never measured.
    pub fn latency(&self, now: Instant, decay: Duration) -> Option<f64> {
        self.latency.expect(now, decay)
    }

    /// Measures its next answer, if `policy` wants to know.
    pub fn watch(self: &Arc<Self>, policy: LbPolicy) -> Option<Watch> {
        let LbPolicy::PeakEwma { decay, penalty, .. } = policy else { return None };
        Some(Watch { host: Arc::clone(self), start: Instant::now(), decay, penalty, failed: None })
    }

    /// What it is called.
    pub fn key(&self) -> &HostKey {
        &self.key
    }

    /// Where it is: of one that is known by its name, the address that answered last, or that is tried first.
    pub fn address(&self) -> SocketAddr {
        let Some(ways) = self.ways.get() else { return self.key.address };
        let ways = ways.lock();
        ways.taken.or_else(|| ways.addresses.first().copied()).unwrap_or(self.key.address)
    }

    /// The address that is dialled: the mesh port when there is one, else [`Self::address`].
    pub fn dial(&self) -> SocketAddr {
        if self.key.mesh.is_some() { self.key.dial() } else { self.address() }
    }

    /// The addresses of one that is known by its name, in the order in which they are tried.
    pub(super) fn ways(&self) -> Option<Arc<[SocketAddr]>> {
        self.ways.get().map(|ways| Arc::clone(&ways.lock().addresses))
    }

    /// From now on its name has these addresses. Connections that stand are kept.
    pub(super) fn point_at(&self, addresses: &Arc<[SocketAddr]>) {
        let mut ways = self.ways.get_or_init(Box::default).lock();
        ways.addresses = Arc::clone(addresses);
        ways.taken = ways.taken.filter(|taken| addresses.contains(taken));
    }

    /// Its name was dialled, and this address answered.
    pub(super) fn took(&self, address: SocketAddr) {
        if let Some(ways) = self.ways.get() {
            ways.lock().taken = Some(address);
        }
    }

    /// The SPIFFE id of its sidecar, as text; empty when it has none.
    pub fn peer(&self) -> &Arc<str> {
        &self.peer
    }

    /// Counts a request as begun; it ends when the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Requests and connections in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests and connections ever begun, and how many times it could not be reached.
    pub fn totals(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// May it be picked, or does it back off after a failed connection, is its breaker open, does it fail its health
    /// checks, is it ejected or full?
    /// Only then does the time matter.
    pub fn is_usable(&self, now: impl Fn() -> Instant) -> bool {
        (self.is_reachable() || self.retry_at.lock().is_none_or(|at| now() >= at)) && self.standing.allows(now)
    }

    /// The same for one that was not checked yet.
    pub(super) fn is_usable_unchecked(&self, now: impl Fn() -> Instant) -> bool {
        (self.is_reachable() || self.retry_at.lock().is_none_or(|at| now() >= at))
            && self.standing.allows_unchecked(now)
    }

    /// Did it answer when it was last connected to?
    pub fn is_reachable(&self) -> bool {
        self.unreachable.load(Ordering::Acquire) == 0
    }

    /// How it stands: limits, breaker, ejection.
    pub fn report(&self) -> Report {
        self.standing.report()
    }

    /// It could not be reached: nothing is sent there for 200 ms, doubled with each failure in a row, 10 s at most.
    /// It is checked at once where health checks are on.
    pub fn mark_unreachable(&self, now: Instant) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut retry_at = self.retry_at.lock();
        if retry_at.is_some_and(|at| now < at) {
            return; // Requests that were already under way say nothing new.
        }
        let streak = self.unreachable.fetch_add(1, Ordering::AcqRel).min(6);
        *retry_at = Some(now + (Duration::from_millis(200) * 2_u32.pow(streak)).min(Duration::from_secs(10)));
        drop(retry_at);
        self.alarm(now);
    }

    /// It answered.
    pub fn mark_reachable(&self) {
        if self.unreachable.load(Ordering::Acquire) != 0 {
            self.unreachable.store(0, Ordering::Release);
            *self.retry_at.lock() = None;
        }
    }
}

impl Watch {
    /// It answered, or `failed`: then it counts as slow, the more the longer it asks to be left alone (5 minutes at most).
    pub fn end(mut self, failed: Option<Duration>) {
        self.failed = failed.map(|asked| asked.min(LONGEST_PENALTY));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.start);
        let latency = self.failed.map_or(took, |asked| took.max(self.penalty).max(asked));
        self.host.latency.observe(latency, now, self.decay);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_host_rests_longer_each_time_and_recovers_at_once() {
        let host = Host::new(HostKey::remote("127.0.0.1:1".parse().expect("literal"), None));
        let start = Instant::now();
        assert!(host.is_usable(|| start));
        host.mark_unreachable(start);
        assert!(!host.is_usable(|| start + Duration::from_millis(199)));
        assert!(host.is_usable(|| start + Duration::from_millis(200)));
        host.mark_unreachable(start + Duration::from_millis(200));
        assert!(!host.is_usable(|| start + Duration::from_millis(599)));
        host.mark_reachable();
        assert!(host.is_usable(|| start + Duration::from_millis(201)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_measured_once_even_when_nobody_waits_for_it_and_a_failure_counts_as_the_penalty() {
        let policy = LbPolicy::PeakEwma {
            decay: Duration::from_secs(10),
            default_rtt: Duration::from_millis(30),
            penalty: Duration::from_secs(5),
        };
        let host = Arc::new(Host::new(HostKey::remote("127.0.0.1:1".parse().expect("literal"), None)));
        let latency = || host.latency(Instant::now(), Duration::from_secs(10));
        assert!(host.watch(LbPolicy::RoundRobin).is_none());
        let watch = host.watch(policy).expect("it wants to know");
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(latency(), None);
        watch.end(None);
        assert_eq!(latency(), Some(0.02));
        let watch = host.watch(policy);
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(watch);
        assert_eq!(latency(), Some(1.0));
        host.watch(policy).expect("it wants to know").end(Some(Duration::ZERO));
        assert_eq!(latency(), Some(5.0));
        host.watch(policy).expect("it wants to know").end(Some(Duration::from_secs(20)));
        assert_eq!(latency(), Some(20.0));
        host.watch(policy).expect("it wants to know").end(Some(Duration::MAX));
        assert_eq!(latency(), Some(300.0));
    }

    #[test]
    fn what_is_in_flight_is_given_back_however_it_ends() {
        let host = Arc::new(Host::new(HostKey::remote("127.0.0.1:1".parse().expect("literal"), None)));
        let (one, two) = (host.begin(), host.begin());
        assert_eq!(host.in_flight(), 2);
        drop(one);
        let panicked = std::thread::spawn(move || {
            let _held = two;
            std::panic::resume_unwind(Box::new("gone"));
        });
        assert!(panicked.join().is_err());
        assert_eq!(host.in_flight(), 0);
    }
}
