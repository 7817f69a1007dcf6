//! When a name is asked for again, and what its addresses are until then. No I/O: time and chance are arguments.
//!
//! * An answer with addresses replaces those before it, and holds for its TTL (1 s to 1 day) where that counts and is not 0,
//!   else for the refresh rate; longer by a random part of the jitter.
//! * A failure (SERVFAIL, REFUSED, no answer in time) changes nothing: the last addresses stay, however old, and are called
//!   stale. The wait doubles with each failure in a row, half of it random, up to a limit.
//! * An answer that there is nothing (NXDOMAIN, no record) is believed when it is given twice in a row, the second time after
//!   the first wait of a failure: one wrong moment of a zone must not take all hosts away. Envoy believes it at once
//!   for `STRICT_DNS` and never for `LOGICAL_DNS`. Of a name that has no addresses yet it is believed at once.
//!
//! The families of a name are apart: when one cannot be asked for, its last addresses stay beside the new ones of the other.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::lookup::Found;
use super::message::Family;
use crate::config::{Dns, LookupFamily};

/// A TTL is taken to be at least this, unless it is 0.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
/// A TTL is taken to be at most this.
const LONGEST_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// One name.
#[derive(Debug)]
pub struct Refresh {
    rules: Rules,
    v4: Known,
    v6: Known,
    /// Rounds in a row that failed.
    failures: u32,
    round: Round,
    resolved_at: Option<Instant>,
    ttl: Option<Duration>,
    trouble: Option<String>,
    next_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    family: LookupFamily,
    refresh: Duration,
    failure: (Duration, Duration),
    respect_ttl: bool,
    jitter: Duration,
}

/// The last addresses of one family.
#[derive(Debug, Default)]
struct Known {
    addresses: Vec<IpAddr>,
    /// It was said that there are none, but not yet twice.
    is_doubted: bool,
}

/// What came of the questions of one round.
#[derive(Debug, Default)]
struct Round {
    asked: Vec<Family>,
    ttl: Option<Duration>,
    failed: Vec<(Family, String)>,
    nothing: Option<&'static str>,
    is_doubted: bool,
}

/// How a name stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// When they were last confirmed.
    pub resolved_at: Option<Instant>,
    /// How long they hold, as the nameserver said.
    pub ttl: Option<Duration>,
    /// What was wrong the last time, if anything.
    pub trouble: Option<String>,
    /// Is what is used older than it should be?
    pub is_stale: bool,
    /// When it is asked for again.
    pub next_at: Option<Instant>,
}

impl Refresh {
    /// A name of which nothing is known.
    pub fn new(dns: &Dns) -> Self {
        Self {
            rules: Rules {
                family: dns.family,
                refresh: dns.refresh,
                failure: dns.failure,
                respect_ttl: dns.respect_ttl,
                jitter: dns.jitter,
            },
            v4: Known::default(),
            v6: Known::default(),
            failures: 0,
            round: Round::default(),
            resolved_at: None,
            ttl: None,
            trouble: None,
            next_at: None,
        }
    }

    /// The families to ask for now, at once. None: the round is over, see [`Self::end`].
    pub fn poll_questions(&self) -> Vec<Family> {
        let (first, second) = match self.rules.family {
            LookupFamily::V4Only => (Family::V4, None),
            LookupFamily::V6Only => (Family::V6, None),
            LookupFamily::V4Preferred => (Family::V4, Some(Family::V6)),
            LookupFamily::Auto => (Family::V6, Some(Family::V4)),
            LookupFamily::All if self.round.asked.is_empty() => return vec![Family::V6, Family::V4],
            LookupFamily::All => return Vec::new(),
        };
        if self.round.asked.is_empty() {
            // While nothing is known somebody waits: not for one after the other.
            let both = second.filter(|_| self.addresses().is_empty());
            return [Some(first), both].into_iter().flatten().collect();
        }
        second
            .filter(|second| self.of(first).addresses.is_empty() && !self.round.asked.contains(second))
            .into_iter()
            .collect()
    }

