//! What health checks found of a host. Who makes them is elsewhere: here is when, and what follows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use pillion_wire::health::HealthCheck;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::standing::{FAIL_FAST, UNCHECKED, UNHEALTHY};
use super::{Host, Upstream};
use crate::resilience::health::{Checked, Finding, State};

/// The checks of one host. Nothing while none are configured: then it costs one load to see that, and no memory.
#[derive(Debug, Default)]
pub(super) struct Checks(OnceLock<Box<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    is_on: AtomicBool,
    /// The next check is earlier than it was.
    earlier: Notify,
    told: Mutex<Option<Told>>,
}

#[derive(Debug)]
struct Told {
    rules: Arc<HealthCheck>,
    checked: Checked,
    last: Option<LastCheck>,
}

/// The rules of a cluster.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Mutex<Option<Arc<HealthCheck>>>,
    was_asked: AtomicBool,
}

/// What a check found, and why it did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What follows from it.
    pub finding: Finding,
    /// What is wrong; empty when it passed.
    pub why: String,
    /// No answer came: no connection, a reset, or too late.
    pub is_network: bool,
}

/// How a check ended.
#[derive(Clone, Debug)]
pub struct LastCheck {
    /// When.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// What it found.
    pub found: Found,
}

/// What is known of a host's health, for people.
#[derive(Clone, Debug)]
pub struct HealthReport {
    /// What is thought of it.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// Findings in a row that speak against it.
    pub streak: u32,
    /// When it is checked next.
    pub next: Instant,
    /// The last check; `None` before the first.
    pub last: Option<LastCheck>,
}

impl Upstream {
    /// Takes over how hosts are checked. What is known of them stays.
    pub fn check(&self, rules: Option<Arc<HealthCheck>>) {
        *self.checks.rules.lock() = rules;
        self.check_hosts();
    }

    pub(super) fn check_hosts(&self) {
        let rules = self.checks.rules.lock().clone();
        let hosts = self.hosts();
        // Those that come first, or all at once in the place of others, are equal: the first that passes is not to take the
        // traffic of them all.
        let are_first = !hosts.iter().any(|host| host.is_checked());
        for host in &hosts {
            host.check(rules.as_ref(), are_first, Instant::now());
        }
        if hosts.iter().all(|host| host.standing.has(UNCHECKED)) {
            self.admit_unchecked();
        }
    }

    /// Those that wait for their first check are used from now on until one speaks against them: no other is well.
    pub(super) fn admit_unchecked(&self) {
        self.hosts().iter().for_each(|host| host.admit());
    }

    /// Changes whenever its hosts do, or how they are checked.
    pub fn version(&self) -> u64 {
        self.hosts.version()
    }

    /// Was anything ever sent to it? Linear in the hosts until it was.
    pub fn was_asked(&self) -> bool {
        let was_asked = &self.checks.was_asked;
        if !was_asked.load(Ordering::Relaxed) && self.hosts().iter().any(|host| host.totals().0 > 0) {
            was_asked.store(true, Ordering::Relaxed);
        }
        was_asked.load(Ordering::Relaxed)
    }

    /// Hosts that pass their checks, and hosts that do not; those that were not checked yet are neither.
    pub fn health(&self) -> (usize, usize) {
        let hosts = self.hosts();
        let in_state =
            |state| hosts.iter().filter_map(|host| host.health()).filter(|report| report.state == state).count();
        (in_state(State::Healthy), in_state(State::Unhealthy))
    }
}

impl Host {
    /// Takes over how it is checked. `is_first`: does it come without others that are checked already?
    fn check(&self, rules: Option<&Arc<HealthCheck>>, is_first: bool, now: Instant) {
        if rules.is_none() && self.checks.0.get().is_none() {
            return;
        }
        let inner = self.checks.0.get_or_init(Box::default);
        let mut told = inner.told.lock();
        let Some(rules) = rules else {
            *told = None;
            inner.is_on.store(false, Ordering::Release);
            self.standing.set(UNHEALTHY | UNCHECKED | FAIL_FAST, false);
            return;
        };
        match &mut *told {
            Some(told) if told.rules == *rules => return,
            Some(told) => {
                told.rules = Arc::clone(rules);
                told.checked.handle_rules(rules, now, rand::random());
            }
            None => {
                let checked = Checked::new(rules, now, rand::random());
                *told = Some(Told { rules: Arc::clone(rules), checked, last: None });
                // What has served so far goes on doing so until a check speaks against it.
                self.standing.set(UNCHECKED, !is_first && self.totals().0 == 0);
            }
        }
        self.standing.set(FAIL_FAST, rules.keep == 0);
        inner.is_on.store(true, Ordering::Release);
        inner.earlier.notify_one();
    }

