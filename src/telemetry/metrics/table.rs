//! Counts by label set: so many at most, and only those that are used.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::count::OTHER;

/// Labels of which there may be too many.
pub(in crate::telemetry) trait Bounded {
    /// What they become then: of these there are few.
    fn other(&self) -> Self;
}

/// Something that adds up.
pub(in crate::telemetry) trait Tally: Default {
    /// Adds what was counted elsewhere.
    fn add(&mut self, other: &Self);
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Table<K, V> {
    entries: HashMap<K, (V, Instant)>,
    most: usize,
    idle: Duration,
    /// Times that something was counted as `other`.
    pub(super) overflowed: u64,
    /// Label sets that were forgotten.
    pub(super) expired: u64,
}

impl<K: Bounded + Eq + Hash, V: Tally> Table<K, V> {
    pub(super) fn new(most: usize, idle: Duration) -> Self {
        Self { entries: HashMap::new(), most, idle, overflowed: 0, expired: 0 }
    }

    pub(super) fn add(&mut self, key: K, counted: &V, now: Instant) {
        if let Some((total, used)) = self.entries.get_mut(&key) {
            total.add(counted);
            *used = now;
            return;
        }
        let key = if self.entries.len() < self.most {
            key
        } else {
            self.overflowed += 1;
            key.other()
        };
        let (total, used) = self.entries.entry(key).or_insert_with(|| (V::default(), now));
        total.add(counted);
        *used = now;
    }

    /// A label set that comes back starts anew, as if the sidecar had.
    pub(super) fn expire(&mut self, now: Instant) {
        let before = self.entries.len();
        self.entries.retain(|_, (_, used)| now.saturating_duration_since(*used) < self.idle);
        self.expired += (before - self.entries.len()) as u64;
        self.entries.shrink_to(self.entries.len() * 2);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (total, _))| (key, total))
    }
}

/// Names of clusters that are labels of what is counted rarely: the first so many since the start; all others are `other`.
#[derive(Debug)]
pub(in crate::telemetry) struct Names {
    known: Mutex<HashSet<Arc<str>>>,
    most: usize,
}

impl Default for Names {
    fn default() -> Self {
        Self::new(2000)
    }
}

impl Names {
    pub(super) fn new(most: usize) -> Self {
        Self { known: Mutex::default(), most }
    }

    /// The name, or what stands for it.
    pub(in crate::telemetry) fn known(&self, name: &Arc<str>) -> Arc<str> {
        let mut known = self.known.lock();
        if let Some(name) = known.get(name) {
            return Arc::clone(name);
        }
        if known.len() >= self.most {
            return Arc::from(OTHER);
        }
        known.insert(Arc::clone(name));
        Arc::clone(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Bounded for u32 {
        fn other(&self) -> Self {
            0
        }
    }

    impl Tally for u64 {
        fn add(&mut self, other: &Self) {
            *self += other;
        }
    }

    #[test]
    fn what_is_too_much_is_counted_as_other_and_what_is_idle_is_forgotten() {
        let start = Instant::now();
        let mut table: Table<u32, u64> = Table::new(2, Duration::from_secs(10));
        for key in 1..=1000 {
            table.add(key, &1, start);
        }
        let mut all: Vec<_> = table.iter().map(|(key, total)| (*key, *total)).collect();
        all.sort_unstable();
        assert_eq!((all, table.overflowed), (vec![(0, 998), (1, 1), (2, 1)], 998));
        table.add(2, &5, start + Duration::from_secs(8));
        table.expire(start + Duration::from_secs(12));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(&2, &6)]);
        assert_eq!(table.expired, 2);
        table.add(1, &1, start + Duration::from_secs(13));
        assert_eq!((table.len(), table.overflowed), (2, 998));
    }
}
