//! The head of a request, as long as its record lives: handles, of which texts are made when somebody wants them.

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::explain::Heard;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// See the module.
#[derive(Debug)]
pub(super) struct Head {
    method: Method,
    uri: Uri,
    /// Where the URI names no authority.
    host: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
}

impl Head {
    pub(super) fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let host = if uri.authority().is_none() { headers.get(HOST).cloned() } else { None };
        let request_id = headers.get(REQUEST_ID).cloned();
        Self { method: method.clone(), uri: uri.clone(), host, request_id }
    }

    /// What is kept after its end: cut, so that nothing of the client's memory is held.
    pub(super) fn heard(&self) -> Heard {
        let host = self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let request_id = self.request_id.as_ref().map(HeaderValue::as_bytes).unwrap_or_default();
        let authority = self.uri.authority().map_or_else(|| without_user(host), |authority| authority.host());
        Heard::of(&self.method, authority.as_bytes(), self.uri.path(), request_id)
    }

    pub(super) fn method(&self) -> &str {
        self.method.as_str()
    }

    /// Without the query.
    pub(super) fn path(&self) -> &str {
        self.uri.path()
    }

    /// Without what may be a name and a password.
    pub(super) fn authority(&self) -> String {
        match (self.uri.authority(), &self.host) {
            (Some(authority), _) => without_user(authority.as_str()).to_owned(),
            (None, Some(host)) => without_user(&String::from_utf8_lossy(host.as_bytes())).to_owned(),
            (None, None) => String::new(),
        }
    }
}

/// An authority without what may be a name and a password.
pub(super) fn without_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_before_a_host_are_not_kept() {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("ann:secret@shop"))]);
        for uri in ["/a", "http://ann:secret@shop/a"] {
            let head = Head::of(&Method::GET, &Uri::from_static(uri), &headers);
            assert_eq!((head.authority().as_str(), head.heard().authority.text().as_ref()), ("shop", "shop"));
        }
    }
}
