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
    /// There is none.
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
        for host in self.hosts() {
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
        } else if hosts.iter().any(|host| host.standing.is_barred()) {
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
        let (cluster, address) = (upstream.name(), host.key().address);
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
mod tests {
    use std::num::NonZeroU32;

    use pillion_wire::resilience::{Breaker, Limits};

    use super::*;
    use crate::config::{Balancing, Endpoint, Endpoints, Health, Locality};
    use crate::resilience::breaker::Outcome;
    use crate::upstream::{Call, Denied};

    fn upstream(rules: Resilience, hosts: u16) -> (Arc<Upstream>, Arc<Resilience>) {
        let (upstream, rules) = (Arc::new(Upstream::new("c")), Arc::new(rules));
        upstream.protect(Some(Arc::clone(&rules)));
        upstream.update(&endpoints(hosts), Balancing::default());
        (upstream, rules)
    }

    fn endpoints(hosts: u16) -> Endpoints {
        let endpoint = |port| Endpoint {
            address: ([127, 0, 0, 1], port).into(),
            weight: NonZeroU32::MIN,
            health: Health::Healthy,
            mesh: None,
        };
        let endpoints = (1..=hosts).map(endpoint).collect();
        let locality = Locality { zone: String::new(), priority: 0, weight: NonZeroU32::MIN, endpoints };
        Endpoints { name: "c".into(), localities: vec![locality], overprovisioning: None }
    }

    fn breaker(keep: u32) -> Resilience {
        let breaker = Breaker { consecutive: Some(1), keep, ..Breaker::default() };
        Resilience { breaker: Some(breaker), ..Resilience::default() }
    }

    fn begin(of: &(Arc<Upstream>, Arc<Resilience>), host: &Arc<Host>) -> Result<Call, Denied> {
        Call::begin(&of.0, host, &of.1, Kind::Request, Instant::now(), || !of.0.has_healthy())
    }

    fn fail(of: &(Arc<Upstream>, Arc<Resilience>), port: usize) -> Option<Change> {
        let host = &of.0.hosts()[port - 1];
        begin(of, host).expect("let through").settle(Outcome::Failure, Instant::now())
    }

    fn picked(upstream: &Upstream) -> std::collections::BTreeSet<u16> {
        let picks = (0..20).filter_map(|_| upstream.pick(&[], None, Instant::now));
        picks.map(|host| host.key().address.port()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_host_is_passed_over_through_updates_and_the_last_one_never_is() {
        let all = upstream(breaker(1), 3);
        assert!(matches!(fail(&all, 1), Some(Change::Opened(..))));
        assert_eq!(picked(&all.0), [2, 3].into());
        all.0.update(&endpoints(4), Balancing::default());
        assert_eq!(picked(&all.0), [2, 3, 4].into());
        all.0.update(&endpoints(2), Balancing::default());
        assert!(matches!(fail(&all, 2), Some(Change::Kept(_))));
        assert!(fail(&all, 2).is_none(), "no news");
        assert_eq!(picked(&all.0), [2].into());
        assert_eq!(
            all.0.pick(&[all.0.hosts()[1].key().clone()], None, Instant::now).map(|_| ()),
            None,
            "the other is well"
        );
        all.0.update(&endpoints(1), Balancing::default());
        assert_eq!(picked(&all.0), [1].into(), "the only one left");
        assert!(begin(&all, &all.0.hosts()[0]).is_ok(), "and it is let through");
        all.0.protect(None);
        assert_eq!(all.0.out_of_service(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_floor_all_may_open_until_a_probe_is_due() {
        let all = upstream(breaker(0), 2);
        assert!(matches!((fail(&all, 1), fail(&all, 2)), (Some(Change::Opened(..)), Some(Change::Opened(..)))));
        assert_eq!((picked(&all.0), all.0.shortage()), ([].into(), Shortage::Open));
        tokio::time::advance(Duration::from_secs(2)).await;
        let host = all.0.pick(&[], None, Instant::now).expect("its time is up");
        let probe = begin(&all, &host).expect("a probe");
        assert_eq!(
            Call::begin(&all.0, &host, &all.1, Kind::Request, Instant::now(), || false).err(),
            Some(Denied::Open)
        );
        drop(probe);
        let mut probe = begin(&all, &host).expect("the first told nothing");
        assert_eq!(probe.settle(Outcome::Success, Instant::now()), Some(Change::Closed));
        assert_eq!(probe.settle(Outcome::Failure, Instant::now()), None, "only the first word counts");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_host_is_passed_over_and_no_host_is_overfilled() {
        let limits = Limits { endpoint_requests: Some(1), ..Limits::default() };
        let all = upstream(Resilience { limits: Some(limits), ..breaker(1) }, 3);
        assert!(matches!(fail(&all, 3), Some(Change::Opened(..))));
        let first = begin(&all, &all.0.hosts()[0]).expect("free");
        assert_eq!(picked(&all.0), [2].into());
        let second = begin(&all, &all.0.hosts()[1]).expect("free");
        assert_eq!((picked(&all.0), all.0.shortage()), ([].into(), Shortage::Full), "the open one is no way out");
        assert_eq!(begin(&all, &all.0.hosts()[0]).err(), Some(Denied::Full));
        drop((first, second));
        assert_eq!(picked(&all.0), [1, 2].into());
    }

    #[test]
    fn two_that_open_at_once_do_not_each_take_the_other_for_the_last() {
        for _ in 0..50 {
            let all = upstream(breaker(1), 2);
            let opened: usize = std::thread::scope(|scope| {
                let each = [1, 2].map(|port| {
                    let all = &all;
                    scope.spawn(move || usize::from(matches!(fail(all, port), Some(Change::Opened(..)))))
                });
                each.into_iter().map(|thread| thread.join().expect("no panic")).sum()
            });
            assert_eq!((opened, all.0.out_of_service().0), (1, 1));
        }
    }
}
