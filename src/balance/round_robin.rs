//! `ROUND_ROBIN`: each usable host in turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::LoadBalancer;

/// Makes round-robin balancers.
pub(super) struct Factory;

impl super::Factory for Factory {
    fn name(&self) -> &'static str {
        "ROUND_ROBIN"
    }

    fn make(&self, start: usize) -> Box<dyn LoadBalancer> {
        Box::new(RoundRobin { next: AtomicUsize::new(start) })
    }
}

#[derive(Debug)]
struct RoundRobin {
    next: AtomicUsize,
}

impl LoadBalancer for RoundRobin {
    fn pick(&self, count: usize, usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        if count == 0 {
            return None;
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        (0..count).map(|step| first.wrapping_add(step) % count).find(|&at| usable(at))
    }
}
