//! What routes do to requests and responses: the order of the filters, and what their verdicts lead to.

use std::sync::Arc;

use http::header::SERVER;
use http::{HeaderMap, HeaderValue, Response, StatusCode, request};

use super::Worker;
use super::authority::Authority;
use super::message::{Head, REASON};
use super::mirror;
use super::reply::ReplyBody;
use crate::config::{Abort, Fault};
use crate::error::ProxyError;
use crate::filter::{cors, fault, headers, rewrite};
use crate::http::Body;
use crate::snapshot::{Changes, Filters};
use crate::telemetry::Record;

/// What concerns one request. Nothing concerns most.
#[derive(Debug, Default)]
pub(super) struct Filtered {
    /// Of its route.
    pub(super) route: Option<Arc<Filters>>,
    /// Of the cluster that it goes to.
    changes: Option<Arc<Changes>>,
    /// The origin that may read the response.
    origin: Option<HeaderValue>,
}

impl Filtered {
    pub(super) fn new(route: Option<&Arc<Filters>>, changes: Option<&Arc<Changes>>) -> Self {
        Self { route: route.cloned(), changes: changes.cloned(), origin: None }
    }

    /// Before the request goes anywhere. `Some`: it is answered with this.
    ///
    /// # Cancel safety
    /// May be dropped: a request that is held back is gone then.
    pub(super) async fn on_request(
        &mut self,
        worker: &Worker,
        request: &request::Parts,
        record: &mut Record,
    ) -> Result<Option<Response<ReplyBody>>, ProxyError> {
        let Some(filters) = self.route.clone() else { return Ok(None) };
        if let Some(cors) = &filters.cors {
            match cors::judge(cors, request) {
                cors::Verdict::Pass => {}
                cors::Verdict::Permitted(origin) => self.origin = Some(origin),
                cors::Verdict::Preflight(fields) => return Ok(Some(preflight(fields, record))),
            }
        }
        match &filters.fault {
            Some(fault) => harm(worker, fault, request, record).await.map(|()| None),
            None => Ok(None),
        }
    }

    /// As it goes on.
    pub(super) fn on_head(&self, head: &mut Head, record: &Record) -> Result<(), ProxyError> {
        if let Some(path) = self.route.as_ref().and_then(|filters| filters.path.as_ref()) {
            let new = rewrite::path(path, &head.path);
            head.path = new.ok_or_else(|| ProxyError::BadRewrite(record.route.to_string()))?;
        }
        if let Some(changes) = &self.changes {
            headers::apply(&changes.headers.request, &mut head.headers);
            if let Some(authority) = &changes.authority {
                head.authority = Authority::Field(authority.clone());
            }
        }
        Ok(())
    }

    /// Sends copies of it to whom the route names. The body has to be sent in place of the one that was given.
    pub(super) fn copy(&self, worker: &Arc<Worker>, head: &Head, body: Body, record: &Record) -> Body {
        match &self.route {
            Some(filters) if !filters.mirrors.is_empty() => {
                mirror::start(worker, &filters.mirrors, head, body, record.downstream)
            }
            _ => body,
        }
    }

    /// A response that came from a host.
    pub(super) fn on_response(&self, fields: &mut HeaderMap) {
        if let Some(changes) = &self.changes {
            headers::apply(&changes.headers.response, fields);
        }
        self.permit(fields);
    }

    /// A response that the route itself gives.
    pub(super) fn on_answer(&self, mut response: Response<ReplyBody>) -> Response<ReplyBody> {
        if let Some(filters) = &self.route {
            headers::apply(&filters.answers, response.headers_mut());
        }
        self.permit(response.headers_mut());
        response
    }

    /// After all others, as it was judged before them. Also of a failure: else no script could read why.
    pub(super) fn permit(&self, fields: &mut HeaderMap) {
        if let Some(origin) = &self.origin
            && let Some(cors) = self.route.as_ref().and_then(|filters| filters.cors.as_ref())
        {
            cors::permit(cors, origin, fields);
        }
    }
}

/// Envoy answers with 200, and so do we.
fn preflight(fields: HeaderMap, record: &mut Record) -> Response<ReplyBody> {
    let detail = "the route answers CORS preflights";
    let mut response = local(StatusCode::OK, "cors_preflight", detail, Body::default(), record);
    response.headers_mut().extend(fields);
    response
}

/// A response that a route prescribes, with its reason.
pub(super) fn local(
    status: StatusCode,
    reason: &'static str,
    detail: &str,
    body: Body,
    record: &mut Record,
) -> Response<ReplyBody> {
    record.fail(reason, "", detail.to_owned());
    let mut response = Response::new(ReplyBody::local(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("pillion"));
    headers.insert(REASON, HeaderValue::from_static(reason));
    response
}

/// Holds the request back, and fails it.
async fn harm(worker: &Worker, fault: &Fault, request: &request::Parts, record: &mut Record) -> Result<(), ProxyError> {
    let harm = fault::decide(fault, request, rand::random);
    if harm == fault::Harm::default() {
        return Ok(());
    }
    let metrics = &worker.shared.telemetry.metrics;
    // As in Envoy the limit is one for all that is harmed here.
    let Some(turn) = worker.shared.faults.enter(fault.max_active.unwrap_or(u32::MAX)) else {
        metrics.fault("overflow");
        return Ok(());
    };
    if let Some(delay) = harm.delay {
        metrics.fault("delay");
        record.delayed = true;
        record.trace_event("fault", "delay");
        tokio::time::sleep(delay).await;
    }
    drop(turn);
    let Some(abort) = harm.abort else { return Ok(()) };
    metrics.fault("abort");
    let (status, grpc) = match abort {
        Abort::Http(status) => (status, grpc_status(status)),
        Abort::Grpc(grpc) => (http_status(grpc), grpc),
    };
    Err(ProxyError::Fault { status, grpc })
}

/// gRPC, `doc/http-grpc-status-mapping.md`.
fn grpc_status(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// `google/rpc/code.proto`, "HTTP Mapping".
fn http_status(grpc: u8) -> StatusCode {
    match grpc {
        0 => StatusCode::OK,
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        4 => StatusCode::GATEWAY_TIMEOUT,
        5 => StatusCode::NOT_FOUND,
        6 | 10 => StatusCode::CONFLICT,
        7 => StatusCode::FORBIDDEN,
        8 => StatusCode::TOO_MANY_REQUESTS,
        12 => StatusCode::NOT_IMPLEMENTED,
        14 => StatusCode::SERVICE_UNAVAILABLE,
        16 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
