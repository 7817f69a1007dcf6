//! Who called, told to the application: `Forwarded`, `X-Forwarded-*`, `X-Forwarded-Client-Cert`.

use std::net::IpAddr;

use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use pillion_wire::spiffe::SpiffeId;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Envoy's field with the identity of the caller; only its value from us can be believed.
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Appends the caller's address, the scheme it used and the host it asked for.
///
/// RFC 7239, section 4: each proxy appends its own element; what earlier ones said
/// stays in front. `X-Forwarded-Proto` keeps the first proxy's word.
pub fn append_forwarded(headers: &mut HeaderMap, caller: IpAddr, scheme: &'static str, host: &str) {
    let caller = caller.to_canonical();
    append(headers, X_FORWARDED_FOR, &caller.to_string());
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    let node = match caller {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let host = if is_token(host) { host.to_owned() } else { quoted(host) };
    append(headers, FORWARDED, &format!("for={node};host={host};proto={scheme}"));
}

/// Replaces whatever stood in `X-Forwarded-Client-Cert` by our own word; without a peer identity nothing stands there.
///
/// Envoy's format (`forward_client_cert_details: SANITIZE_SET`): `By=<us>;URI=<peer>`. Spellings with `_` go too:
/// CGI and its heirs (WSGI, Rack) cannot tell them from the real one.
pub fn client_cert(headers: &mut HeaderMap, us: Option<&SpiffeId>, peer: Option<&SpiffeId>) {
    headers.remove(CLIENT_CERT);
    let look_alike =
        |name: &&HeaderName| name.as_str().contains('_') && name.as_str().replace('_', "-") == CLIENT_CERT.as_str();
    let look_alikes: Vec<HeaderName> = headers.keys().filter(look_alike).cloned().collect();
    for name in look_alikes {
        headers.remove(name);
    }
    let Some(peer) = peer else { return };
    let value = us.map_or_else(|| format!("URI={peer}"), |us| format!("By={us};URI={peer}"));
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(CLIENT_CERT, value);
    }
}

/// Joins `element` to the list that stands there; several fields of one name become one.
fn append(headers: &mut HeaderMap, name: HeaderName, element: &str) {
    let before: Vec<&str> = headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()).collect();
    let joined = if before.is_empty() { element.to_owned() } else { format!("{}, {element}", before.join(", ")) };
    if let Ok(value) = HeaderValue::try_from(joined) {
        headers.insert(name, value);
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// RFC 9110, section 5.6.4.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(headers: &HeaderMap, name: &HeaderName) -> String {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    }

    #[test]
    fn each_hop_appends_and_the_first_scheme_stays() {
        let mut headers = HeaderMap::new();
        append_forwarded(&mut headers, [10, 0, 0, 1].into(), "https", "shop");
        append_forwarded(&mut headers, "::ffff:10.0.0.2".parse().expect("literal"), "http", "shop:80");
        assert_eq!(text(&headers, &X_FORWARDED_FOR), "10.0.0.1, 10.0.0.2");
        assert_eq!(text(&headers, &X_FORWARDED_PROTO), "https");
        assert_eq!(
            text(&headers, &FORWARDED),
            "for=10.0.0.1;host=shop;proto=https, for=10.0.0.2;host=\"shop:80\";proto=http"
        );
    }

    #[test]
    fn ipv6_callers_are_quoted_in_brackets() {
        let mut headers = HeaderMap::new();
        append_forwarded(&mut headers, "2001:db8::1".parse().expect("literal"), "http", "a");
        assert_eq!(text(&headers, &FORWARDED), "for=\"[2001:db8::1]\";host=a;proto=http");
    }

    #[test]
    fn a_forged_client_cert_never_survives() {
        let mut headers = HeaderMap::new();
        headers.insert(CLIENT_CERT, HeaderValue::from_static("URI=spiffe://evil/ns/a/sa/b"));
        headers.insert("x_forwarded-client_cert", HeaderValue::from_static("URI=spiffe://evil/ns/a/sa/b"));
        client_cert(&mut headers, None, None);
        assert!(headers.is_empty());
    }
}
