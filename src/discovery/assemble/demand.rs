//! How many destinations and hosts may be known, and how long one is remembered that is not.
//!
//! What an application calls bounds what we hold; this bounds what a broken one,
//! or one that is told where to connect by strangers, can make us hold.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::snapshot::Demand;

/// Destinations and hosts that are known, unknown or being asked for.
const MOST_DEMANDS: usize = 4096;
/// Those beyond that, which are remembered as refused.
const MOST_REFUSED: usize = 1024;
/// How many of what is known are asked about, at most, before one has to go although it was used.
const MOST_CHANCES: usize = 64;
/// How long the answer "unknown" holds, and how long an answer is waited for after the last demand.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);
/// How long a refusal holds.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// Keeps count of them.
#[derive(Debug)]
pub(super) struct Book {
    /// How long something known may be without use.
    idle: Duration,
    standings: HashMap<Demand, Standing>,
    expiries: BTreeSet<(Instant, Demand)>,
    refused: VecDeque<Demand>,
    /// What is known, in the order in which it was last found in use.
    known: VecDeque<Demand>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Pending(Instant),
    /// Until it is looked whether it was used.
    Known(Instant),
    Unknown(Instant),
    Refused(Instant),
}

/// Whether something new may be asked for, and which old ones have to go for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Granted(Option<Demand>),
    Refused(Option<Demand>),
}

impl Book {
    /// Nothing in it. What is known is forgotten after `idle` to twice that without use.
    pub(super) fn new(idle: Duration) -> Self {
        Self {
            idle,
            standings: HashMap::new(),
            expiries: BTreeSet::new(),
            refused: VecDeque::new(),
            known: VecDeque::new(),
        }
    }

    /// Whether it is known, unknown, refused or being asked for.
    pub(super) fn contains(&self, demand: &Demand) -> bool {
        self.standings.contains_key(demand)
    }

    /// One that is not in the book yet. The longest unknown one gives way to it.
    pub(super) fn admit(&mut self, demand: &Demand, now: Instant) -> Admission {
        if self.standings.len() - self.refused.len() < MOST_DEMANDS {
            self.set(demand, Standing::Pending(now + UNKNOWN_FOR));
            return Admission::Granted(None);
        }
        let is_unknown = |old: &&(Instant, Demand)| matches!(self.standings.get(&old.1), Some(Standing::Unknown(_)));
        if let Some((_, oldest)) = self.expiries.iter().find(is_unknown).cloned() {
            self.remove(&oldest);
            self.set(demand, Standing::Pending(now + UNKNOWN_FOR));
            return Admission::Granted(Some(oldest));
        }
        let oldest = if self.refused.len() >= MOST_REFUSED { self.refused.front().cloned() } else { None };
        if let Some(oldest) = &oldest {
            self.remove(oldest);
        }
        self.set(demand, Standing::Refused(now + REFUSED_FOR));
        self.refused.push_back(demand.clone());
        Admission::Refused(oldest)
    }

    /// Finds something known that is to go for something new, when there is no room left and nothing unknown that could
    /// go instead: the first that `was_used` does not say has been used since it was last asked about (a second chance,
    /// as in the CLOCK algorithm of page replacement). It is no longer in the book.
    pub(super) fn give_way(&mut self, mut was_used: impl FnMut(&Demand) -> bool) -> Option<Demand> {
        let is_full = self.standings.len() - self.refused.len() >= MOST_DEMANDS;
        let has_unknown = || self.standings.values().any(|standing| matches!(standing, Standing::Unknown(_)));
        if !is_full || has_unknown() {
            return None;
        }
        for _ in 0..MOST_CHANCES {
            let candidate = self.known.front()?;
            if !was_used(candidate) {
                break;
            }
            self.known.rotate_left(1);
        }
        let oldest = self.known.front().cloned()?;
        self.remove(&oldest);
        Some(oldest)
    }

    /// Somebody still waits for an answer.
    pub(super) fn asked_again(&mut self, demand: &Demand, now: Instant) {
        if let Some(Standing::Pending(_)) = self.standings.get(demand) {
            self.set(demand, Standing::Pending(now + UNKNOWN_FOR));
        }
    }

    pub(super) fn known(&mut self, demand: &Demand, now: Instant) {
        if !matches!(self.standings.get(demand), Some(Standing::Known(_))) {
            self.set(demand, Standing::Known(now + self.idle));
            self.known.push_back(demand.clone());
        }
    }

    pub(super) fn unknown(&mut self, demand: &Demand, now: Instant) {
        self.set(demand, Standing::Unknown(now + UNKNOWN_FOR));
    }

