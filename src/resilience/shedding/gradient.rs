//! How many requests may be under way, found by what they take: Envoy's gradient controller
//! (`envoy.extensions.filters.http.adaptive_concurrency.v3`, after Netflix's concurrency-limits).
//!
//! The latency without load, minRTT, is measured now and then while few are under way; after every window the limit is
//! multiplied by minRTT (and a buffer) over the latency now, and given room for a burst: `limit * gradient + √`. So where
//! requests queue it falls, by half at most, and where they do not it rises, to twice at most.
//!
//! Other than in Envoy
//! - it begins at the most that is allowed and comes down, so that to switch it on refuses nobody who would be served;
//! - it does not rise while less than half of it is used (Netflix `Gradient2Limit`): nothing shows that it could;
//! - a window is judged from ten latencies on, and goes on until there are;
//! - while minRTT is measured, those who are too many for that are not refused but held back: see [`Gradient::holds`]. From
//!   [`HOLD`] on few latencies have to do, and after three times the latency of then it ends without a result: by that time
//!   all that was under way before has ended, whatever queue there was, or never will;
//! - a request that is given up or fails after longer than minRTT counts: it would have taken at least so long. Else callers
//!   that lose patience, and applications whose own time limits make errors of it, would hide that everything is slow. One
//!   that fails sooner says nothing: to fail is quick.

use std::time::Duration;

use pillion_wire::load_shedding::Gradient as Settings;
use tokio::time::Instant;

/// How long requests are held back for one measurement, for as good a result as is asked for.
pub(super) const HOLD: Duration = Duration::from_secs(1);
/// The same for any result at all, whatever the latency is.
const LONGEST_HOLD: Duration = Duration::from_secs(30);
/// Latencies from which on a window says something.
const LEAST_SAMPLES: usize = 10;
/// The same for a measurement that takes too long: those of the first requests, which were few.
const LEAST_MEASURED: u32 = 3;
/// Latencies that are remembered; of more in one window the oldest are forgotten.
const MOST_SAMPLES: usize = 4096;
/// Windows in a row at the least limit, after which minRTT is believed no more (as in Envoy).
const DOUBTS: u32 = 5;

/// The limit, and what it is found from.
#[derive(Debug)]
pub struct Gradient {
    settings: Settings,
    limit: u32,
    min_rtt: Option<Duration>,
    sample_rtt: Option<Duration>,
    phase: Phase,
    samples: Samples,
    /// The most that were under way in this window.
    peak: u32,
    /// Windows in a row after which the limit was the least.
    at_least: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// minRTT is measured, by requests that began since then.
    Measuring { since: Instant, hold: Hold },
    /// It is known; the window ends, and it is measured again, at these times.
    Steady { window: Instant, again: Option<Instant> },
}

#[derive(Clone, Copy, Debug)]
enum Hold {
    /// Nobody has been held back.
    Ready,
    /// Somebody has, since then.
    Since(Instant),
    /// That has been enough.
    Over,
}

#[derive(Debug, Default)]
struct Samples {
    latencies: Vec<Duration>,
    next: usize,
}

impl Gradient {
    /// What it goes by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Begins to measure, unless minRTT is told.
    pub fn new(settings: Settings, now: Instant) -> Self {
        let fixed = settings.min_rtt.fixed;
        let phase = match fixed {
            Some(_) => Phase::Steady { window: now + settings.update_interval, again: None },
            None => Phase::Measuring { since: now, hold: Hold::Ready },
        };
        Self {
            limit: settings.most.max(settings.floor()),
            settings,
            min_rtt: fixed,
            sample_rtt: None,
            phase,
            samples: Samples::default(),
            peak: 0,
            at_least: 0,
        }
    }

