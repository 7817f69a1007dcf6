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
