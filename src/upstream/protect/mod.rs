//! What protects a destination as a whole: its limits, who may be taken out of service, and the comparison of its hosts.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::standing::{BREAKER, EJECTED, Ejected};
use super::{Host, Kind, Upstream};
use crate::config::Resilience;
use crate::resilience::Limit;
use crate::resilience::breaker::Change;
use crate::resilience::outlier::judge;
use crate::telemetry::Metrics;

/// How often open breakers and comparisons are looked after.
const TICK: Duration = Duration::from_millis(100);

/// The live side of [`Resilience`], one for each destination; survives changes of configuration and endpoints.
#[derive(Debug, Default)]
pub(super) struct Protection {
    rules: Mutex<Option<Arc<Resilience>>>,
    load: Load,
    /// When hosts are compared next.
    due: Mutex<Option<Instant>>,
    /// Held while one host is taken out of service, so that two do not each take the other for the last.
    withdrawing: Mutex<()>,
}

/// What is in hand against the limits of a destination. Nothing is counted that has no limit.
#[derive(Debug, Default)]
pub struct Load {
    /// HTTP requests.
    pub requests: Arc<Limit>,
    /// TCP connections and tunnels.
    pub connections: Arc<Limit>,
    /// Retries.
    pub retries: Arc<Limit>,
}

/// Why no host is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// There is none, or none that passes its health checks.
    None,
    /// Those that could be asked are full.
    Full,
    /// Their breakers are open, or they are ejected, and none has to stay in use.
    Open,
}

/// Something that happened to a host.
#[derive(Clone, Debug)]
pub enum Event {
    /// To its breaker.
    Breaker(Change),
    /// By comparison with the others.
    Outlier(Ejected),
}

impl Upstream {
    /// Takes over limits, breaker and outlier detection. What was measured stays.
    pub fn protect(&self, rules: Option<Arc<Resilience>>) {
        *self.protection.rules.lock() = rules;
        self.protect_hosts();
    }

    pub(super) fn protect_hosts(&self) {
        let rules = self.protection.rules.lock().clone();
        for host in self.hosts.load().all() {
            host.standing.protect(rules.as_ref());
        }
    }

    /// What is in hand against the destination's limits.
    pub fn load(&self) -> &Load {
        &self.protection.load
    }

    /// Why [`Self::pick`] finds no host.
    pub fn shortage(&self) -> Shortage {
        let hosts = self.hosts();
        if hosts.iter().any(|host| host.standing.is_full() && !host.standing.is_barred()) {
            Shortage::Full
        } else if hosts.iter().any(|host| host.standing.is_shut_off()) {
            Shortage::Open
        } else {
            Shortage::None
        }
    }

    /// Is there a host that answered last and is in service?
    pub fn has_healthy(&self) -> bool {
        self.hosts.load().has_healthy()
    }

    /// Takes `host` out of service by setting `bit`, if at least `keep` others stay in it.
    pub(super) fn withdraw(&self, host: &Arc<Host>, bit: u8, keep: u32) -> bool {
        let _one_at_a_time = self.protection.withdrawing.lock();
        let others = self.hosts();
        let others = others.iter().filter(|other| !Arc::ptr_eq(other, host));
        let left = others.filter(|other| other.is_reachable() && other.standing.is_in_service()).count();
        let can_go = u32::try_from(left).unwrap_or(u32::MAX) >= keep;
        if can_go {
            host.standing.set(bit, true);
        }
        can_go
    }

