//! What keeps calls together: `RouteAction.hash_policy` and `TcpProxy.hash_policy`.

use pillion_wire::xds::envoy_type;
use pillion_wire::xds::route::route_action;
use pillion_wire::xds::route::route_action::hash_policy::PolicySpecifier;

use super::at::{At, Reason, Refusal, duration, refuse};
use crate::config::{HashPolicy, HashSource};

/// Of requests.
pub(super) fn of_requests(at: &At<'_>, policies: Vec<route_action::HashPolicy>) -> Result<Vec<HashPolicy>, Refusal> {
    let policies = policies.into_iter().enumerate().map(|(index, policy)| {
        let at = &at.index(index);
        let source = source(at, at.required(policy.policy_specifier)?)?;
        Ok(HashPolicy { source, terminal: policy.terminal })
    });
    policies.collect()
}

fn source(at: &At<'_>, specifier: PolicySpecifier) -> Result<HashSource, Refusal> {
    match specifier {
        PolicySpecifier::Header(header) => {
            let at = &at.field("header");
            refuse!(at, header; regex_rewrite);
            let name =
                header.header_name.parse().map_err(|_cause| at.field("header_name").invalid("is no field name"))?;
            Ok(HashSource::Header(name))
        }
        PolicySpecifier::Cookie(cookie) => {
            let at = &at.field("cookie");
            refuse!(at, cookie; attributes);
            let ttl = cookie.ttl.map(|ttl| duration(&at.field("ttl"), ttl)).transpose()?;
            if !is_token(&cookie.name) {
                return Err(at.field("name").invalid("is no cookie name"));
            }
            if !is_cookie_text(&cookie.path) {
                return Err(at.field("path").invalid("is no cookie path"));
            }
            Ok(HashSource::Cookie { name: cookie.name, ttl, path: cookie.path })
        }
        PolicySpecifier::ConnectionProperties(properties) if properties.source_ip => Ok(HashSource::SourceIp),
        PolicySpecifier::ConnectionProperties(_) => Err(at.field("connection_properties").refuse(Reason::Missing)),
        PolicySpecifier::QueryParameter(parameter) => {
            let at = &at.field("query_parameter");
            Ok(HashSource::Query(at.field("name").filled(parameter.name)?))
        }
        PolicySpecifier::FilterState(_) => Err(at.field("filter_state").refuse(Reason::Unsupported)),
    }
}

/// What a cookie's path or other attribute is made of (RFC 6265, section 4.1.1).
pub(super) fn is_cookie_text(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b';')
}

/// A token (RFC 9110, section 5.6.2).
pub(super) fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Of opaque connections: by the client's address only.
pub(super) fn of_connections(at: &At<'_>, policies: &[envoy_type::HashPolicy]) -> Result<Vec<HashPolicy>, Refusal> {
    let policies = policies.iter().enumerate().map(|(index, policy)| match policy.policy_specifier {
        Some(envoy_type::hash_policy::PolicySpecifier::SourceIp(_)) => {
            Ok(HashPolicy { source: HashSource::SourceIp, terminal: true })
        }
        Some(_) => Err(at.index(index).refuse(Reason::Unsupported)),
        None => Err(at.index(index).refuse(Reason::Missing)),
    });
    policies.collect()
}

#[cfg(test)]
mod tests {
    use pillion_wire::xds::Duration;
    use route_action::hash_policy::{ConnectionProperties, Cookie, FilterState, Header, QueryParameter};

    use super::*;

    fn read(specifier: PolicySpecifier) -> Result<HashSource, String> {
        let policy = route_action::HashPolicy { terminal: true, policy_specifier: Some(specifier) };
        let read = of_requests(&At::ROOT.field("hash_policy"), vec![policy]);
        read.map(|mut policies| policies.remove(0).source).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn sources_are_read() {
        let cookie = Cookie {
            name: "sid".into(),
            ttl: Some(Duration { seconds: 60, nanos: 0 }),
            path: "/".into(),
            ..Cookie::default()
        };
        for (specifier, expected) in [
            (
                PolicySpecifier::Header(Header { header_name: "X-User".into(), regex_rewrite: None }),
                HashSource::Header(http::HeaderName::from_static("x-user")),
            ),
            (
                PolicySpecifier::Cookie(cookie),
                HashSource::Cookie {
                    name: "sid".into(),
                    ttl: Some(std::time::Duration::from_secs(60)),
                    path: "/".into(),
                },
            ),
            (PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }), HashSource::SourceIp),
            (PolicySpecifier::QueryParameter(QueryParameter { name: "u".into() }), HashSource::Query("u".into())),
        ] {
            assert_eq!(read(specifier), Ok(expected));
        }
    }

    #[test]
    fn what_makes_no_sense_or_is_not_supported_is_refused_with_the_path() {
        let cookie = |name: &str, path: &str| {
            PolicySpecifier::Cookie(Cookie { name: name.into(), path: path.into(), ..Cookie::default() })
        };
        for (specifier, expected) in [
            (
                PolicySpecifier::Header(Header { header_name: "a b".into(), regex_rewrite: None }),
                "hash_policy[0].header.header_name: is no field name",
            ),
            (cookie("a;b", ""), "hash_policy[0].cookie.name: is no cookie name"),
            (cookie("a", "/;x"), "hash_policy[0].cookie.path: is no cookie path"),
            (
                PolicySpecifier::FilterState(FilterState { key: "k".into() }),
                "hash_policy[0].filter_state: is not supported",
            ),
        ] {
            assert_eq!(read(specifier), Err(expected.to_owned()));
        }
    }
}
