//! The hosts of one priority as a balancer sees them, for one call.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::super::Host;
use super::{Level, Pick};
use crate::balance::{self, View, Weights};
use crate::config::{Balancing, LbPolicy};

/// One priority as a balancer sees it.
pub(super) struct Candidates<'a, N> {
    pub(super) level: &'a Level,
    pub(super) balancing: &'a Balancing,
    pub(super) may: &'a dyn Fn(&Host) -> bool,
    pub(super) call: &'a Pick<'a, N>,
    pub(super) time: OnceCell<Instant>,
    pub(super) second: Cell<Option<usize>>,
}

impl<N: Fn() -> Instant> Candidates<'_, N> {
    fn now(&self) -> Instant {
        *self.time.get_or_init(self.call.now)
    }

    fn host(&self, at: usize) -> Option<&Arc<Host>> {
        self.level.hosts.get(at)
    }

    /// Do hosts start slowly? The clock is not read any more once all have started.
    fn is_warming(&self) -> bool {
        let Some(warm_at) = self.level.warm_at.filter(|_| !self.level.is_warm.load(Ordering::Relaxed)) else {
            return false;
        };
        let is_warm = self.now() >= warm_at;
        self.level.is_warm.store(is_warm, Ordering::Relaxed);
        !is_warm
    }
}

impl<N: Fn() -> Instant> View for Candidates<'_, N> {
    fn count(&self) -> usize {
        self.level.hosts.len()
    }

    fn usable(&self, at: usize) -> bool {
        self.host(at).is_some_and(|host| (self.may)(host))
    }

    fn weights(&self) -> Weights {
        match self.is_warming() {
            true => Weights::Moving,
            false if self.level.is_even => Weights::Even,
            false => Weights::Fixed,
        }
    }

    fn weight(&self, at: usize) -> f64 {
        let weight = self.level.weights.get(at).copied().map_or(0.0, f64::from);
        let since = self.host(at).and_then(|host| host.since());
        match (self.balancing.slow_start, since) {
            (Some(slow), Some(since)) if self.is_warming() => {
                weight * balance::started(slow, self.now().saturating_duration_since(since))
            }
            _ => weight,
        }
    }

    fn in_flight(&self, at: usize) -> usize {
        self.host(at).map_or(0, |host| host.in_flight())
    }

    fn latency(&self, at: usize) -> f64 {
        let LbPolicy::PeakEwma { decay, default_rtt, .. } = self.balancing.policy else { return 0.0 };
        let known = self.host(at).and_then(|host| host.latency(self.now(), decay));
        // One that was never asked is asked at once; until it has answered it is thought of as usual.
        let untried = || if self.in_flight(at) == 0 { 0.0 } else { default_rtt.as_secs_f64() };
        known.unwrap_or_else(untried)
    }

    fn came_second(&self, at: usize) {
        self.second.set(Some(at));
    }

    fn hash(&self) -> Option<u64> {
        self.call.hash
    }

    fn random(&self) -> u64 {
        rand::random()
    }
}
