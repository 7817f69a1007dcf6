//! Whose turn it is when hosts have weights: the static stride scheduler of gRPC's weighted round robin (gRFC A58).
//!
//! Turns are numbered. In each round every host has one, and takes it when its share has come to a whole since the round
//! before; the heaviest takes every one. So a host of weight `w` is picked exactly `w` times in as many rounds as the
//! heaviest weighs, at even distances, and no state is needed but the number of the next turn.

/// The turns of hosts with fixed weights.
#[derive(Debug, Default)]
pub(super) struct Stride {
    weights: Vec<u32>,
    heaviest: u32,
}

impl Stride {
    pub(super) fn new(weights: &[u32]) -> Self {
        let heaviest = weights.iter().copied().max().unwrap_or_default();
        if weights.iter().all(|weight| *weight == heaviest) {
            return Self::default(); // Nobody will ask.
        }
        Self { weights: weights.to_vec(), heaviest }
    }

    /// Whose turn it is when all weigh the same.
    pub(super) fn even(count: usize, turn: u64) -> Option<usize> {
        (turn % (count.max(1) as u64)).try_into().ok()
    }

    /// Who takes the turn. `None`: it is passed over.
    pub(super) fn at(&self, turn: u64) -> Option<usize> {
        let at = Self::even(self.weights.len(), turn)?;
        let (weight, heaviest) = (u64::from(*self.weights.get(at)?), u64::from(self.heaviest));
        let round = turn / (self.weights.len() as u64) % heaviest;
        // Each host begins elsewhere, so that the light ones do not all come in the same round.
        let offset = (at as u64).wrapping_mul(2_654_435_769) % heaviest;
        ((round * weight + offset) % heaviest >= heaviest - weight).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_hold_exactly_over_a_cycle_and_no_host_comes_in_bursts() {
        let stride = Stride::new(&[5, 1, 1, 3]);
        let picked: Vec<usize> = (0..20).filter_map(|turn| stride.at(turn)).collect();
        let count = |host| picked.iter().filter(|&&at| at == host).count();
        assert_eq!([count(0), count(1), count(2), count(3)], [5, 1, 1, 3], "{picked:?}");
        assert!(!picked.windows(3).any(|run| run.iter().all(|&at| at == 0)), "{picked:?}");
    }
}
