//! What requests and connections are counted in.
//!
//! Each worker counts for itself, in plain numbers behind a lock that only the collector takes besides; what was counted
//! lately is found by where its labels lie in memory, since labels are shared and a request of a known kind comes with
//! the very same ones. The collector takes what workers have counted since it last did, and adds it up by label.
//!
//! Bounds: a worker keeps [`RECENT`] + [`SPILLED`] counts, while they cannot be added up at once [`MOST_SPILLED`]; all together keep as many label sets per table as
//! `--metrics-max-series` says, and what is beyond goes to those called `other`; a label set without a count for
//! `--metrics-idle` is forgotten.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::count::{Attempt, AttemptKey, RequestKey, Requests, StepKey, Steps};
use super::table::{Bounded, Table, Tally};

/// Counts of one kind that a worker finds at once; a power of two.
pub(in crate::telemetry) const RECENT: usize = 64;
/// Counts that were displaced by others, until they are added up.
const SPILLED: usize = 256;
/// The same, when those cannot be added up without waiting.
const MOST_SPILLED: usize = 8 * SPILLED;

/// What all workers have counted.
#[derive(Debug)]
pub(super) struct Traffic {
    locals: Mutex<Vec<Arc<Mutex<Local>>>>,
    tables: Mutex<Tables>,
}

/// What all workers have counted, as of the last [`Traffic::collect`].
#[derive(Clone, Debug)]
pub(super) struct Tables {
    pub(super) requests: Table<RequestKey, Requests>,
    pub(super) steps: Table<StepKey, Steps>,
    pub(super) attempts: Table<AttemptKey, Attempt>,
}

/// What one worker has counted since the last [`Traffic::collect`].
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Local {
    pub(in crate::telemetry) requests: Recent<RequestKey, Requests>,
    pub(in crate::telemetry) steps: Recent<StepKey, Steps>,
    pub(in crate::telemetry) attempts: Recent<AttemptKey, Attempt>,
}

impl Traffic {
    /// Keeps `most` label sets of each kind, each for as long as something is counted at least every `idle`.
    pub(super) fn new(most: usize, idle: Duration) -> Self {
        let tables = Tables {
            requests: Table::new(most, idle),
            steps: Table::new(most, idle),
            attempts: Table::new(most, idle),
        };
        Self { locals: Mutex::default(), tables: Mutex::new(tables) }
    }

    /// For one more worker.
    pub(super) fn local(&self) -> Arc<Mutex<Local>> {
        let local = Arc::default();
        self.locals.lock().push(Arc::clone(&local));
        local
    }

    /// Adds up what has been counted since the last time, and forgets what is idle.
    pub(super) fn collect(&self, now: Instant) {
        // Held to the end, so that whoever reads next finds what is taken here.
        let locals = self.locals.lock();
        for local in locals.iter() {
            // Adding up is done without the worker's lock: who holds that may want the tables' lock besides.
            let taken = std::mem::take(&mut *local.lock());
            self.tables.lock().add(taken, now);
        }
        let mut tables = self.tables.lock();
        tables.requests.expire(now);
        tables.steps.expire(now);
        tables.attempts.expire(now);
    }

    /// A worker that has too much in hand adds it up itself. While somebody else adds up or reads it goes on; only with
    /// far too much it waits.
    pub(super) fn relieve(&self, local: &mut Local, now: Instant) {
        let spilled = local.spilled();
        if spilled < SPILLED {
            return;
        }
        let tables = if spilled < MOST_SPILLED { self.tables.try_lock() } else { Some(self.tables.lock()) };
        if let Some(mut tables) = tables {
            tables.add(std::mem::take(local), now);
        }
    }

    /// What all workers have counted, as of the last [`Traffic::collect`]: a copy, so that none waits while it is told.
    pub(super) fn tables(&self) -> Tables {
        self.tables.lock().clone()
    }
}

impl Local {
    fn spilled(&self) -> usize {
        self.requests.spilled.len().max(self.steps.spilled.len()).max(self.attempts.spilled.len())
    }
}

impl Tables {
    fn add(&mut self, local: Local, now: Instant) {
        local.requests.add_to(&mut self.requests, now);
        local.steps.add_to(&mut self.steps, now);
        local.attempts.add_to(&mut self.attempts, now);
    }
}

/// Counts by labels, found by where those lie.
#[derive(Debug)]
pub(in crate::telemetry) struct Recent<K, V> {
    slots: Vec<Option<Box<(K, V)>>>,
    spilled: Vec<Box<(K, V)>>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { slots: Vec::new(), spilled: Vec::new() }
    }
}

