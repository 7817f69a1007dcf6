//! What a `TrafficPolicy` does, with real processes.

mod breaker;
mod fallback;
mod limits;
