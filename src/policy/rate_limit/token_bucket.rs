//! A bucket of tokens that fills evenly; each request takes one.

use tokio::time::Instant;

use super::{Left, Rate, Verdict};

/// The bucket is kept as the time at which it was, or will be, empty: as GCRA, whose arithmetic is exact (ITU-T I.371).
#[derive(Debug, Default)]
pub(super) struct TokenBucket {
    /// `None`: full.
    empty_at: Option<Instant>,
}

impl TokenBucket {
    pub(super) fn check(&mut self, rate: &Rate, now: Instant) -> Verdict {
        let interval = rate.interval();
        let full = interval * rate.burst;
        // What has filled up since, and never more than it holds.
        let earliest = now.checked_sub(full).unwrap_or(now);
        let empty_at = self.empty_at.map_or(earliest, |at| at.max(earliest));
        let next = empty_at + interval;
        if next > now {
            return Verdict::Refuse { retry_after: next - now };
        }
        self.empty_at = Some(next);
        let left = (now - next).as_nanos() / interval.as_nanos().max(1);
        let requests = u32::try_from(left).unwrap_or(u32::MAX);
        Verdict::Pass(Left { requests, reset: (next + full).saturating_duration_since(now) })
    }
}