    /// Goes on with other settings, and with all that is known: the limit is only brought into their bounds, and neither
    /// what was planned nor what is being measured is put off. What was fixed and is no longer is measured at once.
    pub fn set(&mut self, settings: Settings, now: Instant, random: impl FnOnce() -> f64) {
        let was_fixed = self.settings.min_rtt.fixed.is_some();
        self.settings = settings;
        let floor = self.settings.floor();
        self.limit = self.limit.clamp(floor, self.settings.most.max(floor));
        self.at_least = 0;
        let next = now + self.settings.update_interval;
        match (self.settings.min_rtt.fixed, self.phase) {
            (Some(fixed), phase) => {
                if self.min_rtt.replace(fixed) != Some(fixed) || matches!(phase, Phase::Measuring { .. }) {
                    self.samples.clear();
                }
                let window = if let Phase::Steady { window, .. } = phase { window.min(next) } else { next };
                self.phase = Phase::Steady { window, again: None };
            }
            (None, _) if was_fixed => {
                self.min_rtt = None;
                self.measure(now);
            }
            (None, Phase::Steady { window, again }) => {
                let soonest = self.planned(now, random);
                let again = again.map_or(soonest, |again| again.min(soonest));
                self.phase = Phase::Steady { window: window.min(next), again: Some(again) };
            }
            (None, Phase::Measuring { .. }) => {}
        }
    }

    /// How many may be under way.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The latency without load, once it is known.
    pub fn min_rtt(&self) -> Option<Duration> {
        self.min_rtt
    }

    /// The latency of the last window that said something.
    pub fn sample_rtt(&self) -> Option<Duration> {
        self.sample_rtt
    }

    /// Is minRTT being measured?
    pub fn is_measuring(&self) -> bool {
        matches!(self.phase, Phase::Measuring { .. })
    }

