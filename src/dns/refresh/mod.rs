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

/// What somebody found out about a name, for others who begin to ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Belief {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    resolved_at: Option<Instant>,
    ttl: Option<Duration>,
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

    /// The same, of which others know this. It is asked for at once all the same.
    pub fn believing(mut self, belief: Belief) -> Self {
        self.v4.addresses = belief.v4;
        self.v6.addresses = belief.v6;
        self.resolved_at = belief.resolved_at;
        self.ttl = belief.ttl;
        self
    }

    /// What it knows of both families, whichever it uses.
    pub fn belief(&self) -> Belief {
        let (v4, v6) = (self.v4.addresses.clone(), self.v6.addresses.clone());
        Belief { v4, v6, resolved_at: self.resolved_at, ttl: self.ttl }
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
            // While nothing was told yet somebody waits: not for one after the other.
            let is_awaited = self.next_at.is_none() || self.addresses().is_empty();
            let both = second.filter(|_| is_awaited);
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

impl Belief {
    /// Both: of each family the addresses that were confirmed last.
    pub fn and(self, other: Self) -> Self {
        let (new, old) = if other.resolved_at > self.resolved_at { (other, self) } else { (self, other) };
        let or = |new: Vec<IpAddr>, old: Vec<IpAddr>| if new.is_empty() { old } else { new };
        Self { v4: or(new.v4, old.v4), v6: or(new.v6, old.v6), ..new }
    }
}

#[cfg(test)]
mod tests;
