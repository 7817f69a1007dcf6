//! Requests pass one by one at an even pace; those that come ahead of it wait, up to a limit (shaping).

use tokio::time::Instant;

use super::{Left, Rate, Verdict};

/// The queue is kept as the time of its next free place.
#[derive(Debug, Default)]
pub(super) struct LeakyBucket {
    next: Option<Instant>,
}

impl LeakyBucket {
    pub(super) fn check(&mut self, rate: &Rate, now: Instant) -> Verdict {
        let place = self.next.map_or(now, |next| next.max(now));
        let wait = place - now;
        if wait > rate.longest_wait {
            return Verdict::Refuse { retry_after: wait - rate.longest_wait };
        }
        self.next = Some(place + rate.interval());
        if wait.is_zero() {
            return Verdict::Pass(Left { requests: 0, reset: rate.interval() });
        }
        Verdict::Wait(wait)
    }
}