    /// Until when requests are held back at most. `None`: they are not.
    pub fn held_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Measuring { hold: Hold::Since(since), .. } => Some(since + self.longest_hold()),
            _ => None,
        }
    }

    fn longest_hold(&self) -> Duration {
        let latency = self.sample_rtt.max(self.min_rtt).unwrap_or_default();
        latency.saturating_mul(3).clamp(HOLD, LONGEST_HOLD)
    }

    /// Is a request to wait that comes while so many are being served, since minRTT is measured?
    pub fn holds(&mut self, in_service: u32, now: Instant) -> bool {
        let concurrency = self.settings.min_rtt.concurrency;
        let Phase::Measuring { hold, .. } = &mut self.phase else { return false };
        if in_service < concurrency || matches!(hold, Hold::Over) {
            return false;
        }
        if matches!(hold, Hold::Ready) {
            *hold = Hold::Since(now);
        }
        true
    }

    /// So many are under way.
    pub fn handle_in_flight(&mut self, count: u32) {
        self.peak = self.peak.max(count);
    }

    /// A request that began at `started` took this long. `random` is from 0 to 1.
    pub fn handle_latency(&mut self, started: Instant, latency: Duration, now: Instant, random: impl FnOnce() -> f64) {
        match self.phase {
            Phase::Measuring { since, .. } if started < since => return, // It began among many.
            _ => self.samples.push(latency),
        }
        if self.has_measured(now) {
            self.measured(now, random);
        }
    }

    /// A request was given up by its caller, or failed, after this time.
    pub fn handle_given_up(&mut self, waited: Duration) {
        let is_long = self.buffered().is_some_and(|usual| waited > usual);
        if is_long && !self.is_measuring() {
            self.samples.push(waited);
        }
    }

    /// Ends what has ended by `now`. To be called before anything else is asked.
    pub fn handle_time(&mut self, now: Instant, random: impl FnOnce() -> f64) {
        match self.phase {
            Phase::Measuring { .. } if self.has_measured(now) => self.measured(now, random),
            Phase::Measuring { .. } if self.held_until().is_some_and(|until| now >= until) => {
                self.held_in_vain(now, random);
            }
            Phase::Steady { again: Some(again), .. } if now >= again => self.measure(now),
            Phase::Steady { window, again } if now >= window && self.samples.latencies.len() >= LEAST_SAMPLES => {
                self.phase = Phase::Steady { window: now + self.settings.update_interval, again };
                self.update(now);
            }
            _ => {}
        }
    }

    fn has_measured(&self, now: Instant) -> bool {
        let Phase::Measuring { hold, .. } = self.phase else { return false };
        let params = &self.settings.min_rtt;
        let is_enough = match hold {
            Hold::Ready => false,
            Hold::Since(since) => now >= since + HOLD,
            Hold::Over => true,
        };
        let wanted = if is_enough { LEAST_MEASURED.min(params.requests) } else { params.requests };
        self.samples.latencies.len() >= count(wanted)
    }

    fn measure(&mut self, now: Instant) {
        self.phase = Phase::Measuring { since: now, hold: Hold::Ready };
        self.samples.clear();
        self.at_least = 0;
    }

    fn measured(&mut self, now: Instant, random: impl FnOnce() -> f64) {
        self.min_rtt = self.samples.percentile(self.settings.percentile.share()).or(self.min_rtt);
        self.steady(now, random);
    }

    fn steady(&mut self, now: Instant, random: impl FnOnce() -> f64) {
        let again = self.planned(now, random);
        self.phase = Phase::Steady { window: now + self.settings.update_interval, again: Some(again) };
        self.samples.clear();
        self.peak = 0;
    }

    /// When it is measured again if that is planned now.
    fn planned(&self, now: Instant, random: impl FnOnce() -> f64) -> Instant {
        let params = &self.settings.min_rtt;
        now + params.interval.mul_f64(1.0 + params.jitter.share() * random())
    }

    /// What was known before has to do; else it goes on with nobody held back.
    fn held_in_vain(&mut self, now: Instant, random: impl FnOnce() -> f64) {
        if self.min_rtt.is_some() {
            self.steady(now, random);
        } else if let Phase::Measuring { hold, .. } = &mut self.phase {
            *hold = Hold::Over;
        }
    }

    fn update(&mut self, now: Instant) {
        let peak = std::mem::take(&mut self.peak);
        let (Some(usual), Some(sample)) = (self.buffered(), self.samples.percentile(self.settings.percentile.share()))
        else {
            return;
        };
        self.samples.clear();
        self.sample_rtt = Some(sample);
        let gradient = (usual.as_secs_f64() / sample.as_secs_f64()).clamp(0.5, 2.0);
        let aimed = f64::from(self.limit) * gradient;
        let floor = self.settings.floor();
        let next = ((aimed + aimed.sqrt()) as u32).clamp(floor, self.settings.most.max(floor));
        let is_used = peak.saturating_mul(2) >= self.limit;
        if next > self.limit && !is_used {
            return;
        }
        self.at_least = if (self.limit, next) == (floor, floor) { self.at_least + 1 } else { 0 };
        self.limit = next;
        if self.at_least >= DOUBTS && self.settings.min_rtt.fixed.is_none() {
            self.measure(now);
        }
    }

    fn buffered(&self) -> Option<Duration> {
        Some(self.min_rtt?.mul_f64(1.0 + self.settings.min_rtt.buffer.share()))
    }
}

impl Samples {
    fn push(&mut self, latency: Duration) {
        let latency = latency.max(Duration::from_micros(1)); // It is divided by.
        if self.latencies.len() < MOST_SAMPLES {
            return self.latencies.push(latency);
        }
        if let Some(oldest) = self.latencies.get_mut(self.next) {
            *oldest = latency;
        }
        self.next = (self.next + 1) % MOST_SAMPLES;
    }

    fn clear(&mut self) {
        self.latencies.clear();
        self.next = 0;
    }

    /// The nearest rank. `None` of nothing.
    fn percentile(&mut self, share: f64) -> Option<Duration> {
        let last = self.latencies.len().checked_sub(1)?;
        let rank = ((share * self.latencies.len() as f64).ceil() as usize).saturating_sub(1).min(last);
        Some(*self.latencies.select_nth_unstable(rank).1)
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
