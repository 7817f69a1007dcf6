//! Requests of traces that are not kept, for as long as they may be after all. Bounded by number, bytes and age.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use opentelemetry::TraceId;
use tokio::time::Instant;

use super::story::Finished;

/// How long a request is held.
const LIFETIME: Duration = Duration::from_secs(10);
/// Requests that one worker holds.
const MOST: usize = 4096;
/// Bytes that one worker holds.
const MOST_BYTES: usize = 2 << 20;

/// One worker's.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Ring {
    /// In the order in which they ended; those that were taken leave a gap.
    held: VecDeque<Option<Held>>,
    /// The number of the first of them.
    first: u64,
    /// The last request of each trace.
    last: HashMap<TraceId, u64>,
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    since: Instant,
    bytes: usize,
    /// The request before of the same trace.
    before: Option<u64>,
    finished: Box<Finished>,
}

impl Ring {
    /// Holds one more. Returns how many others nobody will ask for any more.
    pub(super) fn hold(&mut self, finished: Box<Finished>, now: Instant) -> u64 {
        let bytes = finished.size();
        let mut given_up = 0;
        while let Some(oldest) = self.held.front() {
            let is_over = oldest.as_ref().is_none_or(|held| now.saturating_duration_since(held.since) >= LIFETIME);
            if !is_over && self.held.len() < MOST && self.bytes + bytes <= MOST_BYTES {
                break;
            }
            given_up += u64::from(self.drop_oldest());
        }
        let number = self.first + self.held.len() as u64;
        let before = self.last.insert(finished.context.trace_id, number);
        self.bytes += bytes;
        self.held.push_back(Some(Held { since: now, bytes, before, finished }));
        given_up
    }

    /// All that is held of a trace, the last one first.
    #[expect(clippy::vec_box, reason = "they are passed on as they are")]
    pub(super) fn take(&mut self, trace: TraceId) -> Vec<Box<Finished>> {
        let mut taken = Vec::new();
        let mut next = self.last.remove(&trace);
        while let Some(number) = next {
            let place = number.checked_sub(self.first).and_then(|at| self.held.get_mut(usize::try_from(at).ok()?));
            let Some(held) = place.and_then(Option::take) else { break };
            self.bytes -= held.bytes;
            next = held.before;
            taken.push(held.finished);
        }
        taken
    }

    /// Was there one?
    fn drop_oldest(&mut self) -> bool {
        let number = self.first;
        let Some(oldest) = self.held.pop_front() else { return false };
        self.first += 1;
        let Some(held) = oldest else { return false };
        self.bytes -= held.bytes;
        let trace = held.finished.context.trace_id;
        if self.last.get(&trace) == Some(&number) {
            self.last.remove(&trace);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::finished;
    use super::*;

    #[test]
    fn a_trace_is_found_and_the_ring_is_bounded() {
        let (mut ring, now) = (Ring::default(), Instant::now());
        for number in 1..=3 {
            assert_eq!(ring.hold(finished(7, number), now), 0);
            assert_eq!(ring.hold(finished(8, number), now), 0);
        }
        assert_eq!(ring.take(TraceId::from(7)).len(), 3);
        assert!(ring.take(TraceId::from(7)).is_empty());
        let late = now + LIFETIME;
        assert_eq!(ring.hold(finished(9, 1), late), 3, "those of the trace that nobody took");
        assert!(ring.take(TraceId::from(8)).is_empty());
        for number in 0..3 * MOST as u128 {
            ring.hold(finished(100 + number, 1), late);
            assert!(ring.held.len() <= MOST && ring.bytes <= MOST_BYTES && ring.last.len() <= MOST);
        }
        assert_eq!(ring.take(TraceId::from(100 + 3 * MOST as u128 - 1)).len(), 1);
    }
}
