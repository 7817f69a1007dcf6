//! `RANDOM`: any usable host, by weight.

use super::{LoadBalancer, Spec, View, any};
use crate::config::LbPolicy;

/// Makes balancers that pick at random.
pub(super) struct Factory;

impl super::Factory for Factory {
    fn policy(&self) -> LbPolicy {
        LbPolicy::Random
    }

    fn make(&self, _spec: &Spec<'_>) -> Box<dyn LoadBalancer> {
        Box::new(Random)
    }
}

#[derive(Debug)]
struct Random;

impl LoadBalancer for Random {
    fn pick(&self, view: &dyn View) -> Option<usize> {
        any(view)
    }
}
