//! When something was last said on a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The time of the last frame either way. Clones are the same stream's.
#[derive(Clone, Debug)]
pub struct Activity {
    began: Instant,
    last: Arc<AtomicU64>,
}

impl Activity {
    /// Something is said now.
    pub fn begin(now: Instant) -> Self {
        Self { began: now, last: Arc::default() }
    }

    /// Something is said now.
    pub fn touch(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(millis, Ordering::Relaxed);
    }

    /// When that last was, to a millisecond.
    pub fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}
