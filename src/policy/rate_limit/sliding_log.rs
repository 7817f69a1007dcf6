//! The time of each request of the last period is remembered: exact, at 16 bytes each.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{Left, Rate, Verdict};

#[derive(Debug, Default)]
pub(super) struct SlidingLog {
    passed: VecDeque<Instant>,
}

impl SlidingLog {
    pub(super) fn check(&mut self, rate: &Rate, now: Instant) -> Verdict {
        while self.passed.front().is_some_and(|first| *first + rate.per <= now) {
            self.passed.pop_front();
        }
        let used = u32::try_from(self.passed.len()).unwrap_or(u32::MAX);
        let reset = self.passed.front().map_or(rate.per, |first| (*first + rate.per) - now);
        if used >= rate.requests {
            return Verdict::Refuse { retry_after: reset };
        }
        self.passed.push_back(now);
        Verdict::Pass(Left { requests: rate.requests - used - 1, reset })
    }
}
