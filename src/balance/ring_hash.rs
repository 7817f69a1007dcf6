//! `RING_HASH`: hosts and calls on a ring; a call goes to the next host (Karger et al., 1997; Envoy, gRFC A42).
//!
//! A host that comes or goes moves the calls that fall on its places, and few others: the number of places that each of
//! the others has is rounded anew. The places are those of Envoy and gRPC: XXH64 of
//! `address_number`, so that a Service has the same ring for all of its callers.

use super::{LoadBalancer, Spec, View, any, xxh64};
use crate::config::LbPolicy;

/// Makes ring-hash balancers.
pub(super) struct Factory;

impl super::Factory for Factory {
    fn policy(&self) -> LbPolicy {
        LbPolicy::RingHash { minimum: 1024, maximum: 8 << 20 }
    }

    fn make(&self, spec: &Spec<'_>) -> Box<dyn LoadBalancer> {
        let (minimum, maximum) = match spec.policy {
            LbPolicy::RingHash { minimum, maximum } => (minimum, maximum),
            _ => (1024, 8 << 20),
        };
        Box::new(RingHash { ring: ring(spec, f64::from(minimum), f64::from(maximum)) })
    }
}

struct RingHash {
    /// Places in order, each with the host that stands there.
    ring: Vec<(u64, u32)>,
}

impl std::fmt::Debug for RingHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingHash").field("places", &self.ring.len()).finish()
    }
}

impl LoadBalancer for RingHash {
    /// The host at or after the call's place; when it is not usable, the next that is.
    fn pick(&self, view: &dyn View) -> Option<usize> {
        let Some(hash) = view.hash() else { return any(view) };
        let start = self.ring.partition_point(|(place, _)| *place < hash);
        let (before, after) = self.ring.split_at_checked(start)?;
        after.iter().chain(before).map(|(_, at)| *at as usize).find(|&at| view.usable(at))
    }
}

/// Each host has places by its weight, so many that the lightest has a whole number and there are `minimum` of them.
fn ring(spec: &Spec<'_>, minimum: f64, maximum: f64) -> Vec<(u64, u32)> {
    let total: f64 = spec.weights.iter().map(|weight| f64::from(*weight)).sum();
    let Some(lightest) = spec.weights.iter().min().map(|weight| f64::from(*weight) / total) else { return Vec::new() };
    let scale = ((lightest * minimum).ceil() / lightest).min(maximum);
    let mut ring = Vec::with_capacity(scale.ceil() as usize);
    let (mut placed, mut target) = (0.0, 0.0);
    for (at, weight) in (0_u32..).zip(spec.weights) {
        let name = (spec.name)(at as usize);
        target += scale * f64::from(*weight) / total;
        let mut number = 0;
        while placed < target {
            ring.push((xxh64(format!("{name}_{number}").as_bytes(), 0), at));
            number += 1;
            placed += 1.0;
        }
    }
    ring.sort_unstable();
    ring
}
