//! What a proxy must take out of a message before it forwards it (RFC 9110, section 7.6.1).

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue};

use super::forwarded::is_client_cert;

/// Header fields that start so are ours; nobody else's are believed.
const MESH_PREFIX: &str = "x-pillion-";

/// Removes from a request what must not go on: fields that concern one connection only, those that `Connection` names
/// included, fields that only sidecars may set, and word of the caller's identity that is not ours.
///
/// `TE: trailers` stays, being the one value that HTTP/2 knows and gRPC asks for.
pub fn clean_request(headers: &mut HeaderMap) {
    strip(headers, |name| name.starts_with(MESH_PREFIX) || is_client_cert(name));
}

/// The same for a response, where `X-Forwarded-Client-Cert` means nothing.
pub fn clean_response(headers: &mut HeaderMap) {
    strip(headers, |name| name.starts_with(MESH_PREFIX));
}

/// One pass over the names, and in most messages there is no more to do.
fn strip(headers: &mut HeaderMap, is_unwanted: fn(&str) -> bool) {
    let names = headers.keys().filter(|name| is_hop_by_hop(name.as_str()) || is_unwanted(name.as_str()));
    let mut unwanted: Vec<HeaderName> = names.cloned().collect();
    if unwanted.contains(&CONNECTION) {
        let named = list(headers, &CONNECTION).filter(|name| !name.eq_ignore_ascii_case("keep-alive"));
        let named = named.filter_map(|name| HeaderName::try_from(name).ok());
        unwanted.extend(named.filter(|name| *name != TRAILER && *name != HOST));
    }
    let trailers = unwanted.contains(&TE)
        && list(headers, &TE)
            .any(|coding| coding.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("trailers")));
    for name in unwanted {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// The protocol that an HTTP/1.1 message asks to change to. `h2c` is not offered by us (RFC 9113 dropped it), and
/// a request with content is an ordinary one: whoever gets an upgrade may decline it (RFC 9110, section 7.8).
pub fn upgrade_token(headers: &HeaderMap) -> Option<HeaderValue> {
    let token = headers.get(UPGRADE)?;
    let asked = list(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
    let has_content = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    (asked && !has_content && !token.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| token.clone())
}

/// The members of a comma-separated list field.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim_ascii)
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
        clean_response(&mut fields);
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
        clean_request(&mut fields);
        assert_eq!(fields.len(), 1);
    }

    #[test]
    fn a_forged_client_cert_never_survives() {
        let forged = "URI=spiffe://evil/ns/a/sa/b";
        let mut fields = headers(&[("x-forwarded-client-cert", forged), ("x_forwarded-client_cert", forged)]);
        clean_request(&mut fields);
        assert!(fields.is_empty());
    }
}
