//! Sans-I/O cores of resilience, so that one failure does not become many: each decides from what it is told, time and
//! chance included, and does nothing itself.

pub mod breaker;
pub mod budget;
mod counter;
pub mod deadline;
pub mod health;
pub mod joined;
mod limit;
pub mod outlier;
pub mod retry;
pub mod shedding;

pub use budget::Budget;
pub use counter::{Counter, Entry};
pub use limit::{Full, Limit, Permit};

/// What `budget` and `counter` are built of; their model tests put loom's own in this place.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

#[cfg(test)]
mod budget_tests;
#[cfg(test)]
mod model;
