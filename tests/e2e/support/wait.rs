//! Waiting for something to become true, with a deadline that fails the test by name.
//!
//! The only pause is the one between two looks; nothing waits "long enough".

use std::thread;
use std::time::Duration;

use tokio::time::Instant;

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Looks until `look` returns a value.
///
/// # Panics
/// When nothing came within `deadline`.
pub fn eventually<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// Looks until `condition` is true, for at most half a minute.
///
/// # Panics
/// When it did not become true.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, Duration::from_secs(30), || condition().then_some(()));
}
