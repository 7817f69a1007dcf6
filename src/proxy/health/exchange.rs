//! A request of a check and its answer, over the connections that checks keep.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::BodyExt as _;
use pillion_wire::mesh::HTTP_VERSION_HEADER;

use super::super::attempt::Lease;
use super::super::message::{CHECK, PORT, REASON};
use super::super::reply::OVERLOADED;
use super::network;
use crate::config::Keep;
use crate::error::ProxyError;
use crate::http::{Body, Unsent};
use crate::resilience::health::Finding;
use crate::upstream::{Found, Host, Pool};

/// More of a body is not read, and its connection is closed: an answer to a check is short.
const MAX_BODY: usize = 64 << 10;
/// What programs see of who asks; Envoy's is `Envoy/HC`.
const WHO: HeaderValue = HeaderValue::from_static("Pillion/HC");

/// Reasons of a sidecar that a limit keeps from asking its application: its own, one that a rate-limit service counts, and
/// that service gives no answer.
const LIMITED: [&str; 3] = ["rate_limited", "over_limit", "rate_limit_service"];

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
            pool.http2(host, time, Keep::default()).await.map(Lease::Http2)
        } else {
            pool.http1(host, fresh, time, Keep::default()).await.map(Lease::Http1)
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
            headers.insert(CHECK, HeaderValue::from_static("1"));
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

/// The host's sidecar answered in its stead. That it takes no more just now, or does not know whether it may, says nothing
/// of the application.
pub(super) fn of_sidecar(host: &Host, headers: &HeaderMap) -> Option<Found> {
    let reason = headers.get(REASON).filter(|_| host.key().mesh.is_some())?;
    let reason = String::from_utf8_lossy(reason.as_bytes());
    let why = format!("its sidecar answers in its stead: {reason}");
    let is_busy = LIMITED.contains(&reason.as_ref()) || headers.contains_key(OVERLOADED);
    Some(if is_busy { Found { finding: Finding::Unknown, why, is_network: false } } else { network(why) })
}

#[cfg(test)]
mod tests {
    use pillion_wire::mesh::MeshEndpoint;

    use super::*;
    use crate::upstream::HostKey;

    #[test]
    fn a_sidecar_that_is_busy_says_nothing_of_its_application_and_others_are_not_asked() {
        let address = "127.0.0.1:80".parse().expect("literal");
        let mesh = MeshEndpoint { port: 15008, identity: "spiffe://a/ns/b/sa/c".parse().expect("literal") };
        let (inside, outside) = (HostKey::remote(address, Some(mesh)), HostKey::remote(address, None));
        for (host, fields, wanted) in [
            (&inside, &[][..], None),
            (&inside, &[("x-pillion-reason", "connect_failure")], Some(Finding::Failed)),
            (&inside, &[("x-pillion-reason", "rate_limited")], Some(Finding::Unknown)),
            (&inside, &[("x-pillion-reason", "over_limit"), ("x-envoy-ratelimited", "true")], Some(Finding::Unknown)),
            (&inside, &[("x-pillion-reason", "rate_limit_service")], Some(Finding::Unknown)),
            (&inside, &[("x-pillion-reason", "overflow"), ("x-envoy-overloaded", "true")], Some(Finding::Unknown)),
            (&inside, &[("x-envoy-overloaded", "true")], None),
            (&outside, &[("x-pillion-reason", "rate_limited")], None),
        ] {
            let fields =
                fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            let found = of_sidecar(&Host::new(host.clone()), &fields.collect());
            assert_eq!(found.map(|found| found.finding), wanted);
        }
    }

    #[test]
    fn a_question_is_asked_in_the_form_of_its_version_and_says_what_it_is_to_sidecars_only() {
        let address = "127.0.0.1:8080".parse().expect("literal");
        let mesh = MeshEndpoint { port: 15008, identity: "spiffe://a/ns/b/sa/c".parse().expect("literal") };
        let question = Question {
            method: Method::GET,
            authority: "app.shop:80",
            path: "/up?q",
            headers: HeaderMap::new(),
            body: Bytes::new(),
            http2: false,
        };
        let plain = question.request(&Host::new(HostKey::remote(address, None)), false);
        assert_eq!(plain.uri().to_string(), "/up?q");
        assert_eq!(plain.headers()[HOST], "app.shop:80");
        assert!(!plain.headers().contains_key(PORT) && !plain.headers().contains_key(CHECK));
        let tunnelled = question.request(&Host::new(HostKey::remote(address, Some(mesh))), true);
        assert_eq!(tunnelled.uri().to_string(), "http://app.shop:80/up?q");
        assert_eq!(tunnelled.version(), Version::HTTP_2);
        assert_eq!(tunnelled.headers()[PORT], "8080");
        assert!(tunnelled.headers().contains_key(CHECK));
        assert_eq!(tunnelled.headers()[HTTP_VERSION_HEADER], "1.1");
        assert!(!tunnelled.headers().contains_key(HOST));
    }
}
