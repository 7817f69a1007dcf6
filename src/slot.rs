//! `Slot<T>`: one owner publishes, everybody reads an immutable `Arc<T>`.
//!
//! The only way that configuration, certificates and host sets travel between
//! tasks. A reader loads once per request and keeps what it loaded; a writer
//! replaces the whole value. Nothing here ever blocks a reader.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

/// A value that is replaced whole and read without locks.
#[derive(Debug)]
pub struct Slot<T> {
    value: ArcSwap<T>,
    version: watch::Sender<u64>,
}

impl<T> Slot<T> {
    /// Makes a slot that holds `value` at version 0.
    pub fn new(value: T) -> Self {
        Self { value: ArcSwap::from_pointee(value), version: watch::Sender::new(0) }
    }

    /// Borrows the current value for a short time: cheaper than [`Self::load_full`], not to be held across an await.
    pub fn load(&self) -> Guard<Arc<T>> {
        self.value.load()
    }

    /// Takes a share of the current value that may be kept as long as wanted.
    pub fn load_full(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// Replaces the value, then wakes those who wait in [`Self::subscribe`].
    pub fn publish(&self, value: impl Into<Arc<T>>) {
        self.value.store(value.into());
        self.version.send_modify(|version| *version += 1);
    }

    /// How many times it was published.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// A receiver that changes with each [`Self::publish`]. Its number is the version, starting at 0.
    ///
    /// Subscribe before the first [`Self::load`], so that no change is missed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_subscriber_sees_each_published_value() {
        let slot = Slot::new(1);
        let mut changes = slot.subscribe();
        slot.publish(2);
        changes.changed().await.expect("slot is alive");
        assert_eq!(*slot.load_full(), 2);
        assert_eq!(*changes.borrow(), 1);
    }
}
