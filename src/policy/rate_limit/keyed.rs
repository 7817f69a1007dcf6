//! A bounded number of states by key. Of too many the one goes that was not used for longest, or nearly so (second
//! chance, the CLOCK algorithm of page replacement).

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

/// Locks that share the keys, so that workers seldom meet.
const SHARDS: usize = 16;

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
        let shards = SHARDS.min(most.max(1));
        let shard = || Shard { most: most.div_ceil(shards).max(1), entries: HashMap::new(), order: VecDeque::new() };
        Self { hasher: RandomState::new(), shards: (0..shards).map(|_| Mutex::new(shard())).collect() }
    }

    /// What `act` says of the state of `key`, which is `new` when there is none.
    pub(super) fn with<R>(&self, key: &str, new: impl Fn() -> T, act: impl FnOnce(&mut T) -> R) -> R {
        let hash = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or_default();
        let shard = self.shards.get(hash % self.shards.len().max(1));
        match shard {
            Some(shard) => shard.lock().with(key, new, act),
            None => act(&mut new()), // There is always one.
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().entries.len()).sum()
    }
}

impl<T> Shard<T> {
    fn with<R>(&mut self, key: &str, new: impl Fn() -> T, act: impl FnOnce(&mut T) -> R) -> R {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.used = true;
            return act(&mut entry.value);
        }
        if self.entries.len() >= self.most {
            self.evict();
        }
        let mut value = new();
        let result = act(&mut value);
        let key: Arc<str> = Arc::from(key);
        self.order.push_back(Arc::clone(&key));
        self.entries.insert(key, Entry { value, used: false });
        result
    }

    fn evict(&mut self) {
        // After a full round all flags are down.
        for _ in 0..=self.order.len() {
            let Some(oldest) = self.order.pop_front() else { return };
            match self.entries.get_mut(&oldest) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.order.push_back(oldest);
                }
                _ => {
                    self.entries.remove(&oldest);
                    return;
                }
            }
        }
    }
}
