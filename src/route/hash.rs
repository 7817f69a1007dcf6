//! The hash of a request, by which balancers keep requests together (Envoy `RouteAction.HashPolicy`, gRFC A42).

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::COOKIE;
use http::{HeaderValue, request};

use super::query;
use crate::balance::xxh64;
use crate::config::{HashPolicy, HashSource};

/// What is known of a call before a host is picked.
#[derive(Clone, Debug, Default)]
pub struct Affinity {
    /// The hash; `None`: the call has nothing to go by.
    pub hash: Option<u64>,
    /// A cookie for the client, which had none (`Set-Cookie`).
    pub cookie: Option<HeaderValue>,
    /// Its session, where its route keeps sessions.
    pub session: Option<super::Bound>,
}

/// The hash of a request from `client`. `random` is the value of a cookie, should one have to be given.
pub fn affinity(
    policies: &[HashPolicy],
    request: &request::Parts,
    client: IpAddr,
    random: impl Fn() -> u64,
) -> Affinity {
    let mut found = Affinity::default();
    for policy in policies {
        if let Some(hash) = hash_of(&policy.source, request, client, &random, &mut found.cookie) {
            found.hash = Some(found.hash.map_or(hash, |before| before.rotate_left(1) ^ hash));
        }
        if policy.terminal && found.hash.is_some() {
            break;
        }
    }
    found
}

/// The hash of an opaque connection from `client`.
pub fn connection_affinity(policies: &[HashPolicy], client: IpAddr) -> Option<u64> {
    policies.iter().any(|policy| policy.source == HashSource::SourceIp).then(|| of_address(client))
}

fn hash_of(
    source: &HashSource,
    request: &request::Parts,
    client: IpAddr,
    random: impl Fn() -> u64,
    given: &mut Option<HeaderValue>,
) -> Option<u64> {
    match source {
        HashSource::Header(name) => {
            let mut values = request.headers.get_all(name).iter();
            let first = values.next()?;
            let mut hash = xxh64(first.as_bytes(), 0);
            values.for_each(|value| hash = xxh64(value.as_bytes(), hash));
            Some(hash)
        }
        HashSource::Cookie { name, ttl, path } => match cookie(request, name) {
            Some(value) => Some(xxh64(value, 0)),
            None => {
                let ttl = (*ttl)?;
                let value = format!("{:016x}", random());
                let mut text = format!("{name}={value}");
                if !ttl.is_zero() {
                    // Writing to a String cannot fail.
                    let _infallible = write!(text, "; Max-Age={}", ttl.as_secs().max(1));
                }
                if !path.is_empty() {
                    let _infallible = write!(text, "; Path={path}");
                }
                text.push_str("; HttpOnly");
                *given = HeaderValue::try_from(text).ok();
                Some(xxh64(value.as_bytes(), 0))
            }
        },
        HashSource::SourceIp => Some(of_address(client)),
        HashSource::Query(name) => query::first(request.uri.query()?, name).map(|value| xxh64(value.as_bytes(), 0)),
    }
}

/// By its text, as Envoy does.
fn of_address(address: IpAddr) -> u64 {
    xxh64(address.to_canonical().to_string().as_bytes(), 0)
}

/// The first cookie of that name that is not empty (RFC 6265, section 4.2.1).
pub(super) fn cookie<'a>(request: &'a request::Parts, name: &str) -> Option<&'a [u8]> {
    let pairs = request.headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs
        .filter_map(|pair| pair.trim_ascii_start().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .map(|value| value.trim_ascii())
        .map(|value| value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value))
        .find(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn request(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let builder = http::Request::builder().uri(uri);
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).expect("valid request").into_parts().0
    }

    fn of(sources: Vec<HashSource>, terminal: bool, request: &request::Parts) -> Affinity {
        let policies: Vec<HashPolicy> = sources.into_iter().map(|source| HashPolicy { source, terminal }).collect();
        affinity(&policies, request, CLIENT, || 0x2a)
    }

    fn session(ttl: Option<u64>) -> HashSource {
        HashSource::Cookie { name: "sid".into(), ttl: ttl.map(Duration::from_secs), path: "/".into() }
    }

    #[test]
    fn each_source_is_hashed_by_its_value() {
        let header = || HashSource::Header(http::HeaderName::from_static("x-user"));
        let query = || HashSource::Query("u".into());
        let hash = |text: &str| Some(xxh64(text.as_bytes(), 0));
        for (source, uri, headers, expected) in [
            (header(), "/", &[("X-User", "ann")][..], hash("ann")),
            (header(), "/", &[], None),
            (query(), "/?a=1&u=ann&u=bob", &[], hash("ann")),
            (query(), "/?a=1", &[], None),
            (query(), "/", &[], None),
            (HashSource::SourceIp, "/", &[], hash("127.0.0.1")),
            (session(None), "/", &[("cookie", "xsid=1; sid=2"), ("cookie", "sid=3")], hash("2")),
            (session(None), "/", &[("cookie", "sid=; a=b; sid=\"4\" ")], hash("4")),
            (session(None), "/", &[("cookie", "sid")], None),
        ] {
            let found = of(vec![source.clone()], true, &request(uri, headers));
            assert_eq!(found.hash, expected, "{source:?} {uri} {headers:?}");
            assert_eq!(found.cookie, None);
        }
    }

    #[test]
    fn a_client_without_cookie_is_given_one_that_leads_to_the_same_hash() {
        for (ttl, text) in [
            (3600, "sid=000000000000002a; Max-Age=3600; Path=/; HttpOnly"),
            (0, "sid=000000000000002a; Path=/; HttpOnly"),
        ] {
            let given = of(vec![session(Some(ttl))], true, &request("/", &[]));
            assert_eq!(given.cookie.as_ref().expect("a cookie"), text);
            let again = of(vec![session(Some(ttl))], true, &request("/", &[("cookie", "sid=000000000000002a")]));
            assert_eq!((again.hash, again.cookie), (given.hash, None));
        }
    }

    #[test]
    fn policies_join_unless_the_first_that_has_a_hash_ends_it() {
        let sources = || vec![HashSource::Query("u".into()), HashSource::SourceIp];
        let hash = |text: &str| xxh64(text.as_bytes(), 0);
        let request = request("/?u=ann", &[]);
        assert_eq!(of(sources(), true, &request).hash, Some(hash("ann")));
        assert_eq!(of(sources(), false, &request).hash, Some(hash("ann").rotate_left(1) ^ hash("127.0.0.1")));
        let without = http::Request::new(()).into_parts().0;
        assert_eq!(of(sources(), true, &without).hash, Some(hash("127.0.0.1")));
    }
}
