//! How many destinations may be known, and how long one is remembered that is not.
//!
//! What an application calls bounds what we hold; this bounds what a broken one,
//! or one that is told where to connect by strangers, can make us hold.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use pillion_wire::name::Destination;
use tokio::time::Instant;

/// Destinations that are known, unknown or being asked for.
const MOST_DESTINATIONS: usize = 4096;
/// Destinations beyond that, which are remembered as refused.
const MOST_REFUSED: usize = 1024;
/// How long the answer "unknown" holds, and how long an answer is waited for after the last demand.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);
/// How long a refusal holds.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// Keeps count of destinations.
#[derive(Debug, Default)]
pub(super) struct Book {
    standings: HashMap<Destination, Standing>,
    expiries: BTreeSet<(Instant, Destination)>,
    refused: VecDeque<Destination>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Pending(Instant),
    Known,
    Unknown(Instant),
    Refused(Instant),
}

/// Whether a new destination may be asked for, and which old ones have to go for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Granted(Option<Destination>),
    Refused(Option<Destination>),
}

impl Book {
    /// A destination that is not in the book yet. The longest unknown one gives way to it.
    pub(super) fn admit(&mut self, destination: &Destination, now: Instant) -> Admission {
        if self.standings.len() - self.refused.len() < MOST_DESTINATIONS {
            self.set(destination, Standing::Pending(now + UNKNOWN_FOR));
            return Admission::Granted(None);
        }
        let is_unknown =
            |old: &&(Instant, Destination)| matches!(self.standings.get(&old.1), Some(Standing::Unknown(_)));
        if let Some((_, oldest)) = self.expiries.iter().find(is_unknown).cloned() {
            self.remove(&oldest);
            self.set(destination, Standing::Pending(now + UNKNOWN_FOR));
            return Admission::Granted(Some(oldest));
        }
        let oldest = if self.refused.len() >= MOST_REFUSED { self.refused.front().cloned() } else { None };
        if let Some(oldest) = &oldest {
            self.remove(oldest);
        }
        self.set(destination, Standing::Refused(now + REFUSED_FOR));
        self.refused.push_back(destination.clone());
        Admission::Refused(oldest)
    }

    /// Somebody still waits for an answer.
    pub(super) fn asked_again(&mut self, destination: &Destination, now: Instant) {
        if let Some(Standing::Pending(_)) = self.standings.get(destination) {
            self.set(destination, Standing::Pending(now + UNKNOWN_FOR));
        }
    }

    pub(super) fn known(&mut self, destination: &Destination, _now: Instant) {
        self.set(destination, Standing::Known);
    }

    pub(super) fn unknown(&mut self, destination: &Destination, now: Instant) {
        self.set(destination, Standing::Unknown(now + UNKNOWN_FOR));
    }

    /// Those whose time has come. They are no longer in the book.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Destination> {
        let mut expired = Vec::new();
        while let Some((at, destination)) = self.expiries.first().cloned() {
            if at > now {
                break;
            }
            self.remove(&destination);
            expired.push(destination);
        }
        expired
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    fn set(&mut self, destination: &Destination, standing: Standing) {
        self.remove(destination);
        self.standings.insert(destination.clone(), standing);
        if let Some(at) = standing.expiry() {
            self.expiries.insert((at, destination.clone()));
        }
    }

    fn remove(&mut self, destination: &Destination) {
        let Some(old) = self.standings.remove(destination) else { return };
        if let Some(at) = old.expiry() {
            self.expiries.remove(&(at, destination.clone()));
        }
        if let Standing::Refused(_) = old {
            self.refused.retain(|refused| refused != destination);
        }
    }
}

impl Standing {
    fn expiry(self) -> Option<Instant> {
        match self {
            Self::Known => None,
            Self::Pending(at) | Self::Unknown(at) | Self::Refused(at) => Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(number: usize) -> Destination {
        Destination::new(&format!("s{number}.shop"), 80).expect("valid")
    }

    fn full(now: Instant) -> Book {
        let mut book = Book::default();
        for number in 0..MOST_DESTINATIONS {
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
        assert_eq!(book.expire(now + REFUSED_FOR).len(), MOST_REFUSED);
        assert_eq!(book.next_expiry(), None);
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
        let mut book = Book::default();
        book.admit(&destination(1), now);
        book.asked_again(&destination(1), now + Duration::from_secs(20));
        assert_eq!(book.expire(now + UNKNOWN_FOR), []);
        assert_eq!(book.expire(now + Duration::from_secs(50)), [destination(1)]);
    }
}
