//! What becomes of a request that no endpoint of its backend can take: the next backend in order, or a prescribed answer.
//!
//! Only a request of which nothing has reached an application goes on to another backend.

use std::sync::Arc;

use http::StatusCode;

use super::attempt::{self, Failed, Sent, Tried, Upstreams};
use super::call::Call;
use super::guard::Guard;
use super::message::Head;
use super::{Worker, reply, retry};
use crate::error::ProxyError;
use crate::http::Body;
use crate::snapshot::Fallback;
use crate::telemetry::Record;
use crate::upstream::Kind;

/// Who answers.
pub(super) enum Answer {
    /// An endpoint, of whichever backend.
    Sent(Box<Sent>),
    /// We do, as the route says, for this reason.
    Prescribed(StatusCode, String, &'static str),
}

/// Where a request goes, and what is said of the way.
pub(super) struct Way<'a> {
    /// Who is asked first.
    pub(super) first: &'a Upstreams,
    /// Who is asked then.
    pub(super) fallback: &'a Fallback,
    /// How long it may take, and when it is repeated.
    pub(super) call: Option<&'a Call>,
}

/// As [`attempt::send`], with something to fall back on.
pub(super) async fn send(
    worker: &Worker,
    way: &Way<'_>,
    head: &mut Head,
    body: Body,
    record: &mut Record,
) -> Result<Answer, ProxyError> {
    let fallback = way.fallback;
    let repeatable = body.is_empty();
    let mut others = fallback.clusters.iter();
    let mut result = ask(worker, way.call, way.first, head, body, record).await;
    loop {
        let (reason, body) = match &mut result {
            // Its sidecar says that the application cannot be reached.
            Ok(sent) if repeatable && attempt::application_unreachable(sent) => ("peer_sidecar", Body::default()),
            Err(Failed { error, unsent }) if is_nobody_there(error) => match unsent.take() {
                Some(body) => (error.reason().code, body),
                None => break,
            },
            Ok(_) | Err(_) => break,
        };
        let Some(next) = others.next() else {
            match &fallback.response {
                // gRPC callers are told why in their own way.
                Some((status, text)) if !reply::is_grpc(&head.headers) => {
                    if let Err(Failed { error, .. }) = &result {
                        record.fail(reason, error.reason().flag, error.to_string());
                    }
                    return Ok(Answer::Prescribed(*status, text.clone(), reason));
                }
                _ => break,
            }
        };
        worker.shared.telemetry.metrics.fallback(next.upstream.name(), reason);
        record.step("fell_back", reason);
        record.cluster = Arc::clone(next.upstream.name());
        result = ask(worker, way.call, &Upstreams::Cluster(Arc::clone(next), None), head, body, record).await;
    }
    result.map(|sent| Answer::Sent(Box::new(sent))).map_err(|failed| failed.error)
}

/// One backend, with its own limits.
async fn ask(
    worker: &Worker,
    call: Option<&Call>,
    upstreams: &Upstreams,
    head: &mut Head,
    body: Body,
    record: &mut Record,
) -> Result<Sent, Failed> {
    if let Some(call) = call {
        return retry::send(worker, call, upstreams, head, body, record).await;
    }
    match Guard::enter(worker, upstreams, Kind::Request).await {
        Ok(mut guard) => attempt::send(worker, upstreams, head, body, &mut Tried::default(), &mut guard, record).await,
        Err(error) => Err(Failed { error, unsent: Some(body) }),
    }
}

/// Could no endpoint take it?
fn is_nobody_there(error: &ProxyError) -> bool {
    let is_short = matches!(
        error,
        ProxyError::NoHealthyUpstream(_)
            | ProxyError::NoAddress { .. }
            | ProxyError::BreakerOpen(_)
            | ProxyError::Overflow { .. }
            | ProxyError::PendingTimeout { .. }
    );
    is_short || error.never_sent()
}
