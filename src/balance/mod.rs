//! Picking a host: one file per algorithm, all behind [`LoadBalancer`].
//!
//! A balancer sees positions, not hosts: a [`View`] knows which of them are
//! usable right now, how busy they are and what they weigh. State is shared by all
//! workers, so that N of them balance as one. Time and randomness come from the view.
//! A new algorithm is one file and one line in [`LOAD_BALANCERS`].

mod ewma;
mod hash;
mod least_request;
mod maglev;
mod peak_ewma;
mod priority;
mod random;
mod ring_hash;
mod round_robin;
mod slow_start;
mod stride;

pub use ewma::Ewma;
pub use hash::xxh64;
pub use priority::{Level, choose as choose_priority};
pub use slow_start::started;

use crate::config::LbPolicy;

/// Chooses among the hosts of one priority.
pub trait LoadBalancer: Send + Sync + std::fmt::Debug {
    /// The position of a usable host, or `None` when there is none. Total: there may be no hosts at all.
    fn pick(&self, view: &dyn View) -> Option<usize>;
}

/// What a balancer may know of the hosts, and of the call that it picks for. Positions are below [`View::count`].
pub trait View {
    /// How many hosts there are: always as many as the balancer was made for.
    fn count(&self) -> usize;
    /// May it be picked?
    fn usable(&self, at: usize) -> bool;
    /// What is known of the weights as a whole.
    fn weights(&self) -> Weights;
    /// What it weighs now: as was told, and less while it starts slowly.
    fn weight(&self, at: usize) -> f64;
    /// Requests and connections in flight.
    fn in_flight(&self, at: usize) -> usize;
    /// Expected latency in seconds.
    fn latency(&self, at: usize) -> f64;
    /// This one was compared with the one that is picked, and came second. For explanations only.
    fn came_second(&self, _at: usize) {}
    /// Hash of the call, when it has one.
    fn hash(&self) -> Option<u64>;
    /// Uniform over all of `u64`, each time anew.
    fn random(&self) -> u64;
}

/// The weights of all hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// All the same.
    Even,
    /// As they were when the balancer was made.
    Fixed,
    /// Growing: some hosts start slowly.
    Moving,
}

/// What a balancer is made for.
#[derive(Clone, Copy)]
pub struct Spec<'a> {
    /// The algorithm with its settings.
    pub policy: LbPolicy,
    /// Weights as told, one for each host.
    pub weights: &'a [u32],
    /// The name of a host, by which it is hashed.
    pub name: &'a dyn Fn(usize) -> String,
    /// Spreads the first picks of many proxies.
    pub start: usize,
}

impl std::fmt::Debug for Spec<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spec").field("policy", &self.policy).field("weights", &self.weights).finish_non_exhaustive()
    }
}

/// Makes balancers of one kind.
pub trait Factory: Send + Sync {
    /// The kind with default settings.
    fn policy(&self) -> LbPolicy;
    /// A balancer with fresh state.
    fn make(&self, spec: &Spec<'_>) -> Box<dyn LoadBalancer>;
}

/// All algorithms.
pub static LOAD_BALANCERS: &[&dyn Factory] = &[
    &round_robin::Factory,
    &random::Factory,
    &least_request::Factory,
    &peak_ewma::Factory,
    &ring_hash::Factory,
    &maglev::Factory,
];

/// The balancer that `spec` asks for; round robin, which is first in the list, if there were none.
pub fn make(spec: &Spec<'_>) -> Box<dyn LoadBalancer> {
    let factory = LOAD_BALANCERS.iter().find(|factory| factory.policy().name() == spec.policy.name());
    factory.map_or_else(|| round_robin::Factory.make(spec), |factory| factory.make(spec))
}

/// The usable host on which `point`, from 0 to 1, falls when each has its `share` of that line. Linear.
fn draw(view: &dyn View, point: f64, share: impl Fn(usize) -> f64) -> Option<usize> {
    let usable = || (0..view.count()).filter(|&at| view.usable(at));
    let mut left = point * usable().map(&share).sum::<f64>();
    let mut last = None;
    for at in usable() {
        last = Some(at);
        left -= share(at);
        if left < 0.0 {
            break;
        }
    }
    last
}

/// A random point from 0 to 1.
fn point(view: &dyn View) -> f64 {
    fraction(view.random())
}

/// The fraction of `u64::MAX` that `number` is, below 1.
fn fraction(number: u64) -> f64 {
    // 53 bits are what an f64 holds.
    (number >> 11) as f64 / (1_u64 << 53) as f64
}

/// A usable host by weight, the number `random` deciding: what is left when nothing better is known.
fn any(view: &dyn View) -> Option<usize> {
    if view.weights() == Weights::Even {
        for _try in 0..4 {
            let at = below(view.random(), view.count())?;
            if view.usable(at) {
                return Some(at);
            }
        }
    }
    draw(view, point(view), |at| view.weight(at))
}

/// `random` brought below `count`; `None` when that is 0.
fn below(random: u64, count: usize) -> Option<usize> {
    let count = count as u64;
    (count > 0).then(|| ((u128::from(random) * u128::from(count)) >> 64) as usize)
}

#[cfg(test)]
mod test_view;
#[cfg(test)]
mod tests;
