//! A request on its way: what is sent to whichever host is picked, in whichever version of HTTP it speaks.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TE, UPGRADE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, request};
use pillion_wire::mesh::{
    CALL_HEADER, CALL_RETRY, CHECK_HEADER, HTTP_VERSION_HEADER, PORT_HEADER, REASON_HEADER, TRACE_HEADER,
};

use super::authority::Authority;
use crate::http::{Body, clean_request, upgrade_token};
use crate::upstream::Host;

/// Which port of the application is meant; see [`PORT_HEADER`].
pub(super) const PORT: HeaderName = HeaderName::from_static(PORT_HEADER);
/// What the calling application spoke; see [`HTTP_VERSION_HEADER`].
const HTTP_VERSION: HeaderName = HeaderName::from_static(HTTP_VERSION_HEADER);
/// It is a health check; see [`CHECK_HEADER`].
pub(super) const CHECK: HeaderName = HeaderName::from_static(CHECK_HEADER);
/// Why a proxy answered itself; see [`REASON_HEADER`].
pub(super) const REASON: HeaderName = HeaderName::from_static(REASON_HEADER);

/// Whether the spans of a request are to be kept; see [`TRACE_HEADER`].
pub(super) const TRACE: HeaderName = HeaderName::from_static(TRACE_HEADER);
/// The caller's situation; see [`CALL_HEADER`].
const CALL: HeaderName = HeaderName::from_static(CALL_HEADER);

/// Between sidecars: the protocol that the client asks to upgrade to, and in the response that it was.
pub(super) const UPGRADE_HEADER: HeaderName = HeaderName::from_static("x-pillion-upgrade");

/// The HTTP version spoken on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// What a request's caller says of its own situation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Situation {
    /// How long it still waits.
    pub(super) timeout: Option<Duration>,
    /// It has asked before.
    pub(super) is_retry: bool,
}

/// The head of a request, cleaned of all that concerned the connection it came on.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) authority: Authority,
    pub(super) path: PathAndQuery,
    pub(super) headers: HeaderMap,
    /// What the application's client spoke.
    pub(super) client_version: Version,
    /// The protocol that it asks to upgrade to.
    pub(super) upgrade: Option<HeaderValue>,
    /// What the calling sidecar said, as it came.
    pub(super) caller: Situation,
    /// What the next sidecar is told.
    pub(super) onward: Situation,
}

impl Head {
    /// Takes over a request that came from an application, or from a sidecar (`from_mesh`), whose
    /// own fields are believed then and removed in any case.
    pub(super) fn new(parts: request::Parts, authority: Authority, from_mesh: bool) -> Self {
        let mut headers = parts.headers;
        let upgrade = if from_mesh { headers.get(UPGRADE_HEADER).cloned() } else { upgrade_token(&headers) };
        if upgrade.is_some() {
            // Sent on without a body, it must not announce one: the next request on the connection would be taken for it.
            headers.remove(CONTENT_LENGTH);
        }
        let client_version = match from_mesh.then(|| headers.get(HTTP_VERSION)).flatten() {
            Some(version) if version != "2" => Version::Http1,
            None if parts.version < http::Version::HTTP_2 => Version::Http1,
            _ => Version::Http2,
        };
        let caller = if from_mesh { Situation::of(&headers) } else { Situation::default() };
        clean_request(&mut headers);
        headers.remove(HOST);
        let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let onward = Situation::default();
        Self { method: parts.method, authority, path, headers, client_version, upgrade, caller, onward }
    }

    /// As HTTP/1.1: origin form, `Host`, and an upgrade as its two fields.
    pub(super) fn to_http1(&self, body: Body) -> Request<Body> {
        // After an upgrade the bytes follow on the connection itself, not in a body.
        let mut request = Request::new(if self.upgrade.is_some() { Body::default() } else { body });
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from(self.path.clone());
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 3);
        if let Some(host) = self.authority.to_field() {
            headers.insert(HOST, host); // First, as RFC 9110, section 7.2, recommends.
        }
        for (name, value) in &self.headers {
            headers.append(name.clone(), value.clone());
        }
        if let Some(token) = &self.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, token.clone());
        } else if headers.contains_key(TE) {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        *request.headers_mut() = headers;
        request
    }

    /// As HTTP/2; towards a sidecar with the fields that only sidecars may set.
    pub(super) fn to_http2(&self, host: &Host, body: Body) -> Request<Body> {
        // Outside the mesh HTTP/2 has no upgrade: the host sees a plain request, and thereby declines.
        let declined = self.upgrade.is_some() && host.key().mesh.is_none();
        let mut request = Request::new(if declined { Body::default() } else { body });
        *request.version_mut() = http::Version::HTTP_2;
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.absolute();
        let mut headers = self.headers.clone();
        if host.key().mesh.is_some() {
            let version = match self.client_version {
                Version::Http1 => "1.1",
                Version::Http2 => "2",
            };
            headers.insert(HTTP_VERSION, HeaderValue::from_static(version));
            headers.insert(PORT, HeaderValue::from(host.key().address.port()));
            if let Some(token) = &self.upgrade {
                headers.insert(UPGRADE_HEADER, token.clone());
            }
            if let Some(call) = self.onward.to_field() {
                headers.insert(CALL, call);
            }
        }
        *request.headers_mut() = headers;
        request
    }

    fn absolute(&self) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = self.authority.to_target();
        parts.path_and_query = Some(self.path.clone());
        // Without an authority only the path remains, which h2 sends as it is.
        Uri::from_parts(parts).unwrap_or_else(|_no_authority| Uri::from(self.path.clone()))
    }
}

impl Situation {
    fn of(headers: &HeaderMap) -> Self {
        let Some(text) = headers.get(CALL).and_then(|call| call.to_str().ok()) else { return Self::default() };
        let (millis, is_retry) = text.strip_suffix(CALL_RETRY).map_or((text, false), |millis| (millis, true));
        Self { timeout: millis.parse().ok().map(Duration::from_millis), is_retry }
    }

    /// `None`: there is nothing to tell.
    fn to_field(self) -> Option<HeaderValue> {
        if self == Self::default() {
            return None;
        }
        let millis = self.timeout.map_or_else(String::new, |left| left.as_millis().to_string());
        HeaderValue::try_from(millis + if self.is_retry { CALL_RETRY } else { "" }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_situation_is_read_as_it_was_written() {
        for (millis, is_retry) in [(None, false), (Some(0), false), (Some(1500), true), (None, true)] {
            let situation = Situation { timeout: millis.map(Duration::from_millis), is_retry };
            let headers: HeaderMap = situation.to_field().map(|field| (CALL, field)).into_iter().collect();
            assert_eq!(Situation::of(&headers), situation);
        }
        for nonsense in ["", "soon", "-1", "1;again"] {
            let headers = HeaderMap::from_iter([(CALL, HeaderValue::from_static(nonsense))]);
            assert_eq!(Situation::of(&headers), Situation::default(), "{nonsense}");
        }
    }
}
