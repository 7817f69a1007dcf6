//! Rate limits: how many requests pass, one file per way of counting.
//!
//! No I/O and no clock: time is an argument. What is counted is shared by all workers behind a short lock, so that N of
//! them admit as one.

mod fixed_window;
mod keyed;
mod leaky_bucket;
mod sliding_counter;
mod sliding_log;
mod token_bucket;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pillion_wire::rate_limit::{Algorithm, RateLimit};
use tokio::time::Instant;

use fixed_window::FixedWindow;
use keyed::Keyed;
use leaky_bucket::LeakyBucket;
use sliding_counter::SlidingCounter;
use sliding_log::SlidingLog;
use token_bucket::TokenBucket;

/// What a limit says to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Pass(Left),
    /// It may go on after this time; its place is taken.
    Wait(Duration),
    /// It may not.
    Refuse {
        /// When another one might fit.
        retry_after: Duration,
    },
}

/// What is left of a limit (`RateLimit` header of draft-ietf-httpapi-ratelimit-headers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Requests that would pass now.
    pub requests: u32,
    /// When there are more, or all again.
    pub reset: Duration,
}

/// One limit and all that it counts.
#[derive(Debug)]
pub struct Limiter {
    config: RateLimit,
    rate: Rate,
    counted: Counted,
}

#[derive(Debug)]
enum Counted {
    Together(Mutex<State>),
    Apart(Keyed<State>),
}

/// A limit in numbers.
#[derive(Clone, Copy, Debug)]
struct Rate {
    requests: u32,
    per: Duration,
    burst: u32,
    longest_wait: Duration,
}

/// How long a caller is told to wait for somebody to end that nobody knows the end of.
const ANY_TIME: Duration = Duration::from_secs(1);

/// A request that is under way, for a limit that counts those; gives its place back when dropped.
#[derive(Debug)]
pub struct Place {
    limiter: Arc<Limiter>,
    key: Box<str>,
}

/// What one key has used.
#[derive(Debug)]
enum State {
    TokenBucket(TokenBucket),
    LeakyBucket(LeakyBucket),
    FixedWindow(FixedWindow),
    SlidingLog(SlidingLog),
    SlidingCounter(SlidingCounter),
    /// Under way.
    Concurrency(u32),
}

impl Limiter {
    /// Nothing counted yet.
    pub fn new(config: RateLimit) -> Self {
        let rate = Rate {
            requests: config.requests.get(),
            per: Duration::from_millis(config.per_millis.get().into()),
            burst: config.burst.get(),
            longest_wait: Duration::from_millis(config.longest_wait_millis.into()),
        };
        let counted = if config.keys.is_empty() {
            Counted::Together(Mutex::new(State::new(config.algorithm)))
        } else {
            Counted::Apart(Keyed::new(usize::try_from(config.most_keys.get()).unwrap_or(usize::MAX)))
        };
        Self { config, rate, counted }
    }

    /// What it was made from.
    pub fn config(&self) -> &RateLimit {
        &self.config
    }

    /// May another request pass that has this `key`? (A limit without keys does not look at it.) If so, it is counted.
    pub fn check(&self, key: &str, now: Instant) -> Verdict {
        match &self.counted {
            Counted::Together(state) => state.lock().check(&self.rate, now),
            Counted::Apart(states) => {
                let new = || State::new(self.config.algorithm);
                let verdict = states.with(key, new, State::is_idle, |state| state.check(&self.rate, now));
                verdict.unwrap_or(Verdict::Refuse { retry_after: ANY_TIME })
            }
        }
    }

    /// As [`Self::check`]; with the place that the request has, where those under way are counted.
    pub fn admit(self: &Arc<Self>, key: &str, now: Instant) -> (Verdict, Option<Place>) {
        let verdict = self.check(key, now);
        let takes_place = self.config.algorithm == Algorithm::Concurrency && matches!(verdict, Verdict::Pass(_));
        (verdict, takes_place.then(|| Place { limiter: Arc::clone(self), key: key.into() }))
    }

    fn leave(&self, key: &str) {
        match &self.counted {
            Counted::Together(state) => state.lock().leave(),
            Counted::Apart(states) => states.with_known(key, State::leave),
        }
    }

    /// How many keys are remembered.
    pub fn keys(&self) -> usize {
        match &self.counted {
            Counted::Together(_) => 0,
            Counted::Apart(states) => states.len(),
        }
    }
}

impl State {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::TokenBucket => Self::TokenBucket(TokenBucket::default()),
            Algorithm::LeakyBucket => Self::LeakyBucket(LeakyBucket::default()),
            Algorithm::FixedWindow => Self::FixedWindow(FixedWindow::default()),
            Algorithm::SlidingWindowLog => Self::SlidingLog(SlidingLog::default()),
            Algorithm::SlidingWindowCounter => Self::SlidingCounter(SlidingCounter::default()),
            Algorithm::Concurrency => Self::Concurrency(0),
        }
    }

    fn check(&mut self, rate: &Rate, now: Instant) -> Verdict {
        match self {
            Self::TokenBucket(state) => state.check(rate, now),
            Self::LeakyBucket(state) => state.check(rate, now),
            Self::FixedWindow(state) => state.check(rate, now),
            Self::SlidingLog(state) => state.check(rate, now),
            Self::SlidingCounter(state) => state.check(rate, now),
            Self::Concurrency(count) if *count >= rate.requests => Verdict::Refuse { retry_after: ANY_TIME },
            Self::Concurrency(count) => {
                *count += 1;
                Verdict::Pass(Left { requests: rate.requests - *count, reset: ANY_TIME })
            }
        }
    }

    /// One that was under way has ended.
    fn leave(&mut self) {
        if let Self::Concurrency(count) = self {
            *count = count.saturating_sub(1);
        }
    }

    /// It may be forgotten: nothing would be counted twice.
    fn is_idle(&self) -> bool {
        !matches!(self, Self::Concurrency(count) if *count > 0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limiter.leave(&self.key);
    }
}

impl Rate {
    /// The time that one request stands for.
    fn interval(&self) -> Duration {
        self.per / self.requests.max(1)
    }
}

#[cfg(test)]
mod tests;
