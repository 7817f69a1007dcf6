//! A request whose route says how long it may take, or when it is sent again.

use std::time::{Duration, SystemTime};

use futures_util::TryFutureExt as _;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::Worker;
use super::attempt::{self, Failed, Lease, Sent, Tried, Upstreams};
use super::call::Call;
use super::guard::Guard;
use super::message::{Head, REASON};
use crate::error::{ProxyError, Reason};
use crate::http::{Body, BoxError, Repeat};
use crate::resilience::retry::{Failure, Outcome, Retry, Verdict};
use crate::telemetry::Record;
use crate::upstream::Kind;

/// Bytes of an answer that are read to its end only to keep its connection.
const DISCARDED: u64 = 16 << 10;
/// How long that may take.
const DISCARD_WITHIN: Duration = Duration::from_secs(1);

/// As [`attempt::send`], within the time of `call`, and again as its policy says: never once a response has been taken,
/// and never beyond the budget of the destination.
///
/// # Cancel safety
/// As [`attempt::send`]; during a pause nothing is sent.
pub(super) async fn send(
    worker: &Worker,
    call: &Call,
    upstreams: &Upstreams,
    head: &mut Head,
    body: Body,
    record: &mut Record,
) -> Result<Sent, Failed> {
    let body = call.watched(body);
    let since = record.waits_for_limit();
    let entered = call.in_time(Guard::enter(worker, upstreams, Kind::Request)).await.flatten();
    let mut guard = match record.waited_for_limit(since, entered) {
        Ok(guard) => guard,
        Err(error) => return Err(Failed { error, unsent: Some(body) }),
    };
    let (Some(policy), Upstreams::Cluster(cluster, _)) = (call.policy(), upstreams) else {
        call.stamp(head, 0);
        let (mut tried, mut unsent) = (Tried::default(), None);
        let sent = attempt::send(worker, upstreams, head, body, &mut tried, &mut guard, record);
        let sent = sent.map_err(|failed| {
            unsent = failed.unsent;
            failed.error
        });
        let sent = call.try_in_time(sent).await;
        return sent.map_err(|error| {
            record.attempt_over(error.reason().code);
            failed(error, &mut guard, unsent)
        });
    };
    let (budget, limit) = (&cluster.upstream.budget, cluster.config.retry_budget);
    let metrics = &worker.shared.telemetry.metrics;
    let _active = budget.begin();
    let body = Repeat::new(body, policy.body_limit);
    let (mut retry, mut tried, mut permit) = (Retry::new(policy), Tried::followed(), None);
    loop {
        call.stamp(head, retry.done());
        let sent = attempt::send(worker, upstreams, head, body.reader(), &mut tried, &mut guard, record);
        let mut result = call.try_in_time(sent.map_err(|failed| failed.error)).await;
        match &mut result {
            Ok(sent) => guard = std::mem::take(&mut sent.guard), // It goes with the response that is taken.
            Err(error) => {
                guard.failed(error);
                record.attempt_over(error.reason().code);
            }
        }
        drop(permit.take());
        tried.leave();
        let is_retry = retry.done() > 0;
        let verdict = retry.handle(outcome(&result), rand::random(), SystemTime::now());
        let pause = may_go_on(call, verdict, body.is_whole()).and_then(|pause| {
            permit = budget.permit(limit, Instant::now());
            match &permit {
                None => Err(Some(("retry_budget_exhausted", "UO"))),
                Some(_) if !guard.may_retry() => Err(Some(("retry_overflow", "UO"))),
                Some(_) => Ok(pause),
            }
        });
        let pause = match pause {
            Ok(pause) => pause,
            Err(why) => {
                match why {
                    Some((why, flag)) => give_up(worker, &result, why, flag, record),
                    None if is_retry && result.is_ok() => metrics.retry("succeeded"),
                    None => {}
                }
                let unsent = || body.is_whole().then(|| body.reader());
                return result.map(|sent| Sent { guard, ..sent }).map_err(|error| Failed { error, unsent: unsent() });
            }
        };
        metrics.retry("retried");
        let why = cause(&result);
        record.attempt_over(why);
        record.trace_event("retry", why);
        record.step("retried", why);
        if let Err(error) = &result {
            tracing::debug!(%error, ?pause, "sending the request again");
        }
        if let Ok(sent) = result {
            discard(sent);
        }
        call.in_time(sleep(pause)).await.map_err(|error| Failed { error, unsent: None })?;
    }
}

