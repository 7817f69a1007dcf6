//! Asking a rate-limit service whether a request is too much (`RateLimitService.ShouldRateLimit`), over the mesh as any
//! other call: its hosts are found, picked, verified and kept connected like those of the application's own calls.
//!
//! What a service that is dead or slow costs a request is the limit's timeout, once: nothing is repeated after it, and
//! beyond [`MOST_CALLS`] nobody waits at all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, request};
use http_body_util::{BodyExt as _, Limited};
use pillion_wire::rate_limit::SHOULD_RATE_LIMIT;
use pillion_wire::xds::rate_limit_service::{RateLimitRequest, RateLimitResponse};
use tokio::time::timeout;

use super::Worker;
use super::attempt::{self, Tried, Upstreams};
use super::authority::Authority;
use super::client::Client;
use super::guard::Guard;
use super::http::reply;
use super::message::{Head, Situation, Version};
use super::rate_limit;
use super::reply::ReplyBody;
use crate::config::Keep;
use crate::error::{OverLimit, ProxyError};
use crate::filter::headers;
use crate::http::{Body, frame, unframe};
use crate::policy::global_rate_limit::{self as policy, Answer, Source, Told};
use crate::resilience::deadline::{GRPC_TIMEOUT, format_grpc};
use crate::snapshot::GlobalLimit;
use crate::telemetry::Record;
use crate::upstream::Kind;

/// Questions under way for one port at a time, over all workers; beyond them it is as if there were no answer.
const MOST_CALLS: u32 = 1024;
/// Connections made behind the back of questions that timed out, for one port.
const MOST_WARMED: u32 = 4;
/// Bytes of an answer, at most.
const LONGEST_ANSWER: usize = 64 << 10;

/// Envoy's word for a request that a rate limit refused.
const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
/// What belongs to the request's trace (W3C Trace Context).
const TRACE: [HeaderName; 2] = [HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate")];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("it took longer than {0:?}")]
    Late(Duration),
    #[error("too many questions are under way")]
    TooMany,
    #[error("{0}")]
    Failed(ProxyError),
    #[error("it answered with HTTP status {0}")]
    Http(StatusCode),
    #[error("it answered with gRPC status {0}")]
    Grpc(String),
    #[error("its answer cannot be read")]
    Unreadable,
}

