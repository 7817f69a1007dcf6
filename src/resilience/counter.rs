//! Places that are taken and given back by many threads, and a queue of bounded length for them.
//!
//! One atomic word holds both counts, so that no thread ever sees one without the other: a place is never given out
//! twice, and whoever gives one back always learns whether somebody waits. The limits are arguments: they may change
//! while places are taken.

use super::sync::{AtomicU64, Ordering};

/// How many places are taken, and how many wait for one.
#[derive(Debug)]
pub struct Counter(AtomicU64);

/// What became of somebody who wants a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Has one: to be given back by [`Counter::give_back`].
    Taken,
    /// Waits: [`Counter::take_waiting`] when woken, [`Counter::leave`] to give up.
    Waits,
    /// There is no place, and none to wait in either.
    Full,
}

/// One who waits, in the upper half of the word.
const WAITING: u64 = 1 << 32;
/// The lower half: places that are taken.
const TAKEN: u64 = WAITING - 1;

impl Counter {
    /// All places free.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes one of `limit` places if one is free and nobody waits; else waits in a queue of at most `pending`.
    pub fn enter(&self, limit: u32, pending: u32) -> Entry {
        let mut entry = Entry::Full;
        // The closure decides anew each time that another thread was faster.
        let _full = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            let (taken, waiting) = (state & TAKEN, state / WAITING);
            let (outcome, next) = if taken < u64::from(limit) && waiting == 0 {
                (Entry::Taken, Some(state + 1))
            } else if waiting < u64::from(pending) {
                (Entry::Waits, Some(state + WAITING))
            } else {
                (Entry::Full, None)
            };
            entry = outcome;
            next
        });
        entry
    }

    /// One who waits takes a place. False: none is free.
    pub fn take_waiting(&self, limit: u32) -> bool {
        let take = |state| (state & TAKEN < u64::from(limit)).then(|| state + 1 - WAITING);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// One who waits gives up.
    pub fn leave(&self) {
        self.0.fetch_sub(WAITING, Ordering::AcqRel);
    }

    /// Gives a place back. True: somebody waits, and has to be woken.
    pub fn give_back(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) >= WAITING
    }

    /// Places that are taken, and how many wait.
    pub fn now(&self) -> (u32, u32) {
        let state = self.0.load(Ordering::Acquire);
        let half = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        (half(state & TAKEN), half(state / WAITING))
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}
