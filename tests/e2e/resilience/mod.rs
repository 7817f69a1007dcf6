//! What a `TrafficPolicy` does, with real processes.

mod rate_limits;
