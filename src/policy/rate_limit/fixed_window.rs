//! Requests of each period are counted, from its first request on.

use tokio::time::Instant;

use super::{Left, Rate, Verdict};

#[derive(Debug, Default)]
pub(super) struct FixedWindow {
    began: Option<Instant>,
    count: u32,
}

impl FixedWindow {
    pub(super) fn check(&mut self, rate: &Rate, now: Instant) -> Verdict {
        let began = match self.began.filter(|began| now < *began + rate.per) {
            Some(began) => began,
            None => {
                self.count = 0;
                now
            }
        };
        self.began = Some(began);
        let reset = (began + rate.per) - now;
        if self.count >= rate.requests {
            return Verdict::Refuse { retry_after: reset };
        }
        self.count += 1;
        Verdict::Pass(Left { requests: rate.requests - self.count, reset })
    }
}
