//! A view for tests: hosts that are numbers in vectors.

use std::cell::Cell;

use super::{View, Weights};

/// Hosts of which all is known.
#[derive(Debug)]
pub(super) struct Hosts {
    pub(super) usable: Vec<bool>,
    pub(super) weights: Vec<u32>,
    pub(super) in_flight: Vec<usize>,
    pub(super) latency: Vec<f64>,
    pub(super) hash: Option<u64>,
    pub(super) is_moving: bool,
    state: Cell<u64>,
}

impl Hosts {
    /// Idle and usable hosts.
    pub(super) fn new(weights: &[u32]) -> Self {
        let count = weights.len();
        Self {
            usable: vec![true; count],
            weights: weights.to_vec(),
            in_flight: vec![0; count],
            latency: vec![0.03; count],
            hash: None,
            is_moving: false,
            state: Cell::new(1),
        }
    }
}

impl View for Hosts {
    fn count(&self) -> usize {
        self.usable.len()
    }

    fn usable(&self, at: usize) -> bool {
        self.usable[at]
    }

    fn weights(&self) -> Weights {
        match self.weights.iter().all(|weight| Some(weight) == self.weights.first()) {
            _ if self.is_moving => Weights::Moving,
            true => Weights::Even,
            false => Weights::Fixed,
        }
    }

    fn weight(&self, at: usize) -> f64 {
        self.weights[at].into()
    }

    fn in_flight(&self, at: usize) -> usize {
        self.in_flight[at]
    }

    fn latency(&self, at: usize) -> f64 {
        self.latency[at]
    }

    fn hash(&self) -> Option<u64> {
        self.hash
    }

    /// SplitMix64 (Steele et al., 2014).
    fn random(&self) -> u64 {
        self.state.set(self.state.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mixed = self.state.get();
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