    /// It is used without having been checked: it has answered a request well, or no other is well. One load unless it
    /// waits for its first check.
    pub fn admit(&self) {
        if self.standing.has(UNCHECKED) {
            self.standing.set(UNCHECKED, false);
        }
    }

    /// Is it checked?
    pub fn is_checked(&self) -> bool {
        self.checks.0.get().is_some_and(|inner| inner.is_on.load(Ordering::Acquire))
    }

    /// Real traffic could not get through, or the host says that it is not well: it is checked at once, where checks are
    /// on, and a failure counts then.
    pub fn alarm(&self, now: Instant) {
        let Some(inner) = self.checks.0.get() else { return };
        if inner.told.lock().as_mut().is_some_and(|told| told.checked.handle_alarm(now)) {
            inner.earlier.notify_one();
        }
    }

    /// Waits until it is time to check it, and says whether it is because of an alarm. `is_idle`: was nothing ever sent to
    /// the cluster? `None`: it is not to be checked.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn check_due(&self, is_idle: impl Fn() -> bool) -> Option<(Arc<HealthCheck>, bool)> {
        let inner = self.checks.0.get()?;
        loop {
            let due = {
                let mut told = inner.told.lock();
                let told = told.as_mut()?;
                if told.checked.handle_time(&told.rules, is_idle(), Instant::now(), rand::random()) {
                    return Some((Arc::clone(&told.rules), told.checked.is_urgent()));
                }
                told.checked.poll_time()
            };
            tokio::select! {
                () = sleep_until(due) => {}
                () = inner.earlier.notified() => {}
            }
        }
    }

    /// A check that began at `start` has ended. Returns what was thought of it and is now, if that is another thing.
    pub fn check_ended(&self, found: Found, start: Instant, now: Instant) -> Option<(State, State)> {
        let inner = self.checks.0.get()?;
        let mut told = inner.told.lock();
        let told = told.as_mut()?;
        let old = told.checked.state();
        let new = told.checked.handle_finding(&told.rules, found.finding, now, rand::random());
        if found.finding == Finding::Passed {
            self.mark_reachable();
        }
        told.last = Some(LastCheck { at: now, took: now.saturating_duration_since(start), found });
        let new = new?;
        self.standing.set(UNHEALTHY, new == State::Unhealthy);
        self.standing.set(UNCHECKED, false);
        Some((old, new))
    }

    /// What checks found. `None`: it is not checked.
    pub fn health(&self) -> Option<HealthReport> {
        let told = self.checks.0.get()?.told.lock();
        let told = told.as_ref()?;
        Some(HealthReport {
            state: told.checked.state(),
            since: told.checked.since(),
            streak: told.checked.streak(),
            next: told.checked.poll_time(),
            last: told.last.clone(),
        })
    }
}

#[cfg(test)]
mod tests {

    use pillion_wire::health::Probe;

    use super::*;
    use crate::config::{Balancing, Endpoint, Endpoints, Locality};

    fn rules(keep: u32) -> Arc<HealthCheck> {
        let probe = Probe::Tcp { send: Vec::new(), receive: Vec::new() };
        Arc::new(HealthCheck { initial_jitter: Duration::ZERO, keep, ..HealthCheck::new(probe) })
    }

    fn endpoints(ports: &[u16]) -> Endpoints {
        let endpoint = |port: &u16| Endpoint::new(([127, 0, 0, 1], *port).into());
        let endpoints = ports.iter().map(endpoint).collect();
        Endpoints::new("a", endpoints)
    }

