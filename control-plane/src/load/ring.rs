//! The last minutes in slots: two minutes in slots of 5 s, a quarter of an hour in slots of 30 s.

use std::collections::VecDeque;

/// Slots of [`FINE_SECONDS`] that are kept.
pub const FINE: usize = 24;
/// Seconds of a fine slot.
pub const FINE_SECONDS: u64 = 5;
/// Slots of [`COARSE_SECONDS`] that are kept.
pub const COARSE: usize = 30;
/// Seconds of a coarse slot.
pub const COARSE_SECONDS: u64 = 30;

/// What slots hold.
pub trait Add: Clone + Default {
    /// Adds another one to it.
    fn add(&mut self, other: &Self);
}

/// The same numbers at both resolutions. Slots in which nothing came do not exist.
#[derive(Clone, Debug, Default)]
pub struct Rings<T> {
    fine: VecDeque<(u64, T)>,
    coarse: VecDeque<(u64, T)>,
}

impl<T: Add> Rings<T> {
    /// Adds `value` at `now`, in Unix seconds.
    pub fn add(&mut self, now: u64, value: &T) {
        push(&mut self.fine, now / FINE_SECONDS, FINE, value);
        push(&mut self.coarse, now / COARSE_SECONDS, COARSE, value);
    }

    /// Slots that began within the last `window` seconds, oldest first, by their begin in Unix seconds.
    pub fn slots(&self, now: u64, window: u64) -> impl Iterator<Item = (u64, &T)> {
        let (slots, width) = match width(window) {
            FINE_SECONDS => (&self.fine, FINE_SECONDS),
            width => (&self.coarse, width),
        };
        let first = now.saturating_sub(window).div_ceil(width);
        slots.iter().filter(move |(slot, _)| *slot >= first).map(move |(slot, value)| (slot * width, value))
    }

    /// The end of the newest slot, in Unix seconds.
    pub fn newest(&self) -> Option<u64> {
        self.fine.back().map(|(slot, _)| (slot + 1) * FINE_SECONDS)
    }

    /// The sum of those slots.
    pub fn sum(&self, now: u64, window: u64) -> T {
        let mut sum = T::default();
        self.slots(now, window).for_each(|(_, value)| sum.add(value));
        sum
    }
}

/// Seconds of a slot of the finest ring that goes back `window` seconds.
#[must_use]
pub const fn width(window: u64) -> u64 {
    if window <= FINE as u64 * FINE_SECONDS { FINE_SECONDS } else { COARSE_SECONDS }
}

fn push<T: Add>(slots: &mut VecDeque<(u64, T)>, slot: u64, most: usize, value: &T) {
    // A clock that was set back adds to the newest.
    match slots.back_mut().filter(|(newest, _)| *newest >= slot) {
        Some((_, sum)) => sum.add(value),
        None => slots.push_back((slot, value.clone())),
    }
    let oldest = slot.saturating_sub(most as u64 - 1);
    while slots.len() > most || slots.front().is_some_and(|(slot, _)| *slot < oldest) {
        slots.pop_front();
    }
}

impl Add for u64 {
    fn add(&mut self, other: &Self) {
        *self = self.saturating_add(*other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_slots_go_and_windows_choose_their_ring() {
        let mut rings = Rings::<u64>::default();
        for now in 1_000_000..1_002_000 {
            rings.add(now, &1);
        }
        let now = 1_001_999;
        assert_eq!(rings.slots(now, 120).count(), FINE);
        assert_eq!(rings.sum(now, 120), 120);
        assert_eq!(rings.slots(now, 900).count(), COARSE);
        assert!((870..=900).contains(&rings.sum(now, 900)));
        rings.add(5, &1);
        assert_eq!(rings.slots(now, 120).count(), FINE, "time that goes back loses nothing");
        assert_eq!(rings.sum(now + 10_000, 900), 0);
    }
}
