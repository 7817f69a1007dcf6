//! What ends the body of a response before its time.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::call::Until;
use crate::error::ProxyError;
use crate::http::Activity;

/// A deadline, a longest silence, and somebody who may leave. They are looked at whenever the client takes more of the
/// body: one that takes nothing is a matter for its connection.
pub(super) struct Limits {
    until: Option<Until>,
    idle: Option<(Activity, Duration)>,
    gone: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    timer: Option<Pin<Box<Sleep>>>,
    /// A gRPC call, which is told in trailers.
    pub(super) is_grpc: bool,
}

impl Limits {
    /// `None`: there is nothing that would end it.
    pub(super) fn new(
        until: Option<Until>,
        idle: Option<(Activity, Duration)>,
        gone: Option<CancellationToken>,
        is_grpc: bool,
    ) -> Option<Box<Self>> {
        let gone = gone.map(|gone| Box::pin(gone.cancelled_owned()));
        let is_limited = until.is_some() || idle.is_some() || gone.is_some();
        is_limited.then(|| Box::new(Self { until, idle, gone, timer: None, is_grpc }))
    }

    /// Something came.
    pub(super) fn touch(&self) {
        if let Some((activity, _)) = &self.idle {
            activity.touch();
        }
    }

    /// Ready when the stream is to end, and why.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<ProxyError> {
        if let Some(gone) = &mut self.gone
            && gone.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(ProxyError::CallerGone);
        }
        loop {
            let idle_at = self.idle.as_ref().map(|(activity, limit)| activity.last() + *limit);
            let Some(at) = self.until.map(|until| until.at).into_iter().chain(idle_at).min() else {
                return Poll::Pending;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            if let Some(until) = self.until.filter(|until| until.at <= now) {
                return Poll::Ready(until.whose.error());
            }
            let is_idle = self.idle.as_ref().is_some_and(|(activity, limit)| activity.last() + *limit <= now);
            if is_idle {
                return Poll::Ready(ProxyError::StreamIdle);
            }
        }
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("until", &self.until).field("idle", &self.idle).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::Whose;
    use super::*;

    async fn over(limits: &mut Limits) -> ProxyError {
        std::future::poll_fn(|cx| limits.poll_over(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn whichever_limit_comes_first_ends_it_and_what_is_said_puts_silence_off() {
        let start = Instant::now();
        let (second, activity) = (Duration::from_secs(1), Activity::begin(start));
        let until = Until { at: start + second * 5, whose: Whose::Request };
        let mut limits = Limits::new(Some(until), Some((activity, second * 2)), None, false).expect("limited");
        tokio::time::advance(second).await;
        limits.touch();
        assert!(matches!(over(&mut limits).await, ProxyError::StreamIdle));
        assert_eq!(start.elapsed().as_secs(), 3);
        limits.touch();
        tokio::time::advance(second).await;
        limits.touch();
        assert!(matches!(over(&mut limits).await, ProxyError::RequestTimeout));
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_beyond_all_clocks_does_no_harm() {
        let at = Instant::now() + Duration::from_millis(u64::MAX);
        let gone = CancellationToken::new();
        let until = Some(Until { at, whose: Whose::Caller });
        let mut limits = Limits::new(until, None, Some(gone.clone()), false).expect("limited");
        assert!(std::future::poll_fn(|cx| Poll::Ready(limits.poll_over(cx).is_pending())).await);
        gone.cancel();
        assert!(matches!(over(&mut limits).await, ProxyError::CallerGone));
        assert!(Limits::new(None, None, None, true).is_none());
    }
}
