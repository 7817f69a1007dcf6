//! Traces that are kept although they were not to be: for a while, whatever else belongs to them is kept, too.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::TraceId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long they are remembered.
const LIFETIME: Duration = Duration::from_secs(10);
/// Parts, each with a lock of its own.
const PARTS: usize = 64;
/// How many a part remembers, at most: the oldest are forgotten.
const MOST: usize = 64;

/// See the module. Shared by all workers; for a trace whose part is empty nobody takes a lock.
#[derive(Debug)]
pub(super) struct Marks([Part; PARTS]);

/// Aligned, so that workers do not take each other's lines.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Part {
    count: AtomicUsize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    traces: HashSet<TraceId>,
    by_age: VecDeque<(Instant, TraceId)>,
}

impl Default for Marks {
    fn default() -> Self {
        Self(std::array::from_fn(|_number| Part::default()))
    }
}

impl Marks {
    pub(super) fn add(&self, trace: TraceId, now: Instant) {
        let Some(part) = self.part(trace) else { return };
        let mut known = part.known.lock();
        known.forget(now, MOST - 1);
        if known.traces.insert(trace) {
            known.by_age.push_back((now, trace));
        }
        part.count.store(known.traces.len(), Ordering::Relaxed);
    }

    pub(super) fn has(&self, trace: TraceId, now: Instant) -> bool {
        let Some(part) = self.part(trace).filter(|part| part.count.load(Ordering::Relaxed) > 0) else { return false };
        let mut known = part.known.lock();
        known.forget(now, MOST);
        part.count.store(known.traces.len(), Ordering::Relaxed);
        known.traces.contains(&trace)
    }

    /// By all of the id: some tracers have zeros or a clock in a part of it.
    fn part(&self, trace: TraceId) -> Option<&Part> {
        let fold = trace.to_bytes().iter().fold(0_u8, |fold, byte| fold.rotate_left(3) ^ byte);
        self.0.get(usize::from(fold) % PARTS)
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
        let known = || marks.0.iter().map(|part| part.known.lock().traces.len()).sum::<usize>();
        for number in 1..=2 * (PARTS * MOST) as u128 {
            marks.add(trace(number), now);
        }
        assert!(!marks.has(trace(1), now) && marks.has(trace(2 * (PARTS * MOST) as u128), now));
        assert_eq!(known(), PARTS * MOST, "spread evenly");
        for number in 1..=PARTS as u128 {
            assert!(!marks.has(trace(number), now + LIFETIME));
        }
        assert_eq!(known(), 0);
    }

    #[test]
    fn what_is_marked_costs_other_traces_no_lock() {
        let (marks, now) = (Marks::default(), Instant::now());
        marks.add(TraceId::from(1), now);
        let held: Vec<_> = marks.0.iter().map(|part| part.known.lock()).collect();
        let free = (2..=64_u128).filter(|number| {
            let part = marks.part(TraceId::from(*number)).expect("a part");
            part.count.load(Ordering::Relaxed) == 0 && !marks.has(TraceId::from(*number), now)
        });
        assert_eq!(free.count(), 63, "all but the part of the one that is marked");
        drop(held);
    }
}
