//! What keeps calls together: `RouteAction.hash_policy` and `TcpProxy.hash_policy`.

use pillion_wire::xds::envoy_type;
use pillion_wire::xds::route::route_action;
use pillion_wire::xds::route::route_action::hash_policy::PolicySpecifier;

use super::at::{At, Reason, Refusal, duration, refuse};
use crate::config::{HashPolicy, HashSource};

/// Of requests.
pub(super) fn of_requests(
    at: &At<'_>,
    policies: Vec<route_action::HashPolicy>,
) -> Result<Vec<HashPolicy>, Refusal> {
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
            let name = header.header_name.parse().map_err(|_cause| at.field("header_name").invalid("is no field name"))?;
            Ok(HashSource::Header(name))
        }
        PolicySpecifier::Cookie(cookie) => {
            let at = &at.field("cookie");
            refuse!(at, cookie; attributes);
            let ttl = cookie.ttl.map(|ttl| duration(&at.field("ttl"), ttl)).transpose()?;
            if !is_token(&cookie.name) {
                return Err(at.field("name").invalid("is no cookie name"));
            }
            if !cookie.path.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b';') {
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

/// A token (RFC 9110, section 5.6.2).
fn is_token(name: &str) -> bool {
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
