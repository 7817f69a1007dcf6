//! What we measure about the hosts that we call: live state that survives configuration changes.
//!
//! `config::Cluster` is what we were told; an [`Upstream`] is what we see. It is
//! kept by name while anything refers to it, and a [`Host`] is kept while its
//! address, mesh port and identity stay the same.

mod call;
mod checks;
mod connect;
mod host;
mod host_set;
mod pool;
mod protect;
mod report;
mod session;
mod standing;

pub use call::{Call, Denied};
pub use checks::{Found, HealthReport, LastCheck};
pub use host::{Host, HostKey, InFlight, Watch};
pub use host_set::Member;
pub use pool::{Lease1, Lease2, Pool};
pub use protect::{Event, Load, Shortage, watch};
pub use report::{BreakerReport, Report};
pub use standing::{Ejected, Kind};

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::config::{Balancing, Endpoints};
use crate::resilience::Budget;
use crate::slot::Slot;
use host_set::{Found as Way, HostSet, Pick};

/// The hosts of one cluster, shared by all workers.
#[derive(Debug)]
pub struct Upstream {
    name: Arc<str>,
    hosts: Slot<HostSet>,
    spilled: AtomicU64,
    panicked: AtomicU64,
    protection: protect::Protection,
    checks: checks::Rules,
    /// Of the requests that may be retried.
    pub budget: Budget,
}

impl Upstream {
    /// A cluster without hosts yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            hosts: Slot::new(HostSet::default()),
            spilled: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            protection: protect::Protection::default(),
            checks: checks::Rules::default(),
            budget: Budget::new(Instant::now()),
        }
    }

    /// The cluster's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Takes over new endpoints. Hosts that stay keep their counters, back-off, latency, age and connections. Linear in
    /// the hosts.
    pub fn update(&self, endpoints: &Endpoints, balancing: Balancing) {
        let old = self.hosts.load_full();
        self.hosts.publish(HostSet::new(endpoints, balancing, &old));
        self.protect_hosts();
        self.check_hosts();
    }

    /// Picks a host that is not in `tried`, not backing off, from the priority that has to take the call; `hash` is what
    /// balancers go by that keep calls together.
    ///
    /// When every host backs off or is out of service, one of them is picked all the same: a guess that
    /// a host is down must not turn into an outage. One that is full never is.
    pub fn pick(&self, tried: &[HostKey], hash: Option<u64>, now: impl Fn() -> Instant) -> Option<Arc<Host>> {
        self.pick_beside(tried, hash, now, &Cell::new(None))
    }

    /// The same; `second` is set to the host that it was compared with, where the balancer compares two.
    pub fn pick_beside(
        &self,
        tried: &[HostKey],
        hash: Option<u64>,
        now: impl Fn() -> Instant,
        second: &Cell<Option<SocketAddr>>,
    ) -> Option<Arc<Host>> {
        let (host, found) = self.hosts.load().pick(&Pick { tried, hash, now: &now, second })?;
        match found {
            Way::Well => {}
            Way::Unchecked => self.admit_unchecked(),
            Way::Spilled => drop(self.spilled.fetch_add(1, Ordering::Relaxed)),
            Way::Panicked => drop(self.panicked.fetch_add(1, Ordering::Relaxed)),
        }
        Some(host)
    }

    /// All hosts.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        self.hosts.load().members().map(|member| member.host).collect()
    }

    /// All hosts with their places, for the admin pages.
    pub fn members(&self) -> Vec<Member> {
        self.hosts.load().members().collect()
    }

    /// How hosts are picked, for the admin pages.
    pub fn balancing(&self) -> Balancing {
        self.hosts.load().balancing()
    }

    /// How many picks went to a later priority because too few hosts of an earlier one were healthy, and how many
    /// regardless of health because too few were healthy at all.
    pub fn rescued(&self) -> (u64, u64) {
        (self.spilled.load(Ordering::Relaxed), self.panicked.load(Ordering::Relaxed))
    }
}
