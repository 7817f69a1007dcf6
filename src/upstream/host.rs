//! One host: what it is called, how busy it is, and whether it answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pillion_wire::mesh::MeshEndpoint;
use tokio::time::Instant;

use super::report::Report;
use super::standing::Standing;
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
}

impl HostKey {
    /// A host over the network, perhaps behind its sidecar.
    pub fn remote(address: SocketAddr, mesh: Option<MeshEndpoint>) -> Self {
        Self { address, mesh, via: Via::Network }
    }

    /// Our own application, which sees `source` as its caller's address (`None`: ours).
    pub fn application(address: SocketAddr, source: Option<IpAddr>) -> Self {
        Self { address, mesh: None, via: Via::Application { source } }
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
    /// Limits, breaker, ejection.
    pub(super) standing: Standing,
}

/// Counts one request or connection as being in flight until dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Host>);

impl Host {
    /// A host nothing is known of.
    pub fn new(key: HostKey) -> Self {
        Self::beside(key, None)
    }

    /// The same, which shares what it can with a `neighbour`: most hosts of a cluster have one identity.
    pub(super) fn beside(key: HostKey, neighbour: Option<&Arc<Self>>) -> Self {
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
            standing: Standing::new(),
        }
    }

    /// What it is called.
    pub fn key(&self) -> &HostKey {
        &self.key
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

    /// May it be picked, or does it back off after a failed connection, is its breaker open, is it ejected or full?
    /// Only then does the time matter.
    pub fn is_usable(&self, now: impl Fn() -> Instant) -> bool {
        (self.is_reachable() || self.retry_at.lock().is_none_or(|at| now() >= at)) && self.standing.allows(now)
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
    pub fn mark_unreachable(&self, now: Instant) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut retry_at = self.retry_at.lock();
        if retry_at.is_some_and(|at| now < at) {
            return; // Requests that were already under way say nothing new.
        }
        let streak = self.unreachable.fetch_add(1, Ordering::AcqRel).min(6);
        *retry_at = Some(now + (Duration::from_millis(200) * 2_u32.pow(streak)).min(Duration::from_secs(10)));
    }

    /// It answered.
    pub fn mark_reachable(&self) {
        if self.unreachable.load(Ordering::Acquire) != 0 {
            self.unreachable.store(0, Ordering::Release);
            *self.retry_at.lock() = None;
        }
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
}
