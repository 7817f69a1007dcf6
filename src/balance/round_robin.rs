//! `ROUND_ROBIN`: each usable host in turn, as often as its weight says, and never in bursts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::stride::Stride;
use super::{LoadBalancer, Spec, View, Weights, draw, fraction};
use crate::config::LbPolicy;

/// Makes round-robin balancers.
pub(super) struct Factory;

impl super::Factory for Factory {
    fn policy(&self) -> LbPolicy {
        LbPolicy::RoundRobin
    }

    fn make(&self, spec: &Spec<'_>) -> Box<dyn LoadBalancer> {
        Box::new(RoundRobin { next: AtomicU64::new(spec.start as u64), stride: Stride::new(spec.weights) })
    }
}

#[derive(Debug)]
struct RoundRobin {
    next: AtomicU64,
    stride: Stride,
}

/// 2^64 divided by the golden ratio: multiples of it are spread over the whole of `u64` as evenly as can be.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl LoadBalancer for RoundRobin {
    fn pick(&self, view: &dyn View) -> Option<usize> {
        let weights = view.weights();
        let found = match weights {
            Weights::Even => self.next_of(view, view.count(), |turn| Stride::even(view.count(), turn)),
            Weights::Fixed => self.next_of(view, 2 * view.count(), |turn| self.stride.at(turn)),
            Weights::Moving => None,
        };
        // A host of great weight is down, or other workers took the turns in between.
        found.or_else(|| {
            // Whole rounds were taken above, so that whoever asks again with less demands goes on where it was: one turn more
            // each time, and every other host would always be passed over.
            let turn = match weights {
                Weights::Moving => self.next.fetch_add(1, Ordering::Relaxed),
                Weights::Even | Weights::Fixed => self.next.load(Ordering::Relaxed),
            };
            draw(view, fraction(turn.wrapping_mul(GOLDEN)), |at| view.weight(at))
        })
    }
}

impl RoundRobin {
    /// Takes at most so many turns. Each is taken by one worker only, so that the order holds for all of them together.
    fn next_of(&self, view: &dyn View, turns: usize, host: impl Fn(u64) -> Option<usize>) -> Option<usize> {
        let next = || self.next.fetch_add(1, Ordering::Relaxed);
        (0..turns).filter_map(|_| host(next())).find(|&at| view.usable(at))
    }
}