impl NoAnswer {
    /// For metrics.
    fn code(&self) -> &'static str {
        match self {
            Self::Late(_) => "timeout",
            Self::TooMany => "overflow",
            Self::Failed(error) => error.reason().code,
            Self::Http(_) => "http_status",
            Self::Grpc(_) => "grpc_status",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Lets a request pass that the service has nothing against. What is to be added to it and to its answer comes back.
///
/// # Errors
/// [`ProxyError::OverLimit`]; without an answer [`ProxyError::RateLimitService`], where the limit says so.
///
/// # Cancel safety
/// Dropped, the question is withdrawn; the service may have counted it.
pub(super) async fn admit(
    client: &Client,
    limit: &Arc<GlobalLimit>,
    request: &request::Parts,
) -> Result<Option<Box<Told>>, ProxyError> {
    let (config, worker) = (&limit.config, &client.worker);
    let source = Source { address: client.address.ip(), peer: &client.peer };
    let Some(question) = policy::question(config, source, request) else { return Ok(None) };
    let count = |result, reason| {
        worker.shared.telemetry.metrics.global_rate_limit(limit.cluster.upstream.name(), result, reason);
    };
    let why = match ask(client, limit, &question, &request.headers).await {
        Ok(answer) => match policy::read(answer, config.tell_limits) {
            Answer::Pass(told) => {
                count("ok", "");
                return Ok(Some(told).filter(|told| *told != Told::default()).map(Box::new));
            }
            Answer::Refuse { fields, body, name, reset } => {
                count("over_limit", "");
                return Err(refused(limit, fields, body, name, reset));
            }
            Answer::Unknown => NoAnswer::Unreadable,
        },
        Err(why) => why,
    };
    count("error", why.code());
    if matches!(why, NoAnswer::Late(_)) {
        warm(worker, limit);
    }
    match config.on_failure {
        Some(status) => Err(ProxyError::RateLimitService { status, detail: why.to_string() }),
        None => {
            tracing::debug!(cluster = %config.cluster, %why, "a rate-limit service did not answer: the request passes");
            count("failure_mode_allowed", "");
            Ok(None)
        }
    }
}

fn refused(
    limit: &GlobalLimit,
    mut fields: HeaderMap,
    body: Bytes,
    name: Option<String>,
    reset: Option<Duration>,
) -> ProxyError {
    let config = &limit.config;
    if config.tell_limited {
        fields.insert(RATE_LIMITED, HeaderValue::from_static("true"));
    }
    headers::apply(&config.answers, &mut fields);
    ProxyError::OverLimit(Box::new(OverLimit {
        name: name.unwrap_or_else(|| config.domain.clone()),
        retry_after: reset,
        status: config.status,
        resource_exhausted: config.resource_exhausted,
        fields,
        body,
    }))
}

/// Says in the answer which limit it was, and when it is worth trying again; what the service says itself goes before.
pub(super) fn tell(headers: &mut HeaderMap, over: &OverLimit, is_grpc: bool) {
    if let Some(retry_after) = over.retry_after {
        rate_limit::tell(headers, &over.name, retry_after, is_grpc);
    }
    // Of these there is one: what the service says goes before, but what gRPC's answer is of gRPC says.
    if over.fields.contains_key(RETRY_AFTER) {
        headers.remove(RETRY_AFTER);
    }
    let kind = headers.remove(CONTENT_TYPE);
    add(headers, &over.fields);
    if let Some(kind) = kind
        && (is_grpc || !headers.contains_key(CONTENT_TYPE))
    {
        headers.insert(CONTENT_TYPE, kind);
    }
}

/// Adds all fields, beside those of the same name.
pub(super) fn add(headers: &mut HeaderMap, more: &HeaderMap) {
    for (name, value) in more {
        headers.append(name.clone(), value.clone());
    }
}

async fn ask(
    client: &Client,
    limit: &GlobalLimit,
    question: &RateLimitRequest,
    fields: &HeaderMap,
) -> Result<RateLimitResponse, NoAnswer> {
    let _turn = limit.calls.enter(MOST_CALLS).ok_or(NoAnswer::TooMany)?;
    let worker = &client.worker;
    let upstreams = Upstreams::Cluster(Arc::clone(&limit.cluster), None);
    let head = head(limit, fields)?;
    let mut record = Record::untold(&worker.recorder, "outbound", client.address);
    let mut guard = Guard::default();
    let answer = timeout(limit.config.timeout, async {
        guard = Guard::enter(worker, &upstreams, Kind::Request).await.map_err(NoAnswer::Failed)?;
        let mut tried = Tried::default();
        let body = Body::full(frame(question));
        let sent = attempt::send(worker, &upstreams, &head, body, &mut tried, &mut guard, &mut record).await;
        let sent = sent.map_err(|failed| NoAnswer::Failed(failed.error))?;
        read(reply(sent, &mut record).map_err(NoAnswer::Failed)?).await
    });
    let answer = answer.await.unwrap_or(Err(NoAnswer::Late(limit.config.timeout)));
    if matches!(answer, Err(NoAnswer::Late(_))) {
        guard.failed(&ProxyError::RequestTimeout); // The breaker of the service's cluster hears of it.
    }
    answer
}

fn head(limit: &GlobalLimit, fields: &HeaderMap) -> Result<Head, NoAnswer> {
    let mut headers = HeaderMap::with_capacity(5);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(GRPC_TIMEOUT, format_grpc(limit.config.timeout));
    for name in TRACE {
        if let Some(value) = fields.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let authority = HeaderValue::try_from(&limit.config.authority).map_err(|_invalid| NoAnswer::Unreadable)?;
    Ok(Head {
        method: Method::POST,
        authority: Authority::Field(authority),
        path: PathAndQuery::from_static(SHOULD_RATE_LIMIT),
        headers,
        client_version: Version::Http2,
        upgrade: None,
        caller: Situation::default(),
        onward: Situation::default(),
    })
}

async fn read(response: Response<ReplyBody>) -> Result<RateLimitResponse, NoAnswer> {
    let (head, body) = response.into_parts();
    let status_of = |fields: &HeaderMap| fields.get("grpc-status").map(|code| code.to_str().unwrap_or("?").to_owned());
    if head.status != StatusCode::OK {
        return Err(NoAnswer::Http(head.status));
    }
    if let Some(status) = status_of(&head.headers).filter(|status| status != "0") {
        return Err(NoAnswer::Grpc(status));
    }
    let collected = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(|_broken| NoAnswer::Unreadable)?;
    let status = collected.trailers().and_then(status_of).or_else(|| status_of(&head.headers));
    match status.as_deref() {
        Some("0") => unframe(&collected.to_bytes()).ok_or(NoAnswer::Unreadable),
        Some(other) => Err(NoAnswer::Grpc(other.to_owned())),
        None => Err(NoAnswer::Unreadable),
    }
}

/// Makes a connection that the timeout of a question was too short for, so that later ones find it.
fn warm(worker: &Arc<Worker>, limit: &Arc<GlobalLimit>) {
    let Some(turn) = limit.warming.enter(MOST_WARMED) else { return };
    let (worker, limit) = (Arc::clone(worker), Arc::clone(limit));
    tokio::spawn(async move {
        let upstreams = Upstreams::Cluster(Arc::clone(&limit.cluster), None);
        if let Some(host) = upstreams.pick(&[]) {
            let lease = worker.pool.http2(&host, upstreams.connect_timeout(&worker), Keep::default()).await;
            tracing::debug!(cluster = %limit.config.cluster, connected = lease.is_ok(), "warmed a connection");
        }
        drop(turn);
    });
}
