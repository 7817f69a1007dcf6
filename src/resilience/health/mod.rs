//! Active health checks of one endpoint: when it is asked, and what the answers make of it.
//!
//! ```text
//!             1 success                unhealthy_threshold failures in a row,
//! unchecked ───────────> healthy ───── or one that counts at once ──────────> unhealthy
//!     │                     ^                                                  ^  │
//!     │                     └────────── healthy_threshold successes in a row ──┼──┘
//!     └──────────────────────────────── 1 failure ─────────────────────────────┘
//! ```
//! As Envoy has it: the first answer decides; then thresholds do. A failure counts at once when the endpoint says so
//! itself, and in the check that follows an *alarm*: real traffic that could not get through. That check does not wait
//! for its time.
//!
//! No I/O and no clock: time and randomness are arguments.

use std::time::Duration;

use pillion_wire::health::HealthCheck;
use tokio::time::Instant;

/// What is thought of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It was never checked.
    #[default]
    Unchecked,
    /// It is well.
    Healthy,
    /// It is not.
    Unhealthy,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The endpoint is well.
    Passed,
    /// It is not, perhaps only this once.
    Failed,
    /// It is not, by its own word: that counts at once.
    Refused,
    /// The check says nothing of the endpoint, as it did not get through for another reason.
    Unknown,
}

/// An endpoint that is checked.
#[derive(Clone, Debug)]
pub struct Checked {
    state: State,
    since: Instant,
    /// Findings in a row that speak against the state.
    streak: u32,
    due: Instant,
    /// When the last check ended.
    ended: Option<Instant>,
    /// An alarm that no check has followed yet.
    alarm: bool,
    /// The check that is under way follows an alarm.
    is_urgent: bool,
}

/// Between checks that alarms ask for, at least.
const BETWEEN_ALARMS: Duration = Duration::from_millis(100);

impl Checked {
    /// An endpoint that is to be checked from now on: at once, or after `random` (0 to 1) of the initial jitter.
    pub fn new(rules: &HealthCheck, now: Instant, random: f64) -> Self {
        Self {
            state: State::Unchecked,
            since: now,
            streak: 0,
            due: now + rules.initial_jitter.mul_f64(random),
            ended: None,
            alarm: false,
            is_urgent: false,
        }
    }

    /// It is checked in another way from now on. What is thought of it stays until that has an answer.
    pub fn handle_rules(&mut self, rules: &HealthCheck, now: Instant, random: f64) {
        self.streak = 0;
        self.due = now + rules.initial_jitter.mul_f64(random);
    }

    /// Real traffic could not get through, or the endpoint says of itself that it is not well. True: the next check is
    /// earlier than it was.
    pub fn handle_alarm(&mut self, now: Instant) -> bool {
        if self.state == State::Unhealthy {
            return false; // We know.
        }
        let is_new = !std::mem::replace(&mut self.alarm, true);
        let due = self.ended.map_or(now, |ended| now.max(ended + BETWEEN_ALARMS));
        let is_earlier = is_new && due < self.due;
        self.due = self.due.min(due);
        is_earlier
    }

    /// Begins a check if it is time. `is_idle`: nothing was ever sent to the cluster, so that checks are rare.
    pub fn handle_time(&mut self, rules: &HealthCheck, is_idle: bool, now: Instant, random: f64) -> bool {
        if now < self.due {
            return false;
        }
        if is_idle && !self.alarm && self.ended.is_some_and(|ended| now < ended + rules.no_traffic_interval) {
            self.due = now + self.pause(rules, random);
            return false;
        }
        self.is_urgent = std::mem::take(&mut self.alarm);
        // Until it ends, and should it never: the next one.
        self.due = now + rules.timeout + self.pause(rules, random);
        true
    }

    /// A check has ended. Returns the new state if it is another one.
    pub fn handle_finding(
        &mut self,
        rules: &HealthCheck,
        finding: Finding,
        now: Instant,
        random: f64,
    ) -> Option<State> {
        self.ended = Some(now);
        let is_urgent = std::mem::take(&mut self.is_urgent);
        let next = match (self.state, finding) {
            (_, Finding::Unknown) => None,
            (State::Unchecked, Finding::Passed) => Some(State::Healthy),
            (State::Unchecked, Finding::Failed | Finding::Refused) => Some(State::Unhealthy),
            (State::Healthy, Finding::Refused) => Some(State::Unhealthy),
            (State::Healthy, Finding::Failed) if is_urgent => Some(State::Unhealthy),
            (State::Healthy, Finding::Failed) => self.count(rules.unhealthy_threshold, State::Unhealthy),
            (State::Unhealthy, Finding::Passed) => self.count(rules.healthy_threshold, State::Healthy),
            (State::Healthy, Finding::Passed) | (State::Unhealthy, Finding::Failed | Finding::Refused) => {
                self.streak = 0;
                None
            }
        };
        if let Some(next) = next {
            (self.state, self.since, self.streak) = (next, now, 0);
        }
        self.due = now + self.pause(rules, random);
        if std::mem::take(&mut self.alarm) {
            self.handle_alarm(now); // It came while the check was under way.
        }
        next
    }

    fn count(&mut self, threshold: u32, then: State) -> Option<State> {
        self.streak = self.streak.saturating_add(1);
        (self.streak >= threshold).then_some(then)
    }

    fn pause(&self, rules: &HealthCheck, random: f64) -> Duration {
        let interval = if self.state == State::Unhealthy { rules.unhealthy_interval } else { rules.interval };
        interval + rules.jitter.mul_f64(random)
    }

    /// Does the check that is under way follow an alarm?
    pub fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    /// When [`Self::handle_time`] has something to do.
    pub fn poll_time(&self) -> Instant {
        self.due
    }

    /// What is thought of it.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Findings in a row that speak against it.
    pub fn streak(&self) -> u32 {
        self.streak
    }
}

#[cfg(test)]
mod tests;
