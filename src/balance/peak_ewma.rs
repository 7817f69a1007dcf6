//! `PEAK_EWMA`: of two random hosts the one whose expected latency, times what is in flight there, is less.
//!
//! Finagle's "peak EWMA" with power of two choices, as Linkerd has it: see [`super::Ewma`] for the latency. A failure
//! counts as a long latency, so that a host that fails fast does not attract the traffic of all others.

use std::time::Duration;

use super::{LoadBalancer, Spec, View, Weights, any, below};
use crate::config::LbPolicy;

/// Makes peak-EWMA balancers.
pub(super) struct Factory;

impl super::Factory for Factory {
    fn policy(&self) -> LbPolicy {
        LbPolicy::PeakEwma {
            decay: Duration::from_secs(10),
            default_rtt: Duration::from_millis(30),
            penalty: Duration::from_secs(5),
        }
    }

    fn make(&self, spec: &Spec<'_>) -> Box<dyn LoadBalancer> {
        let total: u64 = spec.weights.iter().map(|weight| u64::from(*weight)).sum();
        Box::new(PeakEwma { mean_weight: total as f64 / spec.weights.len().max(1) as f64 })
    }
}

#[derive(Debug)]
struct PeakEwma {
    mean_weight: f64,
}

impl LoadBalancer for PeakEwma {
    fn pick(&self, view: &dyn View) -> Option<usize> {
        let one = any(view)?;
        let Some(other) = self.other(view, one) else { return Some(one) };
        let (first, second) = if self.cost(view, other) < self.cost(view, one) { (other, one) } else { (one, other) };
        view.came_second(second);
        Some(first)
    }
}

impl PeakEwma {
    /// A usable host beside `one`.
    fn other(&self, view: &dyn View, one: usize) -> Option<usize> {
        if view.weights() != Weights::Even {
            return any(view).filter(|&other| other != one);
        }
        // From a random place on, and never round to `one` itself.
        let count = view.count();
        let skip = below(view.random(), count.checked_sub(1)?)?;
        (0..count - 1).map(|step| (one + 1 + (skip + step) % (count - 1)) % count).find(|&at| view.usable(at))
    }

    /// A host of twice the weight holds twice as much.
    fn cost(&self, view: &dyn View, at: usize) -> f64 {
        let held = match view.weights() {
            Weights::Even => view.in_flight(at) as f64,
            Weights::Fixed | Weights::Moving => view.in_flight(at) as f64 * self.mean_weight / view.weight(at),
        };
        view.latency(at) * (held + 1.0)
    }
}
