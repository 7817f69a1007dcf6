//! HTTP filters of connection managers, and what they do on single routes (`typed_per_filter_config`, gRFC A39).
//!
//! The filters themselves say nothing: they stand in every listener, so that a policy that comes or goes changes routes
//! only, and never a listener. gRPC is told of faults alone, and where there are none, of nothing.

use std::collections::HashMap;

use pillion_wire::xds::{
    Any, BoolValue, UInt32Value,
    common_fault::{FaultDelay, fault_delay},
    envoy_type::{FractionalPercent, fractional_percent::DenominatorType},
    hcm::{HttpFilter, http_filter},
    http_cors::{self, CorsPolicy},
    http_fault::{FaultAbort, HttpFault, fault_abort},
    matcher::{RegexMatcher, StringMatcher, string_matcher},
    pack,
    router::Router,
    type_url,
};

use super::{duration, route::header};
use crate::{
    core::{
        filter::Cors,
        policy::{Abort, Faults},
        view::PortView,
    },
    xds::dialect::Dialect,
};

const CORS: &str = "envoy.filters.http.cors";
const FAULT: &str = "envoy.filters.http.fault";

/// The filters before requests to `view`, or (without it) to anybody.
pub(super) fn outbound(view: Option<&PortView>, dialect: Dialect) -> Vec<HttpFilter> {
    let has_faults = view.is_some_and(has_faults);
    let cors = (dialect != Dialect::Grpc).then(|| filter(CORS, pack(type_url::CORS, &http_cors::Cors::default())));
    let fault =
        (dialect != Dialect::Grpc || has_faults).then(|| filter(FAULT, pack(type_url::FAULT, &HttpFault::default())));
    cors.into_iter().chain(fault).chain([router()]).collect()
}

/// Whether any request to `view` may be harmed on purpose.
pub(crate) fn has_faults(view: &PortView) -> bool {
    let routes = view.http.iter().flatten().map(|entry| &entry.policy);
    routes.chain([&view.policy]).any(|policy| policy.faults.is_some())
}

/// The last HTTP filter of every connection manager (gRFC A39).
pub(super) fn router() -> HttpFilter {
    filter("envoy.filters.http.router", pack(type_url::ROUTER, &Router::default()))
}

/// What they do on one route.
pub(super) fn on_route(cors: Option<&Cors>, faults: Option<&Faults>, dialect: Dialect) -> HashMap<String, Any> {
    let cors = cors.filter(|_| dialect != Dialect::Grpc);
    let cors = cors.map(|cors| (CORS.to_owned(), pack(type_url::CORS_POLICY, &policy(cors))));
    let fault = faults.map(|faults| (FAULT.to_owned(), pack(type_url::FAULT, &fault(faults))));
    cors.into_iter().chain(fault).collect()
}

pub(super) fn per_million(numerator: u32) -> FractionalPercent {
    FractionalPercent { numerator, denominator: DenominatorType::Million.into() }
}

pub(super) fn filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}

fn policy(cors: &Cors) -> CorsPolicy {
    CorsPolicy {
        allow_origin_string_match: cors.origins.iter().map(|origin| origin_matcher(origin)).collect(),
        allow_methods: cors.methods.join(", "),
        allow_headers: cors.headers.join(", "),
        expose_headers: cors.exposed.join(", "),
        max_age: cors.max_age.as_secs().to_string(),
        allow_credentials: Some(BoolValue { value: cors.credentials }),
        // Whoever is not allowed gets no permission from the application either.
        forward_not_matching_preflights: Some(BoolValue { value: false }),
        ..CorsPolicy::default()
    }
}

/// `*` alone is any origin (Envoy `CorsPolicy`); inside a host it is any text, of one label or several.
fn origin_matcher(origin: &str) -> StringMatcher {
    let pattern = if origin == "*" || !origin.contains('*') {
        string_matcher::MatchPattern::Exact(origin.to_owned())
    } else {
        let regex = regex::escape(origin).replace(r"\*", "[^/]+");
        string_matcher::MatchPattern::SafeRegex(RegexMatcher { regex, ..RegexMatcher::default() })
    };
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

fn fault(faults: &Faults) -> HttpFault {
    HttpFault {
        delay: faults.delay.map(|(delay, share)| FaultDelay {
            percentage: Some(per_million(share.0)),
            fault_delay_secifier: Some(fault_delay::FaultDelaySecifier::FixedDelay(duration(delay))),
        }),
        abort: faults.abort.map(|(abort, share)| FaultAbort {
            percentage: Some(per_million(share.0)),
            error_type: Some(match abort {
                Abort::Http(status) => fault_abort::ErrorType::HttpStatus(status.into()),
                Abort::Grpc(status) => fault_abort::ErrorType::GrpcStatus(status),
            }),
            ..FaultAbort::default()
        }),
        headers: faults.headers.iter().cloned().map(header).collect(),
        max_active_faults: Some(UInt32Value { value: faults.max_active }),
        ..HttpFault::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_a_host_stands_for_its_labels() {
        let Some(string_matcher::MatchPattern::SafeRegex(matcher)) =
            origin_matcher("https://*.example:8443").match_pattern
        else {
            panic!("an expression");
        };
        let regex = regex::Regex::new(&format!("^(?:{})$", matcher.regex)).unwrap();
        assert!(regex.is_match("https://a.b.example:8443"));
        for other in ["https://example:8443", "https://.example:8443/", "https://a.example", "https://aXexample:8443"] {
            assert!(!regex.is_match(other), "{other}");
        }
    }
}
