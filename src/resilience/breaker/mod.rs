//! The circuit breaker of one endpoint.
//!
//! ```text
//!            failures in a row, or their rate
//!   Closed ────────────────────────────────────► Open ◄──────────┐
//!      ▲                                          │ its time is up │ a probe fails,
//!      │ enough probes succeed                    ▼                │ or never answers
//!      └───────────────────────────────────── HalfOpen ───────────┘
//! ```
//! Trips as Envoy's consecutive failures and Linkerd's failure accrual do; comes back as Linkerd's does, by probes and
//! not by time alone. Each state is an *episode*: what was let through in one says nothing in a later one.

use std::time::Duration;

use pillion_wire::resilience::Breaker as Rules;
use tokio::time::Instant;

/// Parts of the sliding window.
const BUCKETS: usize = 10;

/// The breaker of one endpoint.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    since: Instant,
    episode: u64,
    /// Failures since the last success.
    streak: u32,
    window: Window,
    /// Times that it opened since it was last closed.
    openings: u32,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All requests pass.
    Closed,
    /// None do until then.
    Open {
        /// When it becomes half-open.
        until: Instant,
    },
    /// Some do, to see.
    HalfOpen {
        /// Probes that were let through, less those that ended without telling anything.
        probes: u32,
        /// Probes that succeeded.
        succeeded: u32,
    },
}

/// A request that was let through, to be given to [`Breaker::handle_outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    episode: u64,
}

/// How a request ended, as far as the endpoint is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Success,
    /// Badly, and the endpoint is to blame.
    Failure,
    /// Nobody knows: the client left.
    Unknown,
}

/// What happened to the breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It opened, for so long and this reason.
    Opened(Duration, String),
    /// It would have opened for this reason, but the endpoint is needed.
    Kept(String),
    /// It closed.
    Closed,
}

