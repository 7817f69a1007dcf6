//! Which priority a call goes to: the first while enough of it is healthy, then ever more to the next (Envoy, "Priority
//! levels"), and what becomes of a priority of which too little is left ("Panic threshold").

/// How many hosts a priority has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// All of them.
    pub hosts: usize,
    /// Those that are healthy.
    pub healthy: usize,
}

impl Level {
    /// The share of a full load that it can take, from 0 to 1.
    fn capacity(self, overprovisioning: f64) -> f64 {
        if self.hosts == 0 { 0.0 } else { (self.healthy as f64 / self.hosts as f64 * overprovisioning).min(1.0) }
    }

    /// Nothing needs to go elsewhere.
    pub fn is_enough(self, overprovisioning: f64) -> bool {
        self.capacity(overprovisioning) >= 1.0
    }
}

/// The priority on which `point`, from 0 to 1, falls, and whether all of its hosts are to be used whatever their health.
///
/// A priority takes what its healthy hosts can hold, each [`overprovisioning`](crate::config::Endpoints) times its share;
/// the next takes the rest. It panics when all priorities together cannot hold the load, and less than `panic_threshold`
/// percent of its own hosts are healthy. `None`: no host is healthy anywhere, and nobody panics.
pub fn choose(levels: &[Level], overprovisioning: f64, panic_threshold: u32, point: f64) -> Option<(usize, bool)> {
    let total: f64 = levels.iter().map(|level| level.capacity(overprovisioning)).sum();
    let panics = |level: &Level| total < 1.0 && level.healthy * 100 < level.hosts * panic_threshold as usize;
    if total <= 0.0 {
        return levels.iter().position(panics).map(|at| (at, true));
    }
    let mut left = point;
    let mut last = None;
    for (at, level) in levels.iter().enumerate() {
        let share = level.capacity(overprovisioning) / total.min(1.0);
        if share > 0.0 {
            last = Some((at, panics(level)));
            left -= share;
        }
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of calls that each priority gets, in percent, and the priorities that panic.
    fn shares(healthy: &[(usize, usize)], threshold: u32) -> (Vec<u32>, Vec<usize>) {
        let levels: Vec<Level> = healthy.iter().map(|&(healthy, hosts)| Level { hosts, healthy }).collect();
        let mut counts = vec![0; levels.len()];
        let mut panics = std::collections::BTreeSet::new();
        for step in 0..100 {
            let Some((at, panic)) = choose(&levels, 1.4, threshold, (f64::from(step) + 0.5) / 100.0) else { continue };
            counts[at] += 1;
            panics.extend(panic.then_some(at));
        }
        (counts, panics.into_iter().collect())
    }

    #[test]
    fn loads_are_those_of_envoys_documentation() {
        // "Priority levels", the tables there.
        for (healthy, expected) in [
            (&[(100, 100), (100, 100)][..], &[100, 0][..]),
            (&[(72, 100), (100, 100)], &[100, 0]),
            (&[(71, 100), (100, 100)], &[99, 1]),
            (&[(50, 100), (100, 100)], &[70, 30]),
            (&[(25, 100), (100, 100)], &[35, 65]),
            (&[(0, 100), (100, 100)], &[0, 100]),
            (&[(25, 100), (25, 100)], &[50, 50]),
            (&[(25, 100), (25, 100), (20, 100)], &[36, 36, 28]),
            (&[(25, 100), (25, 100), (100, 100)], &[35, 35, 30]),
            (&[(0, 0), (1, 1)], &[0, 100]),
        ] {
            let (found, panics) = shares(healthy, 0);
            assert!(found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 1), "{healthy:?}: {found:?}");
            assert!(panics.is_empty(), "0 turns it off");
        }
    }

    #[test]
    fn a_priority_panics_only_when_all_together_are_not_enough() {
        assert_eq!(shares(&[(4, 10)], 50).1, [0]);
        assert_eq!(shares(&[(5, 10)], 50).1, [0; 0]);
        assert_eq!(shares(&[(4, 10), (10, 10)], 50).1, [0; 0]);
        assert_eq!(shares(&[(2, 10), (2, 10)], 50).1, [0, 1]);
        assert_eq!(shares(&[(0, 10)], 50), (vec![100], vec![0]));
        assert_eq!(shares(&[(0, 10)], 0), (vec![0], vec![]));
        assert_eq!(shares(&[], 50), (vec![], vec![]));
    }
}
