//! How many of something there are at a time, with a limit that whoever enters brings along.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts turns. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Active(Arc<AtomicU32>);

/// One of those that are counted, until it is dropped.
#[derive(Debug)]
pub struct Turn(Active);

impl Active {
    /// A turn, unless `limit` are taken.
    pub fn enter(&self, limit: u32) -> Option<Turn> {
        let more = |taken: u32| (taken < limit).then_some(taken + 1);
        // Nothing but the number itself is told to others by it.
        let entered = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.is_ok().then(|| Turn(self.clone()))
    }

    /// How many turns are taken.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_when_threads_race() {
        let active = Active::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let turn = active.enter(3);
                        assert!(active.count() <= 3);
                        drop(turn);
                    }
                });
            }
        });
        assert_eq!(active.count(), 0);
        assert!(active.enter(0).is_none());
    }
}