impl Breaker {
    /// Closed.
    pub fn new(now: Instant) -> Self {
        Self { state: State::Closed, since: now, episode: 0, streak: 0, window: Window::new(now), openings: 0 }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when it stands there.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Times that it opened since it was last closed.
    pub fn openings(&self) -> u32 {
        self.openings
    }

    /// Would [`Self::handle_request`] let a request through?
    pub fn admits(&self, rules: &Rules, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until } => now >= until,
            State::HalfOpen { probes, .. } => probes < rules.probes,
        }
    }

    /// A request wants to pass. `None`: it may not.
    pub fn handle_request(&mut self, rules: &Rules, now: Instant) -> Option<Ticket> {
        match self.state {
            State::Closed => {}
            State::Open { until } if now < until => return None,
            State::Open { .. } => self.enter(State::HalfOpen { probes: 1, succeeded: 0 }, now),
            State::HalfOpen { probes, .. } if probes >= rules.probes => return None,
            State::HalfOpen { probes, succeeded } => self.state = State::HalfOpen { probes: probes + 1, succeeded },
        }
        Some(Ticket { episode: self.episode })
    }

    /// A request that was let through has ended. `chance`, from 0 to 1, spreads the ends of open times; `is_spare` tells
    /// whether the endpoint can be done without.
    pub fn handle_outcome(
        &mut self,
        rules: &Rules,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
        chance: f64,
        is_spare: impl FnOnce() -> bool,
    ) -> Option<Change> {
        if ticket.episode != self.episode {
            return None;
        }
        match (self.state, outcome) {
            (State::Open { .. }, _) | (State::Closed, Outcome::Unknown) => None,
            (State::Closed, Outcome::Success | Outcome::Failure) => {
                let is_failure = outcome == Outcome::Failure;
                self.streak = if is_failure { self.streak.saturating_add(1) } else { 0 };
                if let Some(rate) = rules.rate {
                    self.window.add(rate.window, is_failure, now);
                }
                let why = self.reason(rules, now)?;
                Some(if is_spare() { self.open(rules, now, chance, why) } else { Change::Kept(why) })
            }
            (State::HalfOpen { probes, succeeded }, Outcome::Unknown) => {
                self.state = State::HalfOpen { probes: probes.saturating_sub(1), succeeded };
                None
            }
            (State::HalfOpen { .. }, Outcome::Failure) => {
                Some(self.open(rules, now, chance, "a probe failed".to_owned()))
            }
            (State::HalfOpen { probes, succeeded }, Outcome::Success) => {
                if succeeded + 1 < rules.successes {
                    self.state = State::HalfOpen { probes, succeeded: succeeded + 1 };
                    return None;
                }
                self.enter(State::Closed, now);
                (self.streak, self.openings) = (0, 0);
                self.window = Window::new(now);
                Some(Change::Closed)
            }
        }
    }

    /// Time passes: a probe that has not answered for as long as the breaker may be open is not waited for any longer.
    pub fn handle_time(&mut self, rules: &Rules, now: Instant, chance: f64) -> Option<Change> {
        let is_stuck = matches!(self.state, State::HalfOpen { probes, .. } if probes >= rules.probes);
        (is_stuck && now >= self.since + rules.max_open)
            .then(|| self.open(rules, now, chance, "a probe did not answer".to_owned()))
    }

    /// Why it should open, if it should.
    fn reason(&mut self, rules: &Rules, now: Instant) -> Option<String> {
        if rules.consecutive.is_some_and(|limit| self.streak >= limit) {
            return Some(format!("{} failures in a row", self.streak));
        }
        let rate = rules.rate?;
        let (total, failed) = self.window.sum(rate.window, now);
        let is_high = total >= u64::from(rate.minimum) && failed * 100 >= total * u64::from(rate.percent);
        (is_high && failed > 0).then(|| format!("{failed} of {total} requests failed within {:?}", rate.window))
    }

    fn open(&mut self, rules: &Rules, now: Instant, chance: f64, why: String) -> Change {
        let doubled = rules.open.saturating_mul(2_u32.saturating_pow(self.openings.min(31))).min(rules.max_open);
        let time = doubled + doubled.mul_f64(f64::from(rules.jitter_percent) / 100.0 * chance.clamp(0.0, 1.0));
        self.enter(State::Open { until: now + time }, now);
        self.openings = self.openings.saturating_add(1);
        Change::Opened(time, why)
    }

    fn enter(&mut self, state: State, now: Instant) {
        (self.state, self.since) = (state, now);
        self.episode += 1;
    }
}

/// Counts of the last while, in [`BUCKETS`] parts: it forgets a tenth at a time.
#[derive(Debug)]
struct Window {
    counts: [(u32, u32); BUCKETS],
    origin: Instant,
    /// The newest part, counted from the origin.
    newest: u128,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { counts: [(0, 0); BUCKETS], origin: now, newest: 0 }
    }

    fn add(&mut self, window: Duration, is_failure: bool, now: Instant) {
        self.forget(window, now);
        let at = usize::try_from(self.newest % BUCKETS as u128).unwrap_or(0);
        if let Some((total, failed)) = self.counts.get_mut(at) {
            *total = total.saturating_add(1);
            *failed = failed.saturating_add(u32::from(is_failure));
        }
    }

    /// All, and the failures among them.
    fn sum(&mut self, window: Duration, now: Instant) -> (u64, u64) {
        self.forget(window, now);
        self.counts
            .iter()
            .fold((0, 0), |(total, failed), (more, bad)| (total + u64::from(*more), failed + u64::from(*bad)))
    }

    fn forget(&mut self, window: Duration, now: Instant) {
        let part = (window.as_nanos() / BUCKETS as u128).max(1);
        let newest = now.saturating_duration_since(self.origin).as_nanos() / part;
        if newest < self.newest {
            *self = Self::new(now); // The window has another length now.
            return;
        }
        for step in (self.newest + 1..=newest).take(BUCKETS) {
            let at = usize::try_from(step % BUCKETS as u128).unwrap_or(0);
            if let Some(counts) = self.counts.get_mut(at) {
                *counts = (0, 0);
            }
        }
        self.newest = newest;
    }
}

#[cfg(test)]
mod tests;
