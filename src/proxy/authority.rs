//! The host that a request names: in its target, else in its one `Host` field (RFC 9112, section 3.2).

use http::header::HOST;
use http::{HeaderValue, request, uri};
use pillion_wire::name::Destination;

use crate::error::ProxyError;

/// The port that an authority without one means.
const HTTP_PORT: u16 = 80;

/// The authority of a request, as the request has it.
#[derive(Clone, Debug)]
pub(super) enum Authority {
    /// Of its target: absolute form, or `:authority`.
    Target(uri::Authority),
    /// Its `Host` field, which is text; not always a valid authority.
    Field(HeaderValue),
}

impl Authority {
    /// What `request` names. Several `Host` fields are refused: the next hop might choose another one. So is user
    /// information (RFC 9110, section 4.2.4), which makes one host look like another.
    ///
    /// Empty in HTTP/1.0, which has no `Host`: a port that leads to one destination needs none.
    ///
    /// # Errors
    /// Why it names none.
    pub(super) fn of(request: &request::Parts) -> Result<Self, &'static str> {
        let mut hosts = request.headers.get_all(HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err("there is more than one Host field");
        }
        let authority = match (request.uri.authority(), host) {
            (Some(authority), _) => Self::Target(authority.clone()),
            (None, Some(host)) if host.to_str().is_ok() => Self::Field(host.clone()),
            (None, Some(_)) => return Err("the Host field is not text"),
            (None, None) if request.version <= http::Version::HTTP_10 => Self::Field(HeaderValue::from_static("")),
            (None, None) => return Err("there is no Host field"),
        };
        if authority.as_str().as_bytes().contains(&b'@') {
            return Err("user information has no place in it");
        }
        Ok(authority)
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Target(authority) => authority.as_str(),
            Self::Field(host) => std::str::from_utf8(host.as_bytes()).unwrap_or_default(),
        }
    }

    /// The destination that it means.
    pub(super) fn destination(&self) -> Result<Destination, ProxyError> {
        let authority = self.to_target().ok_or(ProxyError::BadAuthority("it is not host or host:port"))?;
        let host = authority.host();
        // `Authority::port` leaves out a number that is none, and so would we take port 80 for it.
        let port = match authority.as_str().strip_prefix(host).and_then(|rest| rest.strip_prefix(':')) {
            Some(port) => port.parse().map_err(|_invalid| ProxyError::BadAuthority("its port is no number"))?,
            None => HTTP_PORT,
        };
        Destination::new(host, port).map_err(|_invalid| ProxyError::BadAuthority("its host is no name or address"))
    }

    /// As the authority of a target. `None`: it is empty, or not a valid one.
    pub(super) fn to_target(&self) -> Option<uri::Authority> {
        match self {
            Self::Target(authority) => Some(authority.clone()),
            Self::Field(_) => self.as_str().parse().ok(),
        }
    }

    /// As a `Host` field.
    pub(super) fn to_field(&self) -> Option<HeaderValue> {
        match self {
            Self::Target(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            Self::Field(host) => Some(host.clone()),
        }
    }
}

impl From<&Destination> for Authority {
    fn from(destination: &Destination) -> Self {
        // A name or an address, and a port: always text.
        Self::Field(HeaderValue::try_from(destination.to_string()).unwrap_or(HeaderValue::from_static("")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str, hosts: &[&str]) -> Result<String, &'static str> {
        let mut builder = http::Request::builder().uri(uri);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        let parts = builder.body(()).expect("valid request").into_parts().0;
        let destination =
            Authority::of(&parts).map_err(ProxyError::BadAuthority).and_then(|authority| authority.destination());
        destination.map(|destination| destination.to_string()).map_err(|error| error.reason().code)
    }

    #[test]
    fn the_target_wins_over_the_host_field_and_the_port_defaults_to_80() {
        assert_eq!(parse("/", &["Orders.Shop"]), Ok("orders.shop:80".into()));
        assert_eq!(parse("/", &["orders:8080"]), Ok("orders:8080".into()));
        assert_eq!(parse("http://orders.shop/x", &["other"]), Ok("orders.shop:80".into()));
        assert_eq!(parse("/", &["[::1]:81"]), Ok("[::1]:81".into()));
    }

    #[test]
    fn unclear_authorities_are_refused() {
        for (uri, hosts) in [
            ("/", &[][..]),
            ("/", &["a", "b"]),
            ("http://a/", &["a", "a"]),
            ("/", &["a:0"]),
            ("/", &["a:99999"]),
            ("/", &["user@a"]),
            ("/", &["a b"]),
            ("/", &["a:http"]),
            ("/", &[""]),
        ] {
            assert_eq!(parse(uri, hosts), Err("bad_authority"), "{uri} {hosts:?}");
        }
    }
}
