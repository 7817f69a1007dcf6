//! Two counters: this window's, and the last one's in proportion to how much of it lies in the last period.

use std::time::Duration;

use tokio::time::Instant;

use super::{Left, Rate, Verdict};

#[derive(Debug, Default)]
pub(super) struct SlidingCounter {
    began: Option<Instant>,
    count: u32,
    before: u32,
}

impl SlidingCounter {
    pub(super) fn check(&mut self, rate: &Rate, now: Instant) -> Verdict {
        let began = self.turn(rate, now);
        let into = now - began;
        let rest = rate.per.saturating_sub(into);
        // Exact in integers: `before * rest / per` would round away up to one request.
        let used = u128::from(self.before) * rest.as_nanos() + u128::from(self.count) * rate.per.as_nanos();
        let limit = u128::from(rate.requests) * rate.per.as_nanos();
        let one = rate.per.as_nanos();
        if used + one > limit {
            return Verdict::Refuse { retry_after: self.until_one_fits(rate, rest) };
        }
        self.count += 1;
        let requests = u32::try_from((limit - used - one) / one.max(1)).unwrap_or(u32::MAX);
        Verdict::Pass(Left { requests, reset: rest })
    }

    /// Begins a new window when this one is over.
    fn turn(&mut self, rate: &Rate, now: Instant) -> Instant {
        let began = match self.began {
            Some(began) if now < began + rate.per => return began,
            Some(began) if now < began + rate.per * 2 => {
                self.before = self.count;
                began + rate.per
            }
            _ => {
                self.before = 0;
                now
            }
        };
        self.count = 0;
        self.began = Some(began);
        began
    }

    /// The share of a window that is over shrinks evenly, until there is room for one.
    fn until_one_fits(&self, rate: &Rate, rest: Duration) -> Duration {
        let (over, room, begins) = if self.count < rate.requests {
            (self.before, rate.requests - self.count - 1, rest)
        } else {
            (self.count, rate.requests - 1, rest + rate.per) // This window has to be over first.
        };
        let share = rate.per.mul_f64(f64::from(room) / f64::from(over.max(1)));
        begins.saturating_sub(share).max(Duration::from_nanos(1))
    }
}
