//! The retry budget of a destination: retries are a share of what is asked of it, so that they cannot multiply a failure.
//!
//! A retry is allowed while those under way are fewer than a share of the requests that wait for their answer (Envoy's
//! `retry_budget`), or else by a bucket of a few per second (GEP-3388's `minRetryRate`), without which a destination
//! that is seldom called would have none. Shared by all workers; no lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::RetryBudget;

/// Live counts of one destination.
#[derive(Debug)]
pub struct Budget {
    born: Instant,
    active: AtomicU32,
    retrying: AtomicU32,
    /// When the bucket is full again, in nanoseconds since `born` (the generic cell rate algorithm).
    full_at: AtomicU64,
}

/// Counts one request as active, until dropped.
#[derive(Debug)]
pub struct Active<'a>(&'a Budget);

/// A retry that is allowed, and under way until dropped.
#[derive(Debug)]
pub struct Permit<'a>(Option<&'a Budget>);

impl Budget {
    /// Nothing is under way. `now` is any moment before those that come.
    pub fn new(now: Instant) -> Self {
        Self { born: now, active: AtomicU32::new(0), retrying: AtomicU32::new(0), full_at: AtomicU64::new(0) }
    }

    /// A request begins that may be retried. Others are not counted: the budget is the smaller for it, and they pay nothing.
    pub fn begin(&self) -> Active<'_> {
        self.active.fetch_add(1, Ordering::AcqRel);
        Active(self)
    }

    /// May one of the requests be sent again?
    pub fn permit(&self, limit: RetryBudget, now: Instant) -> Option<Permit<'_>> {
        let most = u64::from(self.active.load(Ordering::Acquire)) * u64::from(limit.percent) / 100;
        let more = |retrying: u32| (u64::from(retrying) < most).then_some(retrying + 1);
        if self.retrying.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok() {
            return Some(Permit(Some(self)));
        }
        // What the bucket allows is not counted against the share, which it is meant to add to.
        self.take(limit.min_per_second, now).then_some(Permit(None))
    }

    /// Requests that wait for their answer, and retries under way that the share allowed.
    pub fn counts(&self) -> (u32, u32) {
        (self.active.load(Ordering::Relaxed), self.retrying.load(Ordering::Relaxed))
    }

    /// Takes one of `rate` per second, of which as many as come in a second may be taken at once.
    fn take(&self, rate: u32, now: Instant) -> bool {
        let Some(interval) = 1_000_000_000_u64.checked_div(u64::from(rate)) else { return false };
        let second = nanoseconds(Duration::from_secs(1));
        let now = nanoseconds(now.saturating_duration_since(self.born));
        let next = |full_at: u64| Some(full_at.max(now) + interval).filter(|&next| next <= now + second);
        self.full_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX >> 1)
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(budget) = self.0 {
            budget.retrying.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn limit(percent: u8, min_per_second: u32) -> RetryBudget {
        RetryBudget { percent, min_per_second }
    }

    #[test]
    fn a_fifth_of_the_active_requests_may_be_retries_at_once() {
        let now = Instant::now();
        let budget = Budget::new(now);
        let active: Vec<_> = (0..10).map(|_| budget.begin()).collect();
        let first = budget.permit(limit(20, 0), now);
        let second = budget.permit(limit(20, 0), now);
        assert!(first.is_some() && second.is_some());
        assert!(budget.permit(limit(20, 0), now).is_none());
        drop(first);
        assert!(budget.permit(limit(20, 0), now).is_some());
        drop((active, second));
        assert_eq!(budget.counts(), (0, 0));
        assert!(budget.permit(limit(100, 0), now).is_none());
    }

    #[test]
    fn the_floor_is_a_burst_and_then_so_many_per_second() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let taken = |at: Duration| (0..100).filter(|_| budget.permit(limit(0, 10), start + at).is_some()).count();
        assert_eq!(taken(Duration::ZERO), 10);
        assert_eq!(taken(Duration::from_millis(99)), 0);
        assert_eq!(taken(Duration::from_millis(100)), 1);
        assert_eq!(taken(Duration::from_millis(1100)), 10);
        assert_eq!(taken(Duration::from_secs(60)), 10);
    }

    #[test]
    fn threads_that_race_never_get_more_than_the_share() {
        let now = Instant::now();
        let budget = Budget::new(now);
        let active: Vec<_> = (0..50).map(|_| budget.begin()).collect();
        let peak = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let permit = budget.permit(limit(20, 0), now);
                        peak.fetch_max(budget.counts().1, Ordering::AcqRel);
                        drop(permit);
                    }
                });
            }
        });
        assert!((1..=10).contains(&peak.load(Ordering::Acquire)), "{peak:?}");
        drop(active);
        assert_eq!(budget.counts(), (0, 0));
    }

    proptest! {
        /// Whatever happens in whichever order: what the share grants never exceeds it when granted, and what the floor
        /// grants within any stretch of time is its rate times that, and one burst.
        #[test]
        fn the_budget_is_never_exceeded(
            percent in 0_u8..=100,
            rate in 0_u32..30,
            steps in prop::collection::vec((0_u8..5, 0_u64..400), 1..400),
        ) {
            let start = Instant::now();
            let (budget, mut now) = (Budget::new(start), start);
            let (mut active, mut permits, mut floor) = (VecDeque::new(), VecDeque::new(), Vec::new());
            for (what, millis) in steps {
                match what {
                    0 => active.push_back(budget.begin()),
                    1 => drop(active.pop_front()),
                    2 => drop(permits.pop_front()),
                    3 => now += Duration::from_millis(millis),
                    _ => if let Some(permit) = budget.permit(limit(percent, rate), now) {
                        if permit.0.is_some() {
                            permits.push_back(permit);
                            prop_assert!(permits.len() * 100 <= active.len() * usize::from(percent));
                        } else {
                            floor.push(now);
                        }
                    },
                }
            }
            for (at, from) in floor.iter().enumerate() {
                for (count, until) in floor.iter().skip(at).enumerate() {
                    let most = (*until - *from).as_secs_f64() * f64::from(rate) + f64::from(rate) + 1e-6;
                    prop_assert!((count + 1) as f64 <= most, "{} from {from:?} to {until:?}", count + 1);
                }
            }
        }
    }
}
