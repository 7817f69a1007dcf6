//! What a proxy must take out of a message before it forwards it (RFC 9110, section 7.6.1).

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue};

/// Header fields that start so are ours; nobody else's are believed.
const MESH_PREFIX: &str = "x-pillion-";

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_AUTHORIZATION: HeaderName = HeaderName::from_static("proxy-authorization");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Removes fields that concern one connection only, those that `Connection` names included.
///
/// `TE: trailers` stays, being the one value that HTTP/2 knows and gRPC asks for.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        list(headers, &CONNECTION).filter_map(|name| HeaderName::try_from(name).ok()).collect();
    let trailers = list(headers, &TE)
        .any(|coding| coding.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("trailers")));
    for name in named.iter().filter(|name| **name != TRAILER && **name != http::header::HOST) {
        headers.remove(name);
    }
    for name in
        [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS]
    {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes all fields that only sidecars may set.
pub fn strip_mesh(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(MESH_PREFIX)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

/// The protocol that an HTTP/1.1 message asks to change to. `h2c` is not offered by us (RFC 9113 dropped it), and
/// a request with content is an ordinary one: whoever gets an upgrade may decline it (RFC 9110, section 7.8).
pub fn upgrade_token(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = list(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
    let has_content = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    let token = headers.get(UPGRADE).filter(|_| asked && !has_content)?;
    (!token.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| token.clone())
}

/// The members of a comma-separated list field.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn fields_named_by_connection_are_removed_but_not_the_host() {
        let mut fields = headers(&[
            ("host", "a"),
            ("connection", "close, X-Secret,host"),
            ("x-secret", "1"),
            ("x-kept", "1"),
            ("te", "gzip, trailers;q=0.5"),
            ("transfer-encoding", "chunked"),
        ]);
        strip_hop_by_hop(&mut fields);
        let left: Vec<_> =
            fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text"))).collect();
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(left.contains(&"host: a".to_owned()) && left.contains(&"te: trailers".to_owned()));
    }

    #[test]
    fn an_upgrade_needs_both_fields_no_content_and_is_never_h2c() {
        let upgrade = [("connection", "upgrade"), ("upgrade", "foo")];
        assert!(upgrade_token(&headers(&[upgrade[0], upgrade[1], ("content-length", "0")])).is_some());
        assert!(upgrade_token(&headers(&[upgrade[0], upgrade[1], ("content-length", "1")])).is_none());
        assert!(upgrade_token(&headers(&[upgrade[0], upgrade[1], ("transfer-encoding", "chunked")])).is_none());
        assert!(upgrade_token(&headers(&[("connection", "Upgrade"), ("upgrade", "websocket")])).is_some());
        assert!(upgrade_token(&headers(&[("connection", "keep-alive"), ("upgrade", "websocket")])).is_none());
        assert!(upgrade_token(&headers(&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c")])).is_none());
    }

    #[test]
    fn mesh_fields_of_others_are_removed() {
        let mut fields = headers(&[("x-pillion-port", "22"), ("x-pillion-anything", "1"), ("x-other", "1")]);
        strip_mesh(&mut fields);
        assert_eq!(fields.len(), 1);
    }
}
