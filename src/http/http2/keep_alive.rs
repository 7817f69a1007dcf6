//! A silent peer is asked whether it is still there (RFC 9113, section 6.7).

use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often silence is looked for.
const TICK: Duration = Duration::from_secs(10);
/// Silent ticks after which the peer is asked; one more, and it is lost. That is after 30 to 40 s.
const ASK_AFTER: u32 = 2;

/// Watches one connection.
#[derive(Debug)]
pub(super) struct KeepAlive {
    pings: Option<PingPong>,
    tick: Interval,
    seen: u64,
    silent: u32,
}

impl KeepAlive {
    /// Begins now. `pings` is what the connection has for it.
    pub(super) fn new(pings: Option<PingPong>) -> Self {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { pings, tick, seen: 0, silent: 0 }
    }

    /// Asks the peer now.
    pub(super) fn ask(&mut self) {
        if let Some(pings) = &mut self.pings {
            // One that is under way does as well; a connection that is closing takes none.
            let _asked_or_closing = pings.send_ping(Ping::opaque());
        }
    }

    /// Ready when the peer is lost. `reads` grows with whatever it says; while it is not `wanted`, it may be silent.
    pub(super) fn poll_lost(&mut self, cx: &mut Context<'_>, reads: u64, wanted: bool) -> Poll<()> {
        while self.tick.poll_tick(cx).is_ready() {
            if reads != self.seen {
                (self.seen, self.silent) = (reads, 0);
                continue;
            }
            if !wanted {
                continue;
            }
            self.silent += 1;
            if self.silent > ASK_AFTER {
                return Poll::Ready(());
            }
            if let Some(pings) = self.pings.as_mut().filter(|_| self.silent == ASK_AFTER) {
                // The answer to an earlier one makes way for the next; a connection that is closing takes none.
                let _earlier = pings.poll_pong(cx);
                let _closing = pings.send_ping(Ping::opaque());
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{Instant, timeout};

    use super::*;

    async fn lost(keep_alive: &mut KeepAlive, reads: u64, wanted: bool) -> Option<Duration> {
        let began = Instant::now();
        let lost = poll_fn(|cx| keep_alive.poll_lost(cx, reads, wanted));
        timeout(Duration::from_secs(3600), lost).await.is_ok().then(|| began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_lost_after_40_s_of_silence_if_anybody_needs_it() {
        let mut keep_alive = KeepAlive::new(None);
        assert_eq!(lost(&mut keep_alive, 1, false).await, None, "nobody needs it");
        let silence = lost(&mut keep_alive, 2, true).await.expect("it is silent");
        assert!((Duration::from_secs(29)..=Duration::from_secs(40)).contains(&silence), "{silence:?}");
        let again = lost(&mut keep_alive, 3, true).await.expect("it said something, and is silent again");
        assert!(again >= Duration::from_secs(29), "{again:?}");
    }
}
