//! Who called, told to the application: `Forwarded`, `X-Forwarded-*`, `X-Forwarded-Client-Cert`.

use std::net::IpAddr;

use http::header::{Entry, FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use pillion_wire::spiffe::SpiffeId;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Envoy's field with the identity of the caller; only its value from us can be believed.
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Who called, as all requests of one connection are told: put into words once.
#[derive(Debug)]
pub struct Caller {
    address: HeaderValue,
    /// The `Forwarded` element up to the host that was asked for.
    element: String,
    scheme: &'static str,
    client_cert: Option<HeaderValue>,
}

impl Caller {
    /// A caller at `address` who uses `scheme`, and has proven to `us` to be `peer`.
    pub fn new(address: IpAddr, scheme: &'static str, us: Option<&SpiffeId>, peer: Option<&SpiffeId>) -> Self {
        let address = address.to_canonical();
        let node = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        let word = |peer| us.map_or_else(|| format!("URI={peer}"), |us| format!("By={us};URI={peer}"));
        Self {
            // Neither an address nor a SPIFFE id has anything that a field could not hold.
            address: HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static("unknown")),
            element: format!("for={node};host="),
            scheme,
            client_cert: peer.and_then(|peer| HeaderValue::try_from(word(peer)).ok()),
        }
    }

    /// Appends its address, the scheme it used and the host it asked for, and says who it is.
    ///
    /// RFC 7239, section 4: each proxy appends its own element; what earlier ones said stays in front.
    /// `X-Forwarded-Proto` keeps the first proxy's word. `X-Forwarded-Client-Cert` is in Envoy's format
    /// (`forward_client_cert_details: SANITIZE_SET`), `By=<us>;URI=<peer>`; what others said of that is to be gone
    /// already ([`super::clean_request`]).
    pub fn tell(&self, headers: &mut HeaderMap, host: &str) {
        append(headers, X_FORWARDED_FOR, self.address.clone());
        headers.entry(X_FORWARDED_PROTO).or_insert_with(|| HeaderValue::from_static(self.scheme));
        if let Ok(element) = HeaderValue::try_from(self.element(host)) {
            append(headers, FORWARDED, element);
        }
        if let Some(value) = &self.client_cert {
            headers.insert(CLIENT_CERT, value.clone());
        }
    }

    fn element(&self, host: &str) -> String {
        const PROTO: &str = ";proto=";
        let mut element = String::with_capacity(self.element.len() + host.len() + 2 + PROTO.len() + self.scheme.len());
        element.push_str(&self.element);
        if is_token(host) {
            element.push_str(host);
        } else {
            push_quoted(&mut element, host);
        }
        element.push_str(PROTO);
        element.push_str(self.scheme);
        element
    }
}

/// Is this the field of a caller's identity? Spellings with `_` count too: CGI and its heirs (WSGI, Rack) cannot tell
/// them from the real one.
pub(super) fn is_client_cert(name: &str) -> bool {
    let alike = |(ours, theirs): (u8, u8)| ours == theirs || (ours == b'-' && theirs == b'_');
    name.len() == CLIENT_CERT.as_str().len() && CLIENT_CERT.as_str().bytes().zip(name.bytes()).all(alike)
}

/// Joins `element` to the list that stands there; several fields of one name become one.
fn append(headers: &mut HeaderMap, name: HeaderName, element: HeaderValue) {
    let mut there = match headers.entry(name) {
        Entry::Vacant(nothing) => {
            nothing.insert(element);
            return;
        }
        Entry::Occupied(there) => there,
    };
    let elements = there.iter().chain([&element]).filter_map(|value| value.to_str().ok());
    if let Ok(joined) = HeaderValue::try_from(elements.collect::<Vec<_>>().join(", ")) {
        there.insert(joined);
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// RFC 9110, section 5.6.4.
fn push_quoted(list: &mut String, text: &str) {
    let is_special = |byte| matches!(byte, b'"' | b'\\');
    list.push('"');
    if text.bytes().any(is_special) {
        list.push_str(&text.replace('\\', "\\\\").replace('"', "\\\""));
    } else {
        list.push_str(text);
    }
    list.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(headers: &HeaderMap, name: &HeaderName) -> String {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    }

    fn tell(headers: &mut HeaderMap, address: &str, scheme: &'static str, host: &str) {
        Caller::new(address.parse().expect("literal"), scheme, None, None).tell(headers, host);
    }

    #[test]
    fn each_hop_appends_and_the_first_scheme_stays() {
        let mut headers = HeaderMap::new();
        tell(&mut headers, "10.0.0.1", "https", "shop");
        tell(&mut headers, "::ffff:10.0.0.2", "http", "shop:80");
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
        tell(&mut headers, "2001:db8::1", "http", "a");
        assert_eq!(text(&headers, &FORWARDED), "for=\"[2001:db8::1]\";host=a;proto=http");
    }

    #[test]
    fn a_host_that_is_no_token_is_quoted() {
        let mut headers = HeaderMap::new();
        tell(&mut headers, "10.0.0.1", "http", "a\"\\b");
        assert_eq!(text(&headers, &FORWARDED), "for=10.0.0.1;host=\"a\\\"\\\\b\";proto=http");
    }

    #[test]
    fn a_proven_caller_is_named() {
        let (us, peer) =
            ("spiffe://d/ns/a/sa/us".parse().expect("literal"), "spiffe://d/ns/a/sa/it".parse().expect("id"));
        let mut headers = HeaderMap::new();
        Caller::new([10, 0, 0, 1].into(), "http", Some(&us), Some(&peer)).tell(&mut headers, "a");
        assert_eq!(text(&headers, &CLIENT_CERT), "By=spiffe://d/ns/a/sa/us;URI=spiffe://d/ns/a/sa/it");
    }
}
