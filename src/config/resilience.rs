//! What protects a destination from its callers, and callers from its endpoints.

use pillion_wire::resilience::{Breaker, Limits, Outlier};

/// The parts of a cluster that need counting; each is off when it is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resilience {
    /// How much may be under way.
    pub limits: Option<Limits>,
    /// When an endpoint is left alone for what it did.
    pub breaker: Option<Breaker>,
    /// When an endpoint is left alone for doing worse than the others.
    pub outlier: Option<Outlier>,
}

impl Resilience {
    /// Does anything depend on how requests end?
    pub fn judges(&self) -> bool {
        self.breaker.is_some() || self.outlier.is_some()
    }

    /// Endpoints that stay in use whatever they do: the larger of the two floors.
    pub fn keep(&self) -> u32 {
        let floors =
            [self.breaker.as_ref().map(|breaker| breaker.keep), self.outlier.as_ref().map(|outlier| outlier.keep)];
        floors.into_iter().flatten().max().unwrap_or(1)
    }
}
