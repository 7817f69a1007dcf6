//! A bounded number of states by key. Of too many the one goes that was not used for longest, or nearly so (second
//! chance, the CLOCK algorithm of page replacement).

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

/// Locks that share the keys, so that workers seldom meet.
const SHARDS: usize = 16;
/// Fewer keys than this are not shared out: by chance some lock would have more of them than room.
const KEYS_OF_A_SHARD: usize = 64;

#[derive(Debug)]
pub(super) struct Keyed<T> {
    hasher: RandomState,
    shards: Vec<Mutex<Shard<T>>>,
}

#[derive(Debug)]
struct Shard<T> {
    most: usize,
    entries: HashMap<Arc<str>, Entry<T>>,
    /// In the order in which they came, or were last spared.
    order: VecDeque<Arc<str>>,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    used: bool,
}

impl<T> Keyed<T> {
    /// Room for `most` keys, about evenly spread.
    pub(super) fn new(most: usize) -> Self {
        let shards = (most / KEYS_OF_A_SHARD).clamp(1, SHARDS);
        let shard = || Shard { most: most.div_ceil(shards).max(1), entries: HashMap::new(), order: VecDeque::new() };
        Self { hasher: RandomState::new(), shards: (0..shards).map(|_| Mutex::new(shard())).collect() }
    }

    /// What `act` says of the state of `key`, which is `new` when there is none. `None`: there is no room, and none that
    /// `may_go`.
    pub(super) fn with<R>(
        &self,
        key: &str,
        new: impl Fn() -> T,
        may_go: impl Fn(&T) -> bool,
        act: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        self.shard(key)?.lock().with(key, new, may_go, act)
    }

    /// Does something to the state of `key`, if there is one.
    pub(super) fn with_known(&self, key: &str, act: impl FnOnce(&mut T)) {
        if let Some(shard) = self.shard(key)
            && let Some(entry) = shard.lock().entries.get_mut(key)
        {
            act(&mut entry.value);
        }
    }

    fn shard(&self, key: &str) -> Option<&Mutex<Shard<T>>> {
        let hash = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or_default();
        self.shards.get(hash % self.shards.len().max(1))
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().entries.len()).sum()
    }
}

impl<T> Shard<T> {
    fn with<R>(
        &mut self,
        key: &str,
        new: impl Fn() -> T,
        may_go: impl Fn(&T) -> bool,
        act: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.used = true;
            return Some(act(&mut entry.value));
        }
        if self.entries.len() >= self.most && !self.evict(may_go) {
            return None;
        }
        let mut value = new();
        let result = act(&mut value);
        let key: Arc<str> = Arc::from(key);
        self.order.push_back(Arc::clone(&key));
        self.entries.insert(key, Entry { value, used: false });
        Some(result)
    }

    /// Forgets one that `may_go`; false when there is none.
    fn evict(&mut self, may_go: impl Fn(&T) -> bool) -> bool {
        // After a full round all flags are down, after two all were asked.
        for _ in 0..2 * self.order.len() {
            let Some(oldest) = self.order.pop_front() else { return false };
            match self.entries.get_mut(&oldest) {
                Some(entry) if entry.used || !may_go(&entry.value) => {
                    entry.used = false;
                    self.order.push_back(oldest);
                }
                _ => {
                    self.entries.remove(&oldest);
                    return true;
                }
            }
        }
        false
    }
}
