//! `LEAST_REQUEST`: the least busy of a few random hosts; of connections, where those are what is in flight.
//!
//! Two choices are almost as good as all of them, without all of them being looked at (Mitzenmacher, "The Power of Two
//! Choices in Randomized Load Balancing", 2001). Up to [`SMALL`] hosts are all looked at. Where weights differ, each host
//! gets `weight / (in flight + 1) ^ bias` of the picks, as in Envoy.

use super::{LoadBalancer, Spec, View, Weights, any, below, draw, point};
use crate::config::LbPolicy;

/// So many hosts are all compared: it costs no more than to choose some.
const SMALL: usize = 8;
/// Hosts that are not usable and are passed over before all are looked at.
const PASSED_OVER: usize = 4;

/// Makes least-request balancers.
pub(super) struct Factory;

impl super::Factory for Factory {
    fn policy(&self) -> LbPolicy {
        LbPolicy::LeastRequest { choices: 2, bias: 100, full_scan: false }
    }

    fn make(&self, spec: &Spec<'_>) -> Box<dyn LoadBalancer> {
        let (choices, bias, full_scan) = match spec.policy {
            LbPolicy::LeastRequest { choices, bias, full_scan } => {
                (choices as usize, f64::from(bias) / 100.0, full_scan)
            }
            _ => (2, 1.0, false),
        };
        Box::new(LeastRequest { choices: choices.max(2), bias, full_scan })
    }
}

#[derive(Debug)]
struct LeastRequest {
    choices: usize,
    bias: f64,
    full_scan: bool,
}

impl LoadBalancer for LeastRequest {
    fn pick(&self, view: &dyn View) -> Option<usize> {
        if view.weights() != Weights::Even {
            return draw(view, point(view), |at| view.weight(at) / ((view.in_flight(at) + 1) as f64).powf(self.bias));
        }
        if self.full_scan || view.count() <= SMALL {
            return least(view);
        }
        let mut best = None;
        let mut compared = 0;
        for _try in 0..self.choices + PASSED_OVER {
            let at = below(view.random(), view.count())?;
            if !view.usable(at) || best.is_some_and(|(_, known)| known == at) {
                continue;
            }
            let load = view.in_flight(at);
            match best {
                Some((least, _)) if load >= least => view.came_second(at),
                better => {
                    better.into_iter().for_each(|(_, second)| view.came_second(second));
                    best = Some((load, at));
                }
            }
            compared += 1;
            if compared == self.choices {
                break;
            }
        }
        best.map(|(_, at)| at).or_else(|| any(view))
    }
}

/// The least busy of all; of equals any.
fn least(view: &dyn View) -> Option<usize> {
    let mut best: Option<(usize, usize)> = None;
    let mut equals = 0;
    for at in (0..view.count()).filter(|&at| view.usable(at)) {
        let load = view.in_flight(at);
        let is_less = best.is_none_or(|(least, _)| load < least);
        equals = if is_less { 1 } else { equals + usize::from(best.is_some_and(|(least, _)| load == least)) };
        // Each of the equals with the same chance, also beside hosts that are not usable (reservoir sampling).
        let is_chosen = is_less || (best.is_some_and(|(least, _)| load == least) && below(view.random(), equals)? == 0);
        match best {
            Some((_, second)) if is_chosen => view.came_second(second),
            Some(_) => view.came_second(at),
            None => {}
        }
        if is_chosen {
            best = Some((load, at));
        }
    }
    best.map(|(_, at)| at)
}