    /// Looks after breakers that wait for a probe, and compares hosts when it is time.
    pub fn handle_time(&self, now: Instant) -> Vec<(Arc<Host>, Event)> {
        let rules = self.protection.rules.lock().clone();
        let Some(rules) = rules.filter(|rules| rules.judges()) else { return Vec::new() };
        let hosts = self.hosts();
        let mut events: Vec<(Arc<Host>, Event)> = hosts
            .iter()
            .filter_map(|host| Some((Arc::clone(host), Event::Breaker(host.standing.handle_time(now)?))))
            .collect();
        let Some(outlier) = &rules.outlier else { return events };
        let last = {
            let mut due = self.protection.due.lock();
            let at = *due.get_or_insert(now + outlier.interval);
            if now < at {
                return events;
            }
            *due = Some(now + outlier.interval);
            at
        };
        tracing::trace!(cluster = %self.name, late = ?now.saturating_duration_since(last), "comparing hosts");
        let samples: Vec<_> = hosts.iter().map(|host| host.standing.sample(host.is_reachable())).collect();
        let verdicts = judge(outlier, &samples, || rand::random_range(0..100));
        for (host, verdict) in hosts.iter().zip(verdicts) {
            let withdraw = || self.withdraw(host, EJECTED, outlier.keep);
            if let Some(event) = host.standing.judge(outlier, verdict, now, withdraw) {
                events.push((Arc::clone(host), Event::Outlier(event)));
            }
        }
        events
    }

    /// Hosts whose breaker is open or half-open, and hosts that are ejected.
    pub fn out_of_service(&self) -> (usize, usize) {
        let hosts = self.hosts();
        let with = |bit| hosts.iter().filter(|host| host.standing.has(bit)).count();
        (with(BREAKER), with(EJECTED))
    }
}

/// Looks after the clusters that `list` gives, for ever. For the control runtime.
///
/// # Cancel safety
/// Dropping it ends comparisons and the return of ejected hosts.
pub async fn watch(list: impl Fn() -> Vec<Arc<Upstream>>, metrics: Arc<Metrics>) {
    loop {
        let all = list();
        tokio::time::sleep(if all.is_empty() { 10 * TICK } else { TICK }).await;
        for upstream in all {
            for (host, event) in upstream.handle_time(Instant::now()) {
                event.tell(&upstream, &host, &metrics);
            }
        }
    }
}

impl Event {
    /// Writes it to the log and the metrics.
    pub fn tell(&self, upstream: &Upstream, host: &Host, metrics: &Metrics) {
        let (cluster, address) = (upstream.name(), host.address());
        match self {
            Self::Breaker(Change::Opened(time, why)) => {
                metrics.breaker(cluster, "opened");
                tracing::warn!(%cluster, host = %address, %why, ?time, "the breaker of an endpoint opens");
            }
            Self::Breaker(Change::Kept(why)) => {
                metrics.breaker(cluster, "kept");
                tracing::info!(%cluster, host = %address, %why, "the breaker of an endpoint would open, but it is needed");
            }
            Self::Breaker(Change::Closed) => {
                metrics.breaker(cluster, "closed");
                tracing::info!(%cluster, host = %address, "the breaker of an endpoint closes");
            }
            Self::Outlier(Ejected::Out(why, time)) => {
                metrics.ejection(cluster, "ejected");
                tracing::warn!(%cluster, host = %address, %why, ?time, "an outlier is ejected");
            }
            Self::Outlier(Ejected::Kept(why)) => {
                metrics.ejection(cluster, "kept");
                tracing::info!(%cluster, host = %address, %why, "an outlier is not ejected");
            }
            Self::Outlier(Ejected::Back) => {
                metrics.ejection(cluster, "returned");
                tracing::info!(%cluster, host = %address, "an ejected endpoint is back");
            }
        }
    }
}

/// For messages and labels.
impl Kind {
    /// The limit of a destination that it counts against.
    pub fn limit(self) -> &'static str {
        match self {
            Self::Request => "requests",
            Self::Connection => "connections",
        }
    }

    /// The limit of one endpoint that it counts against.
    pub fn endpoint_limit(self) -> &'static str {
        match self {
            Self::Request => "endpoint_requests",
            Self::Connection => "endpoint_connections",
        }
    }
}

#[cfg(test)]
mod tests;