    /// Those whose time has come: they are no longer in the book. What is known stays when `was_used` says that it was
    /// used since it was last asked about.
    pub(super) fn expire(&mut self, now: Instant, mut was_used: impl FnMut(&Demand) -> bool) -> Vec<Demand> {
        let mut expired = Vec::new();
        while let Some((at, demand)) = self.expiries.first().cloned() {
            if at > now {
                break;
            }
            if matches!(self.standings.get(&demand), Some(Standing::Known(_))) && was_used(&demand) {
                let again = now + self.idle;
                self.expiries.remove(&(at, demand.clone()));
                self.expiries.insert((again, demand.clone()));
                self.standings.insert(demand, Standing::Known(again));
                continue;
            }
            self.remove(&demand);
            expired.push(demand);
        }
        expired
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    fn set(&mut self, demand: &Demand, standing: Standing) {
        self.remove(demand);
        self.standings.insert(demand.clone(), standing);
        self.expiries.insert((standing.expiry(), demand.clone()));
    }

    fn remove(&mut self, demand: &Demand) {
        let Some(old) = self.standings.remove(demand) else { return };
        self.expiries.remove(&(old.expiry(), demand.clone()));
        match old {
            Standing::Refused(_) => self.refused.retain(|refused| refused != demand),
            Standing::Known(_) => self.known.retain(|known| known != demand),
            Standing::Pending(_) | Standing::Unknown(_) => {}
        }
    }
}

impl Standing {
    fn expiry(self) -> Instant {
        match self {
            Self::Pending(at) | Self::Known(at) | Self::Unknown(at) | Self::Refused(at) => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(600);

    fn destination(number: usize) -> Demand {
        Demand::Destination(format!("s{number}.shop:80").parse().expect("valid"))
    }

    fn full(now: Instant) -> Book {
        let mut book = Book::new(IDLE);
        for number in 0..MOST_DEMANDS {
            assert_eq!(book.admit(&destination(number), now), Admission::Granted(None));
            book.known(&destination(number), now);
        }
        book
    }

    #[tokio::test(start_paused = true)]
    async fn a_destination_beyond_the_limit_is_refused_and_may_come_again() {
        let now = Instant::now();
        let mut book = full(now);
        for number in 0..MOST_REFUSED {
            assert_eq!(book.admit(&destination(10_000 + number), now), Admission::Refused(None));
        }
        let oldest = destination(10_000);
        assert_eq!(book.admit(&destination(99_999), now), Admission::Refused(Some(oldest)));
        assert_eq!(book.next_expiry(), Some(now + REFUSED_FOR));
        assert_eq!(book.expire(now + REFUSED_FOR, |_| false).len(), MOST_REFUSED);
        assert_eq!(book.next_expiry(), Some(now + IDLE));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_destination_gives_way_to_a_new_one() {
        let now = Instant::now();
        let mut book = full(now);
        book.unknown(&destination(7), now);
        assert_eq!(book.admit(&destination(10_000), now), Admission::Granted(Some(destination(7))));
    }

    #[tokio::test(start_paused = true)]
    async fn who_still_asks_is_still_waited_for() {
        let now = Instant::now();
        let mut book = Book::new(IDLE);
        book.admit(&destination(1), now);
        book.asked_again(&destination(1), now + Duration::from_secs(20));
        assert_eq!(book.expire(now + UNKNOWN_FOR, |_| false), []);
        assert_eq!(book.expire(now + Duration::from_secs(50), |_| false), [destination(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_used_for_long_is_forgotten() {
        let now = Instant::now();
        let mut book = Book::new(IDLE);
        for number in [1, 2] {
            book.admit(&destination(number), now);
            book.known(&destination(number), now);
        }
        let first_is_used = |demand: &Demand| *demand == destination(1);
        assert_eq!(book.expire(now + IDLE - Duration::from_secs(1), |_| false), []);
        assert_eq!(book.expire(now + IDLE, first_is_used), [destination(2)]);
        assert_eq!(book.next_expiry(), Some(now + 2 * IDLE));
        assert_eq!(book.expire(now + 2 * IDLE, |_| false), [destination(1)]);
        assert!(!book.contains(&destination(1)));
        assert_eq!(book.next_expiry(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn of_what_is_known_the_first_that_was_not_used_gives_way() {
        let now = Instant::now();
        let mut book = full(now);
        let used = [destination(0), destination(1)];
        assert_eq!(book.give_way(|demand| used.contains(demand)), Some(destination(2)));
        assert_eq!(book.give_way(|_| false), None, "there is room");
        assert_eq!(book.admit(&destination(10_000), now), Admission::Granted(None));
        book.known(&destination(10_000), now);
        assert_eq!(
            book.give_way(|demand| used.contains(demand)),
            Some(destination(3)),
            "who was used waits at the end"
        );
        book.admit(&destination(10_001), now);
        book.unknown(&destination(10_001), now);
        assert_eq!(book.give_way(|_| false), None, "what is unknown goes first");
        book.admit(&destination(10_002), now);
        assert!(book.give_way(|_| true).is_some(), "somebody has to");
    }
}
