//! How a host stands: what it has in hand against its limits, its breaker, and whether it is ejected.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::report::{BreakerReport, Report};
use crate::config::Resilience;
use crate::resilience::Counter;
use crate::resilience::breaker::{Breaker, Change, Outcome, Ticket};
use crate::resilience::outlier::{Sample, Verdict};

/// Its breaker is open or half-open.
pub(super) const BREAKER: u8 = 1;
/// It is ejected as an outlier.
pub(super) const EJECTED: u8 = 2;
/// It has limits of its own.
const LIMITED: u8 = 4;
/// Nothing of the destination has to stay in use: an open breaker holds whatever the others do.
const STRICT: u8 = 8;

/// It fails its health checks.
pub(super) const UNHEALTHY: u8 = 16;
/// It came when others of its destination were checked already, and has neither been checked since nor answered a request
/// well: it is used only while none of the others is well, and for sessions of its own.
pub(super) const UNCHECKED: u8 = 32;
/// Nothing of the destination has to stay in use when health checks fail.
pub(super) const FAIL_FAST: u8 = 64;

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An HTTP request, upgraded ones included.
    Request,
    /// A TCP connection or tunnel.
    Connection,
}

/// Nothing while nothing is configured: then it costs one load to see that, and no memory.
#[derive(Debug)]
pub(super) struct Standing {
    bits: AtomicU8,
    inner: OnceLock<Box<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    requests: Places,
    connections: Places,
    succeeded: AtomicU64,
    failed: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Places {
    counter: Counter,
    most: AtomicU32,
}

#[derive(Debug, Default)]
struct Told {
    rules: Option<Arc<Resilience>>,
    breaker: Option<Breaker>,
    /// Why the breaker opened last.
    why: String,
    /// Why it would have opened, had the host not been needed.
    kept: Option<String>,
    ejection: Option<Ejection>,
    /// Ejections in a row.
    ejections: u32,
    verdict: Option<Verdict>,
}

#[derive(Clone, Debug)]
struct Ejection {
    since: Instant,
    until: Instant,
    why: String,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self { bits: AtomicU8::new(0), inner: OnceLock::new() }
    }

    fn inner(&self) -> &Inner {
        self.inner.get_or_init(Box::default)
    }

    /// Takes over what is configured. What was measured stays, as long as it is still asked for.
    pub(super) fn protect(&self, rules: Option<&Arc<Resilience>>) {
        if rules.is_none() && self.inner.get().is_none() {
            return;
        }
        let mut told = self.inner().told.lock();
        let limits = rules.and_then(|rules| rules.limits.as_ref());
        let (requests, connections) =
            limits.map_or((None, None), |limits| (limits.endpoint_requests, limits.endpoint_connections));
        self.inner().requests.most.store(requests.unwrap_or(u32::MAX), Ordering::Relaxed);
        self.inner().connections.most.store(connections.unwrap_or(u32::MAX), Ordering::Relaxed);
        self.set(LIMITED, requests.is_some() || connections.is_some());
        self.set(STRICT, rules.is_some_and(|rules| rules.judges() && rules.keep() == 0));
        if rules.is_none_or(|rules| rules.breaker.is_none()) {
            (told.breaker, told.kept) = (None, None);
            self.set(BREAKER, false);
        }
        if rules.is_none_or(|rules| rules.outlier.is_none()) {
            (told.ejection, told.ejections, told.verdict) = (None, 0, None);
            self.set(EJECTED, false);
        }
        told.rules = rules.cloned();
    }

    /// May it be picked now?
    pub(super) fn allows(&self, now: impl FnOnce() -> Instant) -> bool {
        let bits = self.bits.load(Ordering::Acquire);
        bits == 0 || self.permits(bits, now)
    }

    /// The same though it was not checked yet: nobody else is well, or nobody else will do.
    pub(super) fn allows_unchecked(&self, now: impl FnOnce() -> Instant) -> bool {
        self.permits(self.bits.load(Ordering::Acquire) & !UNCHECKED, now)
    }