    fn found(finding: Finding) -> Found {
        Found { finding, why: String::new(), is_network: false }
    }

    /// One check of the host with this port.
    async fn check(upstream: &Upstream, port: u16, finding: Finding) -> Option<(State, State)> {
        let host = upstream.hosts().into_iter().find(|host| host.key().address.port() == port).expect("a host");
        host.check_due(|| false).await.expect("it is checked");
        host.check_ended(found(finding), Instant::now(), Instant::now())
    }

    fn picked(upstream: &Upstream) -> std::collections::BTreeSet<u16> {
        let pick = || upstream.pick(&[], None, Instant::now).map(|host| host.key().address.port());
        (0..20).filter_map(|_| pick()).collect()
    }

    fn upstream(ports: &[u16], keep: u32) -> Upstream {
        let upstream = Upstream::new("a");
        upstream.check(Some(rules(keep)));
        upstream.update(&endpoints(ports), Balancing::default());
        upstream
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_that_come_together_are_used_until_a_check_fails_and_later_ones_wait_for_theirs() {
        let upstream = upstream(&[1, 2, 3], 1);
        assert_eq!(picked(&upstream), [1, 2, 3].into());
        assert_eq!(check(&upstream, 1, Finding::Failed).await, Some((State::Unchecked, State::Unhealthy)));
        assert_eq!(picked(&upstream), [2, 3].into());
        assert_eq!(check(&upstream, 2, Finding::Passed).await, Some((State::Unchecked, State::Healthy)));
        assert_eq!(picked(&upstream), [2, 3].into(), "the first that passes does not take all");
        assert_eq!((upstream.rescued(), upstream.health()), ((0, 0), (1, 1)));
        check(&upstream, 3, Finding::Passed).await;
        // What is known survives an update, and a new one waits for its check.
        upstream.update(&endpoints(&[1, 2, 3, 4]), Balancing::default());
        assert_eq!(picked(&upstream), [2, 3].into());
        check(&upstream, 4, Finding::Passed).await;
        check(&upstream, 1, Finding::Passed).await;
        assert_eq!(picked(&upstream), [1, 2, 3, 4].into());
        // All others in their place: as at first.
        upstream.update(&endpoints(&[5, 6]), Balancing::default());
        check(&upstream, 6, Finding::Passed).await;
        assert_eq!(picked(&upstream), [5, 6].into());
        // One that has answered well waits for nothing.
        upstream.update(&endpoints(&[5, 6, 7, 8]), Balancing::default());
        assert_eq!(picked(&upstream), [5, 6].into());
        upstream.hosts().into_iter().filter(|host| host.key().address.port() == 8).for_each(|host| host.admit());
        assert_eq!(picked(&upstream), [5, 6, 8].into());
        // Only those are left of which nothing is known.
        upstream.update(&endpoints(&[7, 9, 10]), Balancing::default());
        assert_eq!(check(&upstream, 9, Finding::Passed).await, Some((State::Unchecked, State::Healthy)));
        assert_eq!(picked(&upstream), [7, 9, 10].into());
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_that_stand_in_for_those_that_fail_are_not_given_up_for_the_first_that_passes() {
        let upstream = upstream(&[1], 1);
        check(&upstream, 1, Finding::Passed).await;
        upstream.update(&endpoints(&[1, 2, 3]), Balancing::default());
        assert_eq!(picked(&upstream), [1].into());
        let tried = [upstream.hosts().remove(0).key().clone()];
        assert!(upstream.pick(&tried, None, Instant::now).is_some(), "another try may go there");
        assert_eq!(picked(&upstream), [1].into(), "and changes nothing");
        check(&upstream, 1, Finding::Failed).await;
        check(&upstream, 1, Finding::Failed).await;
        check(&upstream, 1, Finding::Failed).await;
        assert_eq!(picked(&upstream), [2, 3].into());
        check(&upstream, 3, Finding::Passed).await;
        assert_eq!(picked(&upstream), [2, 3].into());
    }

    #[tokio::test(start_paused = true)]
    async fn zones_that_were_not_checked_are_used_in_their_order_and_without_panic() {
        let mut all = endpoints(&[1, 2]);
        let other = endpoints(&[11]).localities.remove(0);
        all.localities.push(Locality { priority: 1, ..other });
        let upstream = Upstream::new("a");
        upstream.check(Some(rules(1)));
        upstream.update(&all, Balancing { panic_threshold: 50, ..Balancing::default() });
        assert_eq!(picked(&upstream), [1, 2].into());
        let second = Upstream::new("b");
        second.check(Some(rules(1)));
        second.update(&all, Balancing::default());
        check(&second, 11, Finding::Passed).await;
        assert_eq!(picked(&second), [1, 2].into(), "a later zone that is checked first takes nothing");
        for port in [1, 2] {
            check(&upstream, port, Finding::Failed).await;
        }
        assert_eq!(picked(&upstream), [11].into(), "better than what is known of the others");
        check(&upstream, 11, Finding::Passed).await;
        assert_eq!((picked(&upstream), upstream.rescued().1), ([11].into(), 0));
        check(&upstream, 1, Finding::Passed).await;
        assert!(picked(&upstream).contains(&1), "half of them is enough for a part");
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_all_are_used_unless_requests_are_to_fail_fast() {
        for (keep, ports) in [(1, vec![1, 2]), (1, vec![1, 2, 3]), (1, vec![1, 2, 3, 4]), (0, vec![1, 2])] {
            let upstream = upstream(&ports, keep);
            assert_eq!(picked(&upstream), ports.iter().copied().collect(), "not one of them for all");
            for port in ports.clone() {
                check(&upstream, port, Finding::Failed).await;
            }
            let used = if keep == 0 { vec![] } else { ports.clone() };
            assert_eq!(picked(&upstream), used.into_iter().collect(), "{keep}");
            assert_eq!(upstream.shortage(), super::super::Shortage::None);
            upstream.check(None);
            assert_eq!(picked(&upstream), ports.into_iter().collect(), "without checks nothing is against them");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_keeps_its_host_until_a_check_fails_even_one_that_was_not_checked_yet() {
        let upstream = upstream(&[1], 1);
        check(&upstream, 1, Finding::Passed).await;
        upstream.update(&endpoints(&[1, 2]), Balancing::default());
        assert_eq!(picked(&upstream), [1].into());
        let kept = |strict| upstream.session_host(([127, 0, 0, 1], 2).into(), strict, Instant::now).is_some();
        assert_eq!((kept(false), kept(true)), (true, true));
        let host = upstream.hosts().remove(1);
        let limits = pillion_wire::resilience::Limits { endpoint_requests: Some(1), ..Default::default() };
        upstream.protect(Some(Arc::new(crate::config::Resilience { limits: Some(limits), ..Default::default() })));
        assert!(host.standing.take(super::super::Kind::Request, 1));
        assert_eq!((kept(false), kept(true)), (false, true), "a strict one is told that it is full, not lost");
        check(&upstream, 2, Finding::Failed).await;
        assert_eq!((kept(false), kept(true)), (false, false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_served_so_far_does_so_until_a_check_fails() {
        let upstream = Upstream::new("a");
        upstream.update(&endpoints(&[1, 2]), Balancing::default());
        assert!(!upstream.was_asked());
        upstream.hosts().iter().for_each(|host| drop(host.begin()));
        assert!(upstream.was_asked());
        upstream.check(Some(rules(1)));
        check(&upstream, 1, Finding::Passed).await;
        assert_eq!(picked(&upstream), [1, 2].into());
        check(&upstream, 2, Finding::Failed).await;
        assert_eq!(picked(&upstream), [1].into());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_connection_brings_a_check_at_once_and_one_that_passes_ends_the_back_off() {
        let upstream = upstream(&[1], 1);
        check(&upstream, 1, Finding::Passed).await;
        let host = upstream.hosts().remove(0);
        let start = Instant::now();
        let waiting = host.check_due(|| true);
        let traffic = async { host.mark_unreachable(start) };
        tokio::join!(waiting, traffic).0.expect("it is checked");
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(!host.is_reachable());
        host.check_ended(found(Finding::Passed), start, Instant::now());
        assert!(host.is_reachable());
    }
}
