//! Traces that are kept although they were not to be: for a while, whatever else belongs to them is kept, too.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::TraceId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long they are remembered.
const LIFETIME: Duration = Duration::from_secs(10);
/// How many, at most: the oldest are forgotten.
const MOST: usize = 4096;

/// See the module. Shared by all workers; without errors nobody takes the lock.
#[derive(Debug, Default)]
pub(super) struct Marks {
    count: AtomicUsize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    traces: HashSet<TraceId>,
    by_age: VecDeque<(Instant, TraceId)>,
}

impl Marks {
    pub(super) fn add(&self, trace: TraceId, now: Instant) {
        let mut known = self.known.lock();
        known.forget(now, MOST - 1);
        if known.traces.insert(trace) {
            known.by_age.push_back((now, trace));
        }
        self.count.store(known.traces.len(), Ordering::Relaxed);
    }

    pub(super) fn has(&self, trace: TraceId, now: Instant) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut known = self.known.lock();
        known.forget(now, MOST);
        self.count.store(known.traces.len(), Ordering::Relaxed);
        known.traces.contains(&trace)
    }
}

impl Known {
    fn forget(&mut self, now: Instant, most: usize) {
        while let Some(&(since, trace)) = self.by_age.front() {
            if self.by_age.len() <= most && now.saturating_duration_since(since) < LIFETIME {
                return;
            }
            self.by_age.pop_front();
            self.traces.remove(&trace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_bounded_in_time_and_number() {
        let (marks, now) = (Marks::default(), Instant::now());
        let trace = |number: u128| TraceId::from(number);
        for number in 1..=MOST as u128 + 1 {
            marks.add(trace(number), now);
        }
        assert!(!marks.has(trace(1), now) && marks.has(trace(2), now));
        assert_eq!(marks.known.lock().traces.len(), MOST);
        assert!(!marks.has(trace(2), now + LIFETIME));
        assert_eq!(marks.count.load(Ordering::Relaxed), 0);
    }
}