/// The pause before another try; else that what came is taken, and for which reason if it is one to try again.
fn may_go_on(call: &Call, verdict: Verdict, is_whole: bool) -> Result<Duration, Option<(&'static str, &'static str)>> {
    match verdict {
        Verdict::Take => Err(None),
        Verdict::Exhausted => Err(Some(("retries_exhausted", "URX"))),
        Verdict::After(_) if call.is_nested() => Err(Some(("retry_nested", ""))),
        Verdict::After(_) if !is_whole => Err(Some(("retry_body_too_large", ""))),
        Verdict::After(pause) if !call.has_time_for(pause) => Err(Some(("retry_no_time", "UT"))),
        Verdict::After(pause) => Ok(pause),
    }
}

/// The code of what is sent again.
fn cause(result: &Result<Sent, ProxyError>) -> &'static str {
    match result {
        Ok(sent) => match behind(sent) {
            Some(_) => "peer_sidecar",
            None => "answered",
        },
        Err(error) => error.reason().code,
    }
}

/// Who was asked is told of a failure, also of one that is a matter of time.
fn failed(error: ProxyError, guard: &mut Guard, unsent: Option<Body>) -> Failed {
    guard.failed(&error);
    Failed { error, unsent }
}

/// Nobody reads it. Its stream is reset; an HTTP/1.1 connection is kept when little more comes on it.
fn discard(sent: Sent) {
    let (mut body, lease) = (sent.response.into_body(), sent.lease);
    let Lease::Http1(lease) = lease else { return };
    if body.size_hint().upper().is_none_or(|length| length > DISCARDED) {
        return;
    }
    tokio::spawn(async move {
        let rest = async {
            while let Some(frame) = body.frame().await {
                frame?;
            }
            Ok::<_, BoxError>(())
        };
        if matches!(timeout(DISCARD_WITHIN, rest).await, Ok(Ok(()))) {
            lease.give_back();
        }
    });
}

/// What came is taken after all; the record says why.
fn give_up(
    worker: &Worker,
    result: &Result<Sent, ProxyError>,
    why: &'static str,
    flag: &'static str,
    record: &mut Record,
) {
    worker.shared.telemetry.metrics.retry(why);
    match result {
        Ok(sent) => {
            let detail = format!("answered {} after {} tries", sent.response.status(), record.attempts);
            record.fail(why, flag, detail);
        }
        Err(error) => {
            let Reason { code, flag: own, .. } = error.reason();
            record.fail(code, if flag.is_empty() { own } else { flag }, format!("{error} ({why})"));
        }
    }
}

fn outcome(result: &Result<Sent, ProxyError>) -> Outcome<'_> {
    match result {
        Ok(sent) => Outcome::Response {
            status: sent.response.status().as_u16(),
            headers: sent.response.headers(),
            behind: behind(sent),
        },
        Err(error) => Outcome::Failure(failure(error)),
    }
}

/// What the host's sidecar met with, when it answered in the application's stead.
fn behind(sent: &Sent) -> Option<Failure> {
    let reason = sent.response.headers().get(REASON).filter(|_| sent.host.key().mesh.is_some())?;
    match reason.as_bytes() {
        b"connect_failure" | b"connect_timeout" => Some(Failure::Connect),
        b"upstream_refused" => Some(Failure::Refused),
        b"upstream_reset" | b"upstream_protocol" | b"idle_race" => Some(Failure::Reset),
        _ => None,
    }
}

fn failure(error: &ProxyError) -> Failure {
    match error {
        ProxyError::UpstreamRefused(_) => Failure::Refused,
        ProxyError::UpstreamReset { .. } | ProxyError::IdleRace(_) | ProxyError::UpstreamProtocol { .. } => {
            Failure::Reset
        }
        ProxyError::TryTimeout => Failure::PerTry,
        error if error.never_sent() => Failure::Connect,
        _ => Failure::Final,
    }
}
