//! What a `TrafficPolicy` does, with real processes.

mod breaker;
mod limits;
