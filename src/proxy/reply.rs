//! The only place that turns a [`ProxyError`] into a response, a flag and a counter; and the body of every response.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};

use super::attempt::Lease;
use super::feedback::is_grpc_error;
use super::guard::Guard;
use super::limits::Limits;
use super::message::REASON;
use super::shedding::{self, Held};
use super::{global_rate_limit, rate_limit};
use crate::error::ProxyError;
use crate::http::{Body, BoxError};
use crate::net::Serving;
use crate::policy::rate_limit::Place;
use crate::resilience::joined::Member;
use crate::telemetry::Record;
use crate::upstream::InFlight;

/// Envoy's word for "dropped before it was sent, since a limit is reached".
pub(super) const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

/// The body of a response, with all that has to last as long as it does.
#[derive(Debug)]
pub(super) struct ReplyBody {
    body: Body,
    ended: bool,
    lease: Option<Lease>,
    record: Option<Box<Record>>,
    guard: Guard,
    limits: Option<Box<Limits>>,
    member: Option<Box<Member>>,
    held: Option<Box<Held>>,
    _places: Vec<Place>,
    _in_flight: Option<InFlight>,
    _serving: Option<Serving>,
}

impl ReplyBody {
    /// A body that we made.
    pub(super) fn local(body: Body) -> Self {
        Self {
            body,
            ended: false,
            lease: None,
            record: None,
            guard: Guard::default(),
            limits: None,
            member: None,
            held: None,
            _places: Vec::new(),
            _in_flight: None,
            _serving: None,
        }
    }

    /// A body that comes from upstream; its connection is given back when it ends.
    pub(super) fn upstream(body: Body, lease: Lease, in_flight: InFlight, guard: Guard) -> Self {
        let mut reply = Self::local(body);
        reply.lease = Some(lease);
        reply._in_flight = Some(in_flight);
        reply.guard = guard;
        reply
    }

    /// Ends it before its time when it has to.
    pub(super) fn limited(mut self, limits: Option<Box<Limits>>) -> Self {
        self.limits = limits;
        self
    }

    /// Outbound calls may belong to its request until it ends.
    pub(super) fn joined(mut self, member: Option<Member>) -> Self {
        self.member = member.map(Box::new);
        self
    }

    /// Gives back what its request holds of our port's limits when it has ended.
    pub(super) fn holding(mut self, places: Vec<Place>, held: Option<Box<Held>>) -> Self {
        self._places = places;
        self.held = held;
        self
    }

    /// Cuts it, as gRPC has it or as HTTP can.
    fn cut(&mut self, error: &ProxyError, is_grpc: bool) -> Option<Result<Frame<Bytes>, BoxError>> {
        let reason = error.reason();
        (self.limits, self.lease, self.body, self.ended) = (None, None, Body::default(), true);
        if let Some(held) = self.held.take() {
            held.broke();
        }
        if let Some(record) = self.record.as_mut() {
            record.fail(reason.code, reason.flag, error.to_string());
        }
        if !is_grpc {
            return Some(Err(error.public_message().into()));
        }
        let mut trailers = HeaderMap::new();
        status(&mut trailers, reason.grpc, &error.public_message());
        Some(Ok(Frame::trailers(trailers)))
    }

    /// Ties the request's story and its turn on the connection to this body.
    pub(super) fn finish_with(mut self, record: Box<Record>, serving: Serving) -> Self {
        self.record = Some(record);
        self._serving = Some(serving);
        self
    }
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(limits) = &mut this.limits
            && let Poll::Ready(error) = limits.poll_over(cx)
        {
            let is_grpc = limits.is_grpc;
            return Poll::Ready(this.cut(&error, is_grpc));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(limits) = &this.limits {
                    limits.touch();
                }
                if let (Some(data), Some(record)) = (frame.data_ref(), this.record.as_mut()) {
                    record.bytes_sent += data.len() as u64;
                }
                if let Some(trailers) = frame.trailers_ref() {
                    this.guard.trailers(trailers);
                    if let Some(record) = this.record.as_mut() {
                        record.grpc_failed = is_grpc_error(trailers);
                    }
                    if let Some(held) = &mut this.held {
                        held.trailers(trailers);
                    }
                }
            }
            Some(Err(error)) => {
                this.lease = None;
                this.guard.broke();
                if let Some(held) = this.held.take() {
                    held.broke();
                }
                if let Some(record) = this.record.as_mut() {
                    record.fail("upstream_reset", "UR", error.to_string());
                }
                this.ended = true;
            }
            None => {
                this.ended = true;
                if let Some(held) = this.held.take() {
                    held.ended();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        let ended = self.ended || self.body.is_end_stream();
        match self.lease.take() {
            Some(Lease::Http1(lease)) if ended => lease.give_back(),
            _ => {} // A connection in the middle of a response is of no more use; a stream is reset.
        }
        if let Some(held) = self.held.take().filter(|_| ended) {
            held.ended();
        }
        if let Some(member) = self.member.take().filter(|_| ended) {
            member.answered();
        }
        if !ended && let Some(record) = self.record.as_mut() {
            record.fail("client_gone", "DR", "the client went away before the end of the response".to_owned());
        }
    }
}

/// The response for a failure, noted in the request's story.
pub(super) fn failure(error: &ProxyError, is_grpc: bool, record: &mut Record) -> Response<ReplyBody> {
    let reason = error.reason();
    record.fail(reason.code, reason.flag, error.to_string());
    let message = error.public_message();
    let mut response = if is_grpc {
        grpc(reason.grpc, &message)
    } else if let ProxyError::OverLimit(over) = error
        && !over.body.is_empty()
    {
        let mut response = Response::new(ReplyBody::local(Body::full(over.body.clone())));
        *response.status_mut() = reason.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        response
    } else {
        let mut response =
            Response::new(ReplyBody::local(Body::full(format!("pillion: {message} ({})\n", reason.code))));
        *response.status_mut() = reason.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    };
    response.headers_mut().insert(REASON, HeaderValue::from_static(reason.code));
    if let ProxyError::RateLimited { name, retry_after } = error {
        rate_limit::tell(response.headers_mut(), name, *retry_after, is_grpc);
    }
    if let ProxyError::OverLimit(over) = error {
        global_rate_limit::tell(response.headers_mut(), over, is_grpc);
    }
    if matches!(error, ProxyError::Shed { .. }) {
        shedding::tell(response.headers_mut(), is_grpc);
    }
    if reason.flag == "UO" {
        response.headers_mut().insert(OVERLOADED, HeaderValue::from_static("true"));
    }
    let is_malformed = matches!(error, ProxyError::BadRequest(_) | ProxyError::BadAuthority(_));
    if is_malformed && record.protocol != "HTTP/2" {
        // What follows on the connection was perhaps meant as a part of this request.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A "trailers-only" gRPC response (gRPC over HTTP/2, Responses).
fn grpc(status: u8, message: &str) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::local(Body::default()));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    self::status(headers, status, message);
    response
}

fn status(headers: &mut HeaderMap, status: u8, message: &str) {
    headers.insert("grpc-status", HeaderValue::from(u16::from(status)));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(message)) {
        headers.insert("grpc-message", message);
    }
}

/// gRPC's Percent-Encoded: everything outside printable ASCII, and `%`.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if (0x20..0x7f).contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _infallible = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// Is this a gRPC request?
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
