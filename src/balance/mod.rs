//! Picking a host: one file per algorithm, all behind [`LoadBalancer`].
//!
//! A balancer sees positions, not hosts: the caller knows which of them are
//! usable right now. State is shared by all workers, so that N of them balance
//! as one. A new algorithm is one file and one line in [`LOAD_BALANCERS`].

mod round_robin;

/// Chooses among `count` hosts.
pub trait LoadBalancer: Send + Sync + std::fmt::Debug {
    /// The position of a usable host, or `None` when there is none. Total: `count` may be 0.
    fn pick(&self, count: usize, usable: &dyn Fn(usize) -> bool) -> Option<usize>;
}

/// Makes balancers of one kind.
pub trait Factory: Send + Sync {
    /// The policy's name in xDS, such as `ROUND_ROBIN`.
    fn name(&self) -> &'static str;
    /// A balancer with fresh state. `start` spreads the first picks of many proxies.
    fn make(&self, start: usize) -> Box<dyn LoadBalancer>;
}

/// All algorithms.
pub static LOAD_BALANCERS: &[&dyn Factory] = &[&round_robin::Factory];

/// The balancer called `name`, or round robin, which is first in the list.
pub fn make(name: &str, start: usize) -> Box<dyn LoadBalancer> {
    LOAD_BALANCERS
        .iter()
        .find(|factory| factory.name() == name)
        .map_or_else(|| round_robin::Factory.make(start), |factory| factory.make(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_balancer_is_total_and_picks_only_usable_hosts() {
        for factory in LOAD_BALANCERS {
            let balancer = factory.make(7);
            assert_eq!(balancer.pick(0, &|_| true), None, "{}", factory.name());
            assert_eq!(balancer.pick(3, &|_| false), None, "{}", factory.name());
            for _ in 0..10 {
                assert_eq!(balancer.pick(3, &|at| at == 1), Some(1), "{}", factory.name());
            }
        }
    }

    #[test]
    fn every_balancer_uses_each_host_about_equally() {
        for factory in LOAD_BALANCERS {
            let balancer = factory.make(0);
            let mut hits = [0; 4];
            for _ in 0..4000 {
                hits[balancer.pick(4, &|_| true).expect("all are usable")] += 1;
            }
            assert!(hits.iter().all(|&count| (800..1200).contains(&count)), "{}: {hits:?}", factory.name());
        }
    }

    #[test]
    fn names_are_unique() {
        for (at, factory) in LOAD_BALANCERS.iter().enumerate() {
            assert!(!LOAD_BALANCERS.iter().skip(at + 1).any(|other| other.name() == factory.name()));
        }
    }
}
