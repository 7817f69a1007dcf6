//! One run at a time in a network namespace: two that replace each other's rules may leave none at all.

use std::fs::{File, TryLockError};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

/// Longest wait for another run. It is not for ever, since any process of the namespace could hold the lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// Our turn, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _locked: Option<File>,
}

impl Turn {
    /// Waits for other runs in this namespace, by a lock on the namespace itself, which `/run` need not be writable for.
    /// `None` in it: it was not to be had, and we go on as if we were alone.
    pub(super) fn take() -> Self {
        let start = Instant::now();
        let namespace = File::open("/proc/self/ns/net").ok();
        while let Some(Err(TryLockError::WouldBlock)) = namespace.as_ref().map(File::try_lock) {
            if start.elapsed() >= PATIENCE {
                return Self { _locked: None };
            }
            thread::sleep(Duration::from_millis(20));
        }
        Self { _locked: namespace }
    }
}
