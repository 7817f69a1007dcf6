//! A request of a check and its answer, over the connections that checks keep.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use pillion_wire::mesh::HTTP_VERSION_HEADER;

use super::super::attempt::Lease;
use super::super::message::{PORT, REASON};
use super::network;
use crate::error::ProxyError;
use crate::http::{Body, Unsent};
use crate::resilience::health::Finding;
use crate::upstream::{Found, Host, Pool};

/// More of a body is not read, and its connection is closed: an answer to a check is short.
const MAX_BODY: usize = 64 << 10;
/// What programs see of who asks; Envoy's is `Envoy/HC`.
const WHO: HeaderValue = HeaderValue::from_static("Pillion/HC");

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    pub(super) authority: &'a str,
    pub(super) path: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// HTTP/2, also to hosts outside the mesh, and to the application of one inside that speaks either.
    pub(super) http2: bool,
}

/// What was answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// At most [`MAX_BODY`] bytes.
    pub(super) body: Vec<u8>,
    pub(super) trailers: HeaderMap,
}

/// Asks `host`, once more on a new connection when a kept one was just closed. The caller limits the time.
///
/// # Errors
/// What the check has found, as there is no answer of the application.
///
/// # Cancel safety
/// Dropping it cancels the request.
pub(super) async fn ask(pool: &Pool, host: &Host, question: &Question<'_>, time: Duration) -> Result<Answer, Found> {
    let http2 = question.http2 || host.key().mesh.is_some();
    let mut fresh = false;
    loop {
        let mut lease = if http2 {
            pool.http2(host, time, None).await.map(Lease::Http2)
        } else {
            pool.http1(host, fresh, time, None).await.map(Lease::Http1)
        }
        .map_err(|error| unconnected(&error))?;
        let (sent, reused) = match &mut lease {
            Lease::Http1(lease) => (lease.send(question.request(host, false)).await, lease.reused),
            Lease::Http2(lease) => (lease.connection().send(question.request(host, true)).await, lease.reused),
        };
        let response = match sent {
            Ok(response) => response,
            Err(_closed) if reused && !fresh => {
                fresh = true;
                continue;
            }
            Err(Unsent { error, .. }) => return Err(network(format!("no answer: {}", error.detail()))),
        };
        if let Some(found) = of_sidecar(host, response.headers()) {
            return Err(found);
        }
        let (head, mut body) = response.into_parts();
        let mut answer =
            Answer { status: head.status, headers: head.headers, body: Vec::new(), trailers: HeaderMap::new() };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| network(format!("half an answer: {error}")))?;
            match frame.into_data() {
                Ok(data) if answer.body.len() + data.len() > MAX_BODY => return Ok(answer),
                Ok(data) => answer.body.extend_from_slice(&data),
                Err(frame) => answer.trailers.extend(frame.into_trailers().unwrap_or_default()),
            }
        }
        if let Lease::Http1(lease) = lease {
            lease.give_back();
        }
        return Ok(answer);
    }
}

impl Question<'_> {
    fn request(&self, host: &Host, http2: bool) -> Request<Body> {
        let body = if self.body.is_empty() { Body::default() } else { Body::full(self.body.clone()) };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(USER_AGENT, WHO);
        if host.key().mesh.is_some() {
            let version = HeaderValue::from_static(if self.http2 { "2" } else { "1.1" });
            headers.insert(HeaderName::from_static(HTTP_VERSION_HEADER), version);
            headers.insert(PORT, HeaderValue::from(host.key().address.port()));
        }
        if http2 {
            *request.version_mut() = Version::HTTP_2;
            let uri = Uri::builder().scheme("http").authority(self.authority).path_and_query(self.path);
            // Both were read when the configuration came.
            *request.uri_mut() = uri.build().unwrap_or_default();
        } else {
            if let Ok(name) = HeaderValue::from_str(self.authority) {
                request.headers_mut().insert(HOST, name);
            }
            *request.uri_mut() = self.path.parse().unwrap_or_default();
        }
        request
    }
}

/// No connection: without a certificate of our own that is not the host's fault.
pub(super) fn unconnected(error: &ProxyError) -> Found {
    match error {
        ProxyError::NoIdentity => Found { finding: Finding::Unknown, why: error.to_string(), is_network: false },
        error => network(error.to_string()),
    }
}

/// The host's sidecar answered in its stead.
fn of_sidecar(host: &Host, headers: &HeaderMap) -> Option<Found> {
    let reason = headers.get(REASON).filter(|_| host.key().mesh.is_some())?;
    let reason = String::from_utf8_lossy(reason.as_bytes());
    let why = format!("its sidecar answers in its stead: {reason}");
    Some(match &*reason {
        // The workload takes no more of us just now, and that is said of requests elsewhere.
        "rate_limited" => Found { finding: Finding::Unknown, why, is_network: false },
        _ => network(why),
    })
}