    fn permits(&self, bits: u8, now: impl FnOnce() -> Instant) -> bool {
        if bits & (EJECTED | UNHEALTHY | UNCHECKED) != 0 || self.is_full() {
            return false;
        }
        if bits & BREAKER == 0 {
            return true;
        }
        let told = self.inner().told.lock();
        match (&told.breaker, told.rules.as_ref().and_then(|rules| rules.breaker.as_ref())) {
            (Some(breaker), Some(rules)) => breaker.admits(rules, now()),
            _ => true,
        }
    }

    /// May it be picked when no other is left? With `others` that are well, one that is out of service stays so.
    pub(super) fn is_last_resort(&self, others: bool) -> bool {
        let bits = self.bits.load(Ordering::Acquire);
        bits == 0 || !(self.is_full() || self.is_barred() || (others && !self.is_in_service()))
    }

    /// It is left alone, even as the last.
    pub(super) fn is_barred(&self) -> bool {
        let bits = self.bits.load(Ordering::Acquire);
        self.is_shut_off() || (bits & FAIL_FAST != 0 && bits & UNHEALTHY != 0)
    }

    /// The same, for what it did.
    pub(super) fn is_shut_off(&self) -> bool {
        let bits = self.bits.load(Ordering::Acquire);
        bits & STRICT != 0 && bits & (BREAKER | EJECTED) != 0
    }

    /// It has as much in hand as it may.
    pub(super) fn is_full(&self) -> bool {
        self.bits.load(Ordering::Acquire) & LIMITED != 0
            && (self.inner().requests.is_full() || self.inner().connections.is_full())
    }

    /// Neither its breaker is open nor is it ejected, and health checks have nothing against it.
    pub(super) fn is_in_service(&self) -> bool {
        !self.has(BREAKER | EJECTED | UNHEALTHY | UNCHECKED)
    }

    pub(super) fn has(&self, bit: u8) -> bool {
        self.bits.load(Ordering::Acquire) & bit != 0
    }

