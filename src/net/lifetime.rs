//! How long a byte stream may last, as a whole and without a byte.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Limits of one stream and the clock that watches them.
#[derive(Debug)]
pub struct Lifetime {
    idle: Option<Duration>,
    until: Option<Instant>,
    /// Bytes when it was looked last, and since when there were as many.
    moved: u64,
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

/// Which limit has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// No byte either way for as long as it may be.
    Idle,
    /// The whole has lasted as long as it may.
    Over,
}

impl Lifetime {
    /// Without a byte for `idle`, and at most until `until`. `None`: there is no limit, and nothing to watch.
    pub fn new(idle: Option<Duration>, until: Option<Instant>) -> Option<Box<Self>> {
        if idle.is_none() && until.is_none() {
            return None;
        }
        let since = Instant::now();
        let first = next(idle, until, since)?;
        Some(Box::new(Self { idle, until, moved: 0, since, timer: Box::pin(sleep_until(first)) }))
    }

    /// Ready when a limit has passed. `moved` grows with every byte.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<Expired> {
        if moved != self.moved {
            (self.moved, self.since) = (moved, Instant::now());
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if self.until.is_some_and(|until| until <= now) {
                return Poll::Ready(Expired::Over);
            }
            match next(self.idle, self.until, self.since) {
                Some(at) if at > now => self.timer.as_mut().reset(at),
                _ => return Poll::Ready(Expired::Idle),
            }
        }
    }
}

/// When the first of the limits may pass.
fn next(idle: Option<Duration>, until: Option<Instant>, since: Instant) -> Option<Instant> {
    let idle_at = idle.and_then(|idle| since.checked_add(idle));
    idle_at.into_iter().chain(until).min()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_byte_and_the_whole_from_the_beginning() {
        assert!(Lifetime::new(None, None).is_none(), "nothing to watch");
        let start = Instant::now();
        let mut lifetime = Lifetime::new(Some(10 * SECOND), Some(start + 25 * SECOND)).unwrap();
        for moved in 1..=3_u64 {
            let expired = poll_fn(|cx| Poll::Ready(lifetime.poll_expired(cx, moved))).await;
            assert!(expired.is_pending());
            tokio::time::advance(7 * SECOND).await;
        }
        // 21 s have passed, the last byte came at 14 s.
        assert_eq!(poll_fn(|cx| lifetime.poll_expired(cx, 3)).await, Expired::Idle);
        assert_eq!(start.elapsed().as_secs(), 24);

        let mut lifetime = Lifetime::new(Some(10 * SECOND), Some(Instant::now() + 5 * SECOND)).unwrap();
        assert_eq!(poll_fn(|cx| lifetime.poll_expired(cx, 0)).await, Expired::Over);
    }
}
