//! The retry budget of a destination: retries are a share of what is asked of it, so that they cannot multiply a failure.
//!
//! A retry is allowed while those under way are fewer than a share of the requests that wait for their answer (Envoy's
//! `retry_budget`), or else by a bucket of a few per second (GEP-3388's `minRetryRate`), without which a destination
//! that is seldom called would have none. Shared by all workers; no lock.

use std::time::Duration;

use tokio::time::Instant;

use super::sync::{AtomicU32, AtomicU64, Ordering};
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