    pub(super) fn set(&self, bit: u8, on: bool) {
        if on {
            self.bits.fetch_or(bit, Ordering::AcqRel);
        } else {
            self.bits.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// Takes a place within the host's own limit. False: there is none.
    pub(super) fn take(&self, kind: Kind, limit: u32) -> bool {
        self.places(kind).counter.enter(limit, 0) == crate::resilience::Entry::Taken
    }

    pub(super) fn give_back(&self, kind: Kind) {
        self.places(kind).counter.give_back();
    }

    fn places(&self, kind: Kind) -> &Places {
        match kind {
            Kind::Request => &self.inner().requests,
            Kind::Connection => &self.inner().connections,
        }
    }

    /// Asks the breaker. `None`: it says no.
    pub(super) fn ticket(&self, rules: &pillion_wire::resilience::Breaker, now: Instant) -> Option<Ticket> {
        self.inner().told.lock().breaker.get_or_insert_with(|| Breaker::new(now)).handle_request(rules, now)
    }

    /// Counts for the comparison with the others.
    pub(super) fn count(&self, outcome: Outcome) {
        match outcome {
            Outcome::Success => _ = self.inner().succeeded.fetch_add(1, Ordering::Relaxed),
            Outcome::Failure => _ = self.inner().failed.fetch_add(1, Ordering::Relaxed),
            Outcome::Unknown => {}
        }
    }

    /// Tells the breaker. `withdraw` takes the host out of service if it can be spared, and says so.
    pub(super) fn settle(
        &self,
        rules: &pillion_wire::resilience::Breaker,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
        withdraw: impl FnOnce() -> bool,
    ) -> Option<Change> {
        let mut told = self.inner().told.lock();
        if outcome == Outcome::Success {
            told.kept = None;
        }
        let change = told.breaker.as_mut()?.handle_outcome(rules, ticket, outcome, now, rand::random(), withdraw);
        self.noted(&mut told, change)
    }

    /// Gives up a probe that does not answer.
    pub(super) fn handle_time(&self, now: Instant) -> Option<Change> {
        if !self.has(BREAKER) {
            return None;
        }
        let mut told = self.inner().told.lock();
        let rules = told.rules.clone()?;
        let change = told.breaker.as_mut()?.handle_time(rules.breaker.as_ref()?, now, rand::random());
        self.noted(&mut told, change)
    }

    /// Remembers why; the same reason to stay is news only once.
    fn noted(&self, told: &mut Told, change: Option<Change>) -> Option<Change> {
        match &change {
            Some(Change::Opened(_, why)) => {
                why.clone_into(&mut told.why);
                told.kept = None;
            }
            Some(Change::Kept(why)) => {
                let is_old = told.kept.replace(why.clone()).is_some();
                if is_old {
                    return None;
                }
            }
            Some(Change::Closed) => self.set(BREAKER, false),
            None => {}
        }
        change
    }

    /// What it did since the last time.
    pub(super) fn sample(&self, is_reachable: bool) -> Sample {
        Sample {
            succeeded: self.inner().succeeded.swap(0, Ordering::Relaxed),
            failed: self.inner().failed.swap(0, Ordering::Relaxed),
            is_ejected: self.has(EJECTED),
            is_in_service: is_reachable && self.is_in_service(),
        }
    }

    /// Takes over a verdict. True: from now on it is ejected, by `withdraw`'s leave.
    pub(super) fn judge(
        &self,
        rules: &pillion_wire::resilience::Outlier,
        verdict: Verdict,
        now: Instant,
        withdraw: impl FnOnce() -> bool,
    ) -> Option<Ejected> {
        let mut told = self.inner().told.lock();
        let back = told.ejection.as_ref().is_some_and(|ejection| now >= ejection.until);
        if back {
            told.ejection = None;
            self.set(EJECTED, false);
        }
        let event = match &verdict {
            Verdict::Eject(why) if withdraw() => {
                told.ejections += 1;
                let time = crate::resilience::outlier::ejection_time(rules, told.ejections, rand::random());
                told.ejection = Some(Ejection { since: now, until: now + time, why: why.clone() });
                Some(Ejected::Out(why.clone(), time))
            }
            Verdict::Eject(why) | Verdict::Keep { why, .. } => Some(Ejected::Kept(why.clone())),
            Verdict::Fine(_) => {
                told.ejections = told.ejections.saturating_sub(1);
                None
            }
            Verdict::Away => back.then_some(Ejected::Back),
        };
        told.verdict = Some(verdict);
        event
    }

    /// For the admin pages.
    pub(super) fn report(&self) -> Report {
        let Some(inner) = self.inner.get() else { return Report::default() };
        let told = inner.told.lock();
        Report {
            in_use: self.has(LIMITED).then(|| (inner.requests.counter.now().0, inner.connections.counter.now().0)),
            breaker: told.breaker.as_ref().map(|breaker| BreakerReport {
                state: breaker.state(),
                since: breaker.since(),
                why: told.why.clone(),
                openings: breaker.openings(),
                kept: told.kept.clone(),
            }),
            ejected: told.ejection.clone().map(|ejection| (ejection.since, ejection.until, ejection.why)),
            verdict: told.verdict.clone(),
        }
    }
}

/// What a comparison with the others led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ejected {
    /// Ejected, for this reason and so long.
    Out(String, std::time::Duration),
    /// An outlier that stays.
    Kept(String),
    /// Its time is over.
    Back,
}

impl Default for Places {
    fn default() -> Self {
        Self { counter: Counter::new(), most: AtomicU32::new(u32::MAX) }
    }
}

impl Places {
    fn is_full(&self) -> bool {
        self.counter.now().0 >= self.most.load(Ordering::Relaxed)
    }
}
