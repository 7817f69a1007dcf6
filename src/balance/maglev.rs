//! `MAGLEV`: a table in which hosts have as many rows as they weigh (Eisenbud et al., "Maglev", NSDI 2016, section 3.4).
//!
//! Found in one step and shared more evenly than on a ring; a host that comes or goes moves a few calls of the others too.

use super::{LoadBalancer, Spec, View, any, xxh64};
use crate::config::LbPolicy;

/// Makes Maglev balancers.
pub(super) struct Factory;

impl super::Factory for Factory {
    fn policy(&self) -> LbPolicy {
        LbPolicy::Maglev { table: 65_537 }
    }

    fn make(&self, spec: &Spec<'_>) -> Box<dyn LoadBalancer> {
        let size = match spec.policy {
            LbPolicy::Maglev { table } => u64::from(table),
            _ => 65_537,
        };
        Box::new(Maglev { table: table(spec, size) })
    }
}

struct Maglev {
    table: Vec<u32>,
}

/// Rows that are looked at when hosts are not usable, before any host is.
const TRIES: u64 = 64;

impl std::fmt::Debug for Maglev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maglev").field("rows", &self.table.len()).finish()
    }
}

impl LoadBalancer for Maglev {
    /// The host of the call's row; when it is not usable, of another row that follows from the call, too.
    fn pick(&self, view: &dyn View) -> Option<usize> {
        let Some(hash) = view.hash() else { return any(view) };
        let row = |number: u64| {
            // The first is the row of Envoy's table.
            let hash = if number == 0 { hash } else { xxh64(&hash.to_le_bytes(), number) };
            let at = self.table.get(usize::try_from(hash.checked_rem(self.table.len() as u64)?).ok()?)?;
            Some(*at as usize)
        };
        let found = (0..TRIES).filter_map(row).find(|&at| view.usable(at));
        found.or_else(|| (0..view.count()).find(|&at| view.usable(at)))
    }
}

/// Hosts take rows in turn, each in an order of its own, and one that weighs half as much as the heaviest every other time.
/// They begin in the order of their names, so that all callers of a Service have the same table.
fn table(spec: &Spec<'_>, size: u64) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let heaviest = f64::from(spec.weights.iter().copied().max().unwrap_or_default());
    let named = (0_u32..).zip(spec.weights).map(|(at, weight)| ((spec.name)(at as usize), at, f64::from(*weight)));
    let mut named: Vec<(String, u32, f64)> = named.collect();
    named.sort_by(|one, other| one.0.cmp(&other.0));
    let mut hosts: Vec<Host> = named
        .iter()
        .map(|(name, at, weight)| {
            let (offset, skip) = (xxh64(name.as_bytes(), 0) % size, xxh64(name.as_bytes(), 1) % (size - 1) + 1);
            Host { at: *at, weight: *weight, row: offset, skip, due: 0.0 }
        })
        .collect();
    if hosts.is_empty() {
        return Vec::new();
    }
    let mut rows = vec![FREE; size as usize];
    let mut taken = 0;
    let mut round = 0.0;
    loop {
        round += 1.0;
        for host in &mut hosts {
            if round * host.weight < host.due {
                continue;
            }
            host.due += heaviest;
            while let Some(row) = rows.get_mut(host.row as usize) {
                host.row = (host.row + host.skip) % size;
                if *row == FREE {
                    *row = host.at;
                    break;
                }
            }
            taken += 1;
            if taken == size {
                return rows;
            }
        }
    }
}

/// A host, the row that it would like next, and when it may have one.
struct Host {
    at: u32,
    weight: f64,
    row: u64,
    skip: u64,
    due: f64,
}
