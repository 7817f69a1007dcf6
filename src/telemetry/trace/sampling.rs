//! Whose spans are kept: what was decided before us, else chance, which the trace id holds already.

use std::time::Duration;

use opentelemetry::TraceId;

/// How it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Traces that begin with us: those of which this share is kept.
    pub share: Share,
    /// A request that takes this long is kept all the same. `None`: none is for that.
    pub slow: Option<Duration>,
    /// One that fails is.
    pub errors: bool,
}

/// A share of all traces, of which every hop says the same without being told (OpenTelemetry, "TraceState: Probability
/// Sampling": a trace is kept when the low 56 bits of its id reach a threshold).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    threshold: u64,
}

const RANDOM_BITS: u64 = 1 << 56;

impl Share {
    /// `share` is taken as between 0 and 1.
    pub fn new(share: f64) -> Self {
        // Exact: 56 bits of which a double keeps 53.
        Self { threshold: ((1.0 - share.clamp(0.0, 1.0)) * RANDOM_BITS as f64) as u64 }
    }

    /// Is this trace among them?
    pub fn includes(self, trace: TraceId) -> bool {
        let low = u128::from_be_bytes(trace.to_bytes()) as u64;
        low % RANDOM_BITS >= self.threshold
    }
}

impl Sampling {
    /// May a request be kept after its end?
    pub fn is_late(&self) -> bool {
        self.errors || self.slow.is_some()
    }
}
