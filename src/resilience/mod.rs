//! Sans-I/O cores of resilience: each decides from what it is told, the time included, and does nothing itself.

pub mod breaker;
mod counter;
mod limit;
pub mod outlier;

pub use counter::{Counter, Entry};
pub use limit::{Full, Limit, Permit};

/// What `counter` is built of; its model test puts loom's own in this place.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
}

#[cfg(test)]
mod model;
