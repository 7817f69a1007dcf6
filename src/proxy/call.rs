//! What a route, and the inbound request that a call belongs to, say of the time that the call may take.

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::limits::Limits;
use super::message::Head;
use super::{Worker, reply};
use crate::config::{RetryPolicy, Treatment};
use crate::error::ProxyError;
use crate::http::{Activity, Body};
use crate::resilience::deadline::{self, GRPC_TIMEOUT};
use crate::resilience::joined::{Join, Table};
use crate::resilience::retry::PREVIOUS_ATTEMPTS;
use crate::telemetry::Record;

/// A request for which there is anything to say. Its deadline is fixed once, at its receipt, and holds over all tries.
#[derive(Debug)]
pub(super) struct Call {
    treatment: Arc<Treatment>,
    until: Option<Until>,
    join: Option<Join>,
    is_grpc: bool,
    activity: Option<Activity>,
    /// Tries before, of the application itself.
    attempts_before: u32,
}

/// A deadline, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    pub(super) at: Instant,
    pub(super) whose: Whose,
}

/// Who set a deadline.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose {
    /// The route, for the request.
    Request,
    /// The route, for one try.
    Try,
    /// The route, for the stream.
    Stream,
    /// Whoever waits for us: the request that the call belongs to, or the call's own `grpc-timeout`.
    Caller,
}

impl Call {
    /// `None`, without a look at the clock: nothing is configured for the route and no inbound request is joined.
    pub(super) fn of(worker: &Worker, treatment: Option<Arc<Treatment>>, head: &Head, record: &Record) -> Option<Self> {
        let received = record.started();
        let is_detached = treatment.as_ref().is_some_and(|treatment| treatment.detached);
        let table: &Table = &worker.shared.joined;
        let join = if is_detached { None } else { table.find(record.called_in_trace(), &head.headers) };
        if treatment.is_none() && join.is_none() {
            return None;
        }
        let treatment = treatment.unwrap_or_default();
        let is_grpc = reply::is_grpc(&head.headers);
        let mut until = None;
        let mut limit = |left: Option<Duration>, whose| {
            until = left
                .map(|left| Until { at: received + left, whose })
                .into_iter()
                .chain(until)
                .min_by_key(|until| until.at);
        };
        limit(treatment.request, Whose::Request);
        let said = head.headers.get(&GRPC_TIMEOUT).filter(|_| is_grpc).and_then(deadline::parse_grpc);
        let most = treatment.grpc_timeout_max.filter(|most| !most.is_zero());
        let said = said.map(|said| most.map_or(said, |most| said.min(most)));
        limit(said, Whose::Caller);
        // As in Envoy: where calls may set their own limit, it takes the place of the stream's.
        let is_said = treatment.grpc_timeout_max.is_some() && said.is_some();
        limit(treatment.max_duration.filter(|_| !is_said), Whose::Stream);
        let joined = join.as_ref().and_then(|join| join.facts.deadline);
        until =
            joined.map(|at| Until { at, whose: Whose::Caller }).into_iter().chain(until).min_by_key(|until| until.at);
        let activity = treatment.stream_idle.map(|_| Activity::begin(received));
        let before = head.headers.get(&PREVIOUS_ATTEMPTS).filter(|_| is_grpc);
        let attempts_before = before.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
        Some(Self { treatment, until, join, is_grpc, activity, attempts_before })
    }

    /// How it is repeated, if at all.
    pub(super) fn policy(&self) -> Option<&RetryPolicy> {
        self.treatment.retry.as_ref().filter(|policy| policy.attempts > 0)
    }

    /// It is a part of a try after somebody's first: to repeat it again would multiply.
    pub(super) fn is_nested(&self) -> bool {
        self.attempts_before > 0 || self.join.as_ref().is_some_and(|join| join.facts.is_retry)
    }

    /// Is there time for a pause and something after it?
    pub(super) fn has_time_for(&self, pause: Duration) -> bool {
        self.until.is_none_or(|until| Instant::now() + pause < until.at)
    }

    /// The body, of which it is noted when something is sent.
    pub(super) fn watched(&self, body: Body) -> Body {
        match &self.activity {
            Some(activity) => body.watched(activity),
            None => body,
        }
    }

    /// Writes down for whoever is behind how long we wait, and that this is the `retries`-th retry.
    pub(super) fn stamp(&self, head: &mut Head, retries: u32) {
        let now = Instant::now();
        let left = self.until.map(|until| until.at.saturating_duration_since(now));
        let left = left.into_iter().chain(self.treatment.per_try).min();
        head.onward.timeout = left;
        head.onward.is_retry = retries > 0 || self.is_nested();
        if !self.is_grpc {
            return;
        }
        if let Some(left) = left {
            head.headers.insert(GRPC_TIMEOUT, deadline::format_grpc(left));
        }
        if retries > 0 {
            head.headers.insert(PREVIOUS_ATTEMPTS, self.attempts_before.saturating_add(retries).into());
        }
    }

    /// One try, for as long as it may take.
    ///
    /// # Cancel safety
    /// As `work`, which is dropped when its time is over.
    pub(super) async fn try_in_time<T>(
        &self,
        work: impl Future<Output = Result<T, ProxyError>>,
    ) -> Result<T, ProxyError> {
        let own = self.treatment.per_try.map(|left| Until { at: Instant::now() + left, whose: Whose::Try });
        let until = own.into_iter().chain(self.until).min_by_key(|until| until.at);
        self.limited(until, work).await
    }

    /// Anything, for as long as the request may take.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, ProxyError> {
        self.limited(self.until, async { Ok(work.await) }).await
    }

    async fn limited<T>(
        &self,
        until: Option<Until>,
        work: impl Future<Output = Result<T, ProxyError>>,
    ) -> Result<T, ProxyError> {
        tokio::select! {
            biased;
            whose = passed(until) => Err(whose.error()),
            () = left(self.join.as_ref().map(|join| &join.gone)) => Err(ProxyError::CallerGone),
            () = self.idle() => Err(ProxyError::StreamIdle),
            result = work => result,
        }
    }

    /// Ends when nothing has been said for too long.
    async fn idle(&self) {
        let (Some(limit), Some(activity)) = (self.treatment.stream_idle, &self.activity) else {
            return pending().await;
        };
        loop {
            let at = activity.last() + limit;
            if at <= Instant::now() {
                return;
            }
            sleep_until(at).await;
        }
    }

    /// What is left of it for the body of the response.
    pub(super) fn limits(self) -> Option<Box<Limits>> {
        let idle = self.activity.zip(self.treatment.stream_idle);
        Limits::new(self.until, idle, self.join.map(|join| join.gone), self.is_grpc)
    }
}

async fn passed(until: Option<Until>) -> Whose {
    match until {
        Some(until) => {
            sleep_until(until.at).await;
            until.whose
        }
        None => pending().await,
    }
}

async fn left(gone: Option<&CancellationToken>) {
    match gone {
        Some(gone) => gone.cancelled().await,
        None => pending().await,
    }
}

impl Whose {
    pub(super) fn error(self) -> ProxyError {
        match self {
            Self::Request => ProxyError::RequestTimeout,
            Self::Try => ProxyError::TryTimeout,
            Self::Stream => ProxyError::MaxDuration,
            Self::Caller => ProxyError::CallerDeadline,
        }
    }
}