impl<K: Bounded + Clone + Eq + Hash, V: Tally> Recent<K, V> {
    /// The count at `place` (any number, made of where labels lie), which is a new one unless `is_same` knows its labels.
    pub(in crate::telemetry) fn get(
        &mut self,
        place: u64,
        is_same: impl Fn(&K) -> bool,
        make: impl FnOnce() -> K,
    ) -> Option<&mut V> {
        if self.slots.is_empty() {
            self.slots.resize_with(RECENT, || None);
        }
        let is_at = |slots: &[Option<Box<(K, V)>>], place: usize| {
            slots.get(place).and_then(Option::as_ref).is_some_and(|kept| is_same(&kept.0))
        };
        let [first, second] = places(place);
        let found = if is_at(&self.slots, first) {
            first
        } else if is_at(&self.slots, second) {
            second
        } else {
            // The earlier one moves on, in the place of one that is not used lately.
            let slot = self.slots.get_mut(first)?;
            let earlier = slot.replace(Box::new((make(), V::default())));
            if let Some(earlier) = earlier
                && let Some(displaced) = self.slots.get_mut(second)?.replace(earlier)
            {
                self.spilled.push(displaced);
            }
            first
        };
        self.slots.get_mut(found)?.as_mut().map(|kept| &mut kept.1)
    }

    fn add_to(self, table: &mut Table<K, V>, now: Instant) {
        for kept in self.slots.into_iter().flatten().chain(self.spilled) {
            let (key, counted) = *kept;
            table.add(key, &counted, now);
        }
    }
}

/// Where texts lie and what else tells counts apart, as one number: FNV-1a by words, then mixed once more, since a bit of
/// the last words reaches few others in it. The top bits depend on all.
pub(in crate::telemetry) fn place(parts: impl IntoIterator<Item = u64>) -> u64 {
    let step = |hash: u64, part: u64| (hash ^ part).wrapping_mul(0x0100_0000_01b3);
    let hash = parts.into_iter().fold(0xcbf2_9ce4_8422_2325, step);
    (hash ^ hash >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The two of [`RECENT`] slots where something with this number may be, so that two kinds in turn do not displace each other.
pub(in crate::telemetry) fn places(place: u64) -> [usize; 2] {
    let first = (place >> (u64::BITS - RECENT.ilog2())) as usize;
    [first, first ^ 1]
}

/// Where a text lies.
pub(in crate::telemetry) fn at(text: &Arc<str>) -> u64 {
    Arc::as_ptr(text).addr() as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn small_differences_spread() {
        let texts: [Arc<str>; 4] = ["shop:80", "shop", "route", ""].map(Arc::from);
        for position in 0..7 {
            for distance in [1, 8, 16, 32, 64, 4096] {
                let slots: HashSet<usize> = (0..32)
                    .map(|number| {
                        let mut parts = [at(&texts[0]), at(&texts[1]), at(&texts[2]), at(&texts[3]), 200, 0, 7];
                        parts[position] += number * distance;
                        places(place(parts))[0]
                    })
                    .collect();
                assert!(slots.len() >= 16, "{position} {distance}: {}", slots.len());
            }
        }
    }

    #[test]
    fn a_worker_does_not_wait_for_a_reader_until_it_has_far_too_much() {
        let traffic = Traffic::new(10, Duration::from_secs(1));
        let mut local = Local::default();
        let reader = traffic.tables.lock();
        let key = |number: usize| StepKey { direction: "outbound", route: Arc::from(number.to_string()) };
        for number in 0..MOST_SPILLED {
            local.steps.get(0, |_| false, || key(number));
            traffic.relieve(&mut local, Instant::now()); // Would wait for ever.
        }
        assert_eq!(local.spilled(), MOST_SPILLED - 2);
        drop(reader);
        traffic.relieve(&mut local, Instant::now());
        assert_eq!((local.spilled(), traffic.tables().steps.overflowed), (0, MOST_SPILLED as u64 - 10));
    }

    #[test]
    fn two_in_one_place_do_not_displace_each_other() {
        let mut recent: Recent<u32, u64> = Recent::default();
        for round in 0..100 {
            for key in [1, 2] {
                *recent.get(7, |kept| *kept == key, || key).expect("a slot") += round;
            }
        }
        assert!(recent.spilled.is_empty());
        let mut table = Table::new(10, Duration::from_secs(1));
        recent.add_to(&mut table, Instant::now());
        let mut all: Vec<_> = table.iter().map(|(key, count)| (*key, *count)).collect();
        all.sort_unstable();
        assert_eq!(all, [(1, 4950), (2, 4950)]);
    }
}