    /// What was found out about the addresses of one family.
    pub fn handle_found(&mut self, family: Family, found: Found) {
        self.round.asked.push(family);
        let known = match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        };
        match found {
            Found::Addresses(addresses, ttl) => {
                *known = Known { addresses, is_doubted: false };
                self.round.ttl = Some(self.round.ttl.map_or(ttl, |other| other.min(ttl)));
            }
            Found::Nothing(why) => {
                self.round.nothing = Some(why);
                if known.is_doubted || known.addresses.is_empty() {
                    *known = Known::default();
                } else {
                    known.is_doubted = true;
                    self.round.is_doubted = true;
                }
            }
            Found::Failed(why) => self.round.failed.push((family, why)),
        }
    }

    /// The round is over: until when nothing has to be asked. `chance` is uniform in `0.0..1.0`.
    pub fn end(&mut self, now: Instant, chance: f64) -> Instant {
        let round = std::mem::take(&mut self.round);
        let chance = chance.clamp(0.0, 1.0);
        let (first, longest) = self.rules.failure;
        let failed = round.failed.into_iter().find(|(family, _)| self.is_in_use(*family));
        let wait = if let Some((_, why)) = failed {
            self.trouble = Some(why);
            let step = first.saturating_mul(1 << self.failures.min(16)).min(longest);
            self.failures = self.failures.saturating_add(1);
            step.mul_f64(0.5 + chance / 2.0)
        } else if round.is_doubted {
            self.trouble = round.nothing.map(|why| format!("{why}; believed when it is said twice"));
            self.failures = 0;
            first.min(self.rules.refresh)
        } else {
            self.failures = 0;
            self.ttl = round.ttl;
            self.resolved_at = Some(now);
            self.trouble = round.nothing.filter(|_| self.addresses().is_empty()).map(str::to_owned);
            let told = round.ttl.filter(|ttl| self.rules.respect_ttl && !ttl.is_zero());
            let wait = told.map_or(self.rules.refresh, |ttl| ttl.clamp(SHORTEST_TTL, LONGEST_TTL));
            wait + self.rules.jitter.mul_f64(chance)
        };
        let next = now + wait;
        self.next_at = Some(next);
        next
    }

    /// Its addresses, those of the preferred family; of both, in turns and IPv6 first (RFC 8305, section 4).
    pub fn addresses(&self) -> Vec<IpAddr> {
        let (v4, v6) = (&self.v4.addresses, &self.v6.addresses);
        let or = |first: &[IpAddr], second: &[IpAddr]| if first.is_empty() { second.to_vec() } else { first.to_vec() };
        match self.rules.family {
            LookupFamily::V4Only => v4.clone(),
            LookupFamily::V6Only => v6.clone(),
            LookupFamily::V4Preferred => or(v4, v6),
            LookupFamily::Auto => or(v6, v4),
            LookupFamily::All => {
                let turns = (0..v4.len().max(v6.len())).flat_map(|at| [v6.get(at), v4.get(at)]);
                turns.flatten().copied().collect()
            }
        }
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let addresses = self.addresses();
        Standing {
            is_stale: self.trouble.is_some() && !addresses.is_empty(),
            addresses,
            resolved_at: self.resolved_at,
            ttl: self.ttl,
            trouble: self.trouble.clone(),
            next_at: self.next_at,
        }
    }

    /// Does it matter whether this family could be asked for?
    fn is_in_use(&self, family: Family) -> bool {
        let first = self.addresses().first().copied();
        let is_of = |address: IpAddr| address.is_ipv4() == (family == Family::V4);
        self.rules.family == LookupFamily::All || first.is_none_or(is_of)
    }

    fn of(&self, family: Family) -> &Known {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::DnsKind;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn dns(family: LookupFamily) -> Dns {
        Dns {
            kind: DnsKind::Strict,
            family,
            refresh: seconds(5),
            failure: (seconds(2), seconds(10)),
            respect_ttl: true,
            jitter: Duration::ZERO,
            localities: Vec::new(),
            overprovisioning: None,
        }
    }

    fn v4(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn v6(last: u16) -> IpAddr {
        [0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into()
    }

    fn addresses(list: &[IpAddr], ttl: u64) -> Found {
        Found::Addresses(list.to_vec(), seconds(ttl))
    }

    /// One round: what is asked is answered by `answer`; the wait after it.
    fn round(refresh: &mut Refresh, chance: f64, answer: impl Fn(Family) -> Found) -> Duration {
        let now = Instant::now();
        for _ in 0..3 {
            for family in refresh.poll_questions() {
                refresh.handle_found(family, answer(family));
            }
        }
        assert_eq!(refresh.poll_questions(), [], "a round has an end");
        refresh.end(now, chance) - now
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_for_its_ttl_within_bounds_or_for_the_refresh_rate() {
        for (respects, ttl, chance, expected) in [
            (true, 30, 0.0, seconds(30)),
            (true, 1, 0.0, seconds(1)),
            (true, 0, 0.0, seconds(5)),
            (true, 10_000_000, 0.0, LONGEST_TTL),
            (false, 30, 0.0, seconds(5)),
            (true, 30, 0.5, seconds(32)),
        ] {
            let rules = Dns { respect_ttl: respects, jitter: seconds(4), ..dns(LookupFamily::V4Only) };
            let mut refresh = Refresh::new(&rules);
            assert_eq!(round(&mut refresh, chance, |_| addresses(&[v4(1)], ttl)), expected, "{ttl}");
            assert_eq!(refresh.addresses(), [v4(1)]);
            assert!(!refresh.standing().is_stale);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_keeps_what_is_known_and_waits_longer_each_time() {
        let mut refresh = Refresh::new(&dns(LookupFamily::V4Only));
        round(&mut refresh, 0.0, |_| addresses(&[v4(1)], 30));
        let failed = |_| Found::Failed("SERVFAIL".to_owned());
        let waits = [0, 1, 2, 3].map(|_| round(&mut refresh, 1.0, failed).as_secs());
        assert_eq!(waits, [2, 4, 8, 10]);
        assert_eq!(round(&mut refresh, 0.0, failed), seconds(5), "half of it is random");
        let standing = refresh.standing();
        assert_eq!((standing.addresses.as_slice(), standing.is_stale), (&[v4(1)][..], true));
        assert_eq!(standing.trouble.as_deref(), Some("SERVFAIL"));
        assert_eq!(round(&mut refresh, 0.0, |_| addresses(&[v4(2)], 30)), seconds(30));
        assert_eq!((refresh.addresses(), refresh.standing().trouble), (vec![v4(2)], None));
        assert_eq!(round(&mut refresh, 1.0, failed), seconds(2), "it begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn that_there_is_nothing_is_believed_the_second_time() {
        let nothing = |_| Found::Nothing("NXDOMAIN");
        let mut refresh = Refresh::new(&dns(LookupFamily::V4Only));
        assert_eq!(round(&mut refresh, 0.0, nothing), seconds(5), "nothing is lost");
        assert_eq!(refresh.standing().trouble.as_deref(), Some("NXDOMAIN"));
        round(&mut refresh, 0.0, |_| addresses(&[v4(1)], 30));
        assert_eq!(round(&mut refresh, 0.0, nothing), seconds(2));
        assert_eq!((refresh.addresses(), refresh.standing().is_stale), (vec![v4(1)], true));
        round(&mut refresh, 0.0, |_| addresses(&[v4(1)], 30));
        round(&mut refresh, 0.0, nothing);
        assert_eq!(refresh.addresses(), [v4(1)], "it was not twice in a row");
        round(&mut refresh, 0.0, nothing);
        assert_eq!((refresh.addresses(), refresh.standing().is_stale), (vec![], false));
    }

    #[tokio::test(start_paused = true)]
    async fn families_are_asked_for_as_told() {
        let both = |family| match family {
            Family::V4 => addresses(&[v4(1), v4(2)], 30),
            Family::V6 => addresses(&[v6(1)], 20),
        };
        let only = |wanted| move |family| if family == wanted { both(family) } else { Found::Nothing("NODATA") };
        for (family, of_both, of_v4, of_v6) in [
            (LookupFamily::V4Only, vec![v4(1), v4(2)], vec![v4(1), v4(2)], vec![]),
            (LookupFamily::V6Only, vec![v6(1)], vec![], vec![v6(1)]),
            (LookupFamily::V4Preferred, vec![v4(1), v4(2)], vec![v4(1), v4(2)], vec![v6(1)]),
            (LookupFamily::Auto, vec![v6(1)], vec![v4(1), v4(2)], vec![v6(1)]),
            (LookupFamily::All, vec![v6(1), v4(1), v4(2)], vec![v4(1), v4(2)], vec![v6(1)]),
        ] {
            let found = |answer: &dyn Fn(Family) -> Found| {
                let mut refresh = Refresh::new(&dns(family));
                round(&mut refresh, 0.0, answer);
                refresh.addresses()
            };
            assert_eq!(found(&both), of_both, "{family:?}");
            assert_eq!(found(&only(Family::V4)), of_v4, "{family:?}");
            assert_eq!(found(&only(Family::V6)), of_v6, "{family:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_family_that_fails_does_not_take_its_addresses_away() {
        let mut refresh = Refresh::new(&dns(LookupFamily::All));
        let both = |family| if family == Family::V4 { addresses(&[v4(1)], 30) } else { addresses(&[v6(1)], 20) };
        assert_eq!(round(&mut refresh, 0.0, both), seconds(20), "the shorter of both");
        round(&mut refresh, 0.0, |family| match family {
            Family::V4 => addresses(&[v4(2)], 30),
            Family::V6 => Found::Failed("SERVFAIL".to_owned()),
        });
        assert_eq!(refresh.addresses(), [v6(1), v4(2)]);
        assert!(refresh.standing().is_stale);
    }

    #[tokio::test(start_paused = true)]
    async fn a_family_that_always_fails_is_nothing_to_one_that_does_without_it() {
        let broken = |family| match family {
            Family::V4 => addresses(&[v4(1)], 30),
            Family::V6 => Found::Failed("SERVFAIL".to_owned()), // As some nameservers say for want of an AAAA record.
        };
        for family in [LookupFamily::Auto, LookupFamily::V4Preferred] {
            let mut refresh = Refresh::new(&dns(family));
            assert_eq!(refresh.poll_questions().len(), 2, "at first both at once");
            for _ in 0..2 {
                assert_eq!(round(&mut refresh, 0.0, broken), seconds(30), "{family:?}");
                assert_eq!((refresh.addresses(), refresh.standing().trouble), (vec![v4(1)], None), "{family:?}");
            }
        }
        let mut refresh = Refresh::new(&dns(LookupFamily::Auto));
        round(&mut refresh, 0.0, |_| addresses(&[v6(1)], 30));
        assert_eq!(refresh.poll_questions(), [Family::V6], "then only what is preferred");
        round(&mut refresh, 0.0, broken);
        assert_eq!((refresh.addresses(), refresh.standing().is_stale), (vec![v6(1)], true), "what was there stays");
    }

    proptest! {
        /// Whatever is answered: there is always a next time, within bounds, and only two empty answers in a row (or a
        /// name that never had any) leave a name without addresses.
        #[test]
        fn addresses_are_lost_only_to_two_empty_answers(answers in proptest::collection::vec((0_u8..3, 0_u64..100, 0.0_f64..1.0), 1..60)) {
            let mut refresh = Refresh::new(&dns(LookupFamily::V4Only));
            let (mut had, mut empties, now) = (false, 0, Instant::now());
            for (kind, ttl, chance) in answers {
                let found = match kind {
                    0 => { (had, empties) = (true, 0); addresses(&[v4(1)], ttl) }
                    1 => { empties += 1; Found::Nothing("NXDOMAIN") }
                    _ => Found::Failed("SERVFAIL".to_owned()),
                };
                refresh.handle_found(Family::V4, found);
                let wait = refresh.end(now, chance) - now;
                prop_assert!(wait >= seconds(1) && wait <= seconds(100), "{:?}", wait);
                if empties >= 2 {
                    had = false;
                }
                prop_assert_eq!(!refresh.addresses().is_empty(), had);
            }
        }
    }
}
