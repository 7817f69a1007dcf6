//! `RouteConfiguration` of a Service port.

use pillion_wire::name::PortName;
use pillion_wire::xds::{
    core::{DataSource, data_source},
    matcher::{RegexMatcher, StringMatcher, string_matcher},
    route::{
        DirectResponseAction, HeaderMatcher, QueryParameterMatcher, Route, RouteAction, RouteConfiguration, RouteMatch,
        VirtualHost, WeightedCluster, header_matcher, query_parameter_matcher, route, route_action, route_match,
        weighted_cluster::{self, RandomValueSpecifier},
    },
    {BoolValue, Duration, UInt32Value},
};

use super::{INVALID_BACKEND, balancing, filter, http_filters, origin, resilience, treatment::treat};
use crate::{
    core::{
        filter::{BackendFilters, Headers},
        policy::DirectResponse,
        route::{Match, NamedMatch, PathMatch, ValueMatch},
        view::{PortView, RouteEntry, Share},
    },
    xds::dialect::Dialect,
};

/// The routes of `view`, under the name of its port.
pub(crate) fn configuration(view: &PortView, dialect: Dialect) -> RouteConfiguration {
    RouteConfiguration {
        name: view.key.to_string(),
        virtual_hosts: vec![virtual_host(view, vec!["*".to_owned()], dialect)],
        ..RouteConfiguration::default()
    }
}

/// The routes of `view` for requests to `domains`.
pub(super) fn virtual_host(view: &PortView, domains: Vec<String>, dialect: Dialect) -> VirtualHost {
    let routes = match &view.http {
        Some(entries) => entries
            .iter()
            .flat_map(|entry| {
                paths(&entry.matched.path, dialect).into_iter().map(move |path| route_of(view, entry, path, dialect))
            })
            .collect(),
        None => vec![default_route(view, dialect)],
    };
    VirtualHost { name: view.key.to_string(), domains, routes, ..VirtualHost::default() }
}

fn default_route(view: &PortView, dialect: Dialect) -> Route {
    let hash =
        balancing::hash_policies(view.policy.load_balancing.iter().flat_map(|section| &section.hash_on), dialect);
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix(String::new())),
            ..RouteMatch::default()
        }),
        action: Some(match &view.policy.direct_response {
            Some(response) => direct_response(response),
            None => route::Action::Route(forward(
                route_action::ClusterSpecifier::Cluster(view.key.to_string()),
                hash,
                dialect,
            )),
        }),
        typed_per_filter_config: http_filters::on_route(None, &view.policy, &view.key.to_string(), dialect),
        metadata: resilience::fallback(&view.policy, dialect),
        ..Route::default()
    };
    let mut route = treat(route, &view.policy, dialect);
    origin::note(&mut route.metadata, &view.origins, dialect);
    route
}

fn route_of(view: &PortView, entry: &RouteEntry, path: route_match::PathSpecifier, dialect: Dialect) -> Route {
    let filters = &entry.filters;
    let changes = if has_own_filters(entry) { &Headers::default() } else { &filters.headers };
    let route = Route {
        name: entry.name.clone(),
        r#match: Some(RouteMatch {
            path_specifier: Some(path),
            headers: headers(&entry.matched),
            query_parameters: entry.matched.query.iter().map(parameter).collect(),
            ..RouteMatch::default()
        }),
        action: Some(match (&entry.policy.direct_response, &filters.redirect) {
            (Some(response), _) => direct_response(response),
            (None, Some(redirect)) => {
                route::Action::Redirect(filter::redirect(redirect, &entry.matched.path, port(&view.key)))
            }
            (None, None) => action(entry, dialect),
        }),
        request_headers_to_add: filter::added(&changes.request),
        request_headers_to_remove: changes.request.remove.clone(),
        response_headers_to_add: filter::added(&changes.response),
        response_headers_to_remove: changes.response.remove.clone(),
        typed_per_filter_config: http_filters::on_route(filters.cors.as_ref(), &entry.policy, &entry.name, dialect),
        metadata: resilience::fallback(&entry.policy, dialect),
        ..Route::default()
    };
    let mut route = treat(route, &entry.policy, dialect);
    origin::note(&mut route.metadata, &entry.origins, dialect);
    route
}

/// The path as one or more matches. gRPC knows no path-separated prefix and
/// would refuse it, so there it is the path itself, and the path with a slash.
fn paths(path: &PathMatch, dialect: Dialect) -> Vec<route_match::PathSpecifier> {
    use route_match::PathSpecifier as Path;
    match path {
        PathMatch::Exact(text) => vec![Path::Path(text.clone())],
        PathMatch::Text(text) => vec![Path::Prefix(text.clone())],
        PathMatch::Regex(text) => vec![Path::SafeRegex(regex(text))],
        PathMatch::Prefix(text) if text == "/" => vec![Path::Prefix(String::new())],
        PathMatch::Prefix(text) if dialect == Dialect::Grpc => {
            vec![Path::Path(text.clone()), Path::Prefix(format!("{text}/"))]
        }
        PathMatch::Prefix(text) => vec![Path::PathSeparatedPrefix(text.clone())],
    }
}

fn headers(matched: &Match) -> Vec<HeaderMatcher> {
    let method = matched
        .method
        .iter()
        .map(|method| NamedMatch { name: ":method".to_owned(), value: ValueMatch::Exact(method.clone()) });
    method.chain(matched.headers.iter().cloned()).map(header).collect()
}

pub(super) fn header(header: NamedMatch) -> HeaderMatcher {
    HeaderMatcher {
        header_match_specifier: Some(header_matcher::HeaderMatchSpecifier::StringMatch(string(&header.value))),
        name: header.name,
        ..HeaderMatcher::default()
    }
}

fn parameter(parameter: &NamedMatch) -> QueryParameterMatcher {
    QueryParameterMatcher {
        name: parameter.name.clone(),
        query_parameter_match_specifier: Some(query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch(
            string(&parameter.value),
        )),
    }
}

fn string(value: &ValueMatch) -> StringMatcher {
    let pattern = match value {
        ValueMatch::Exact(text) => string_matcher::MatchPattern::Exact(text.clone()),
        ValueMatch::Regex(text) => string_matcher::MatchPattern::SafeRegex(regex(text)),
    };
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

fn regex(text: &str) -> RegexMatcher {
    RegexMatcher { regex: text.to_owned(), ..RegexMatcher::default() }
}

fn action(entry: &RouteEntry, dialect: Dialect) -> route::Action {
    let name = |share: &Share| share.target.as_ref().map_or_else(|| INVALID_BACKEND.to_owned(), ToString::to_string);
    let sticky = entry.policy.split.as_ref();
    let specifier = match entry.shares.as_slice() {
        [] if dialect == Dialect::Pillion => route_action::ClusterSpecifier::Cluster(INVALID_BACKEND.to_owned()),
        [] => {
            let body = "no backend of this route exists\n".to_owned();
            return direct_response(&DirectResponse { status: 500, body });
        }
        [only] if only.filters == BackendFilters::default() => route_action::ClusterSpecifier::Cluster(name(only)),
        several => route_action::ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several.iter().map(|share| cluster_weight(name(share), share, entry)).collect(),
            random_value_specifier: sticky
                .filter(|_| dialect != Dialect::Grpc)
                .map(|_| RandomValueSpecifier::UseHashPolicy(BoolValue { value: true })),
            ..WeightedCluster::default()
        }),
    };
    let keys = sticky.into_iter().flat_map(|split| &split.hash_on);
    let hash = balancing::hash_policies(keys.chain(entry.shares.iter().flat_map(|share| &share.hash_on)), dialect);
    let mut action = filter::forwarding(entry, forward(specifier, hash, dialect));
    if has_own_filters(entry) {
        action.host_rewrite_specifier = None;
    }
    route::Action::Route(action)
}

/// In Envoy what a route does to heads and hosts comes after what its clusters do, and here it has to come before: if any
/// backend does something of its own, the rule's part is said for each of them as well, and not for the route.
fn has_own_filters(entry: &RouteEntry) -> bool {
    entry.shares.iter().any(|share| share.filters != BackendFilters::default())
}

fn cluster_weight(name: String, share: &Share, entry: &RouteEntry) -> weighted_cluster::ClusterWeight {
    let own = has_own_filters(entry);
    let headers = if own { entry.filters.headers.then(&share.filters.headers) } else { Headers::default() };
    let hostname = share.filters.hostname.as_ref().or(entry.filters.rewrite.hostname.as_ref()).filter(|_| own);
    weighted_cluster::ClusterWeight {
        name,
        weight: Some(UInt32Value { value: share.weight }),
        request_headers_to_add: filter::added(&headers.request),
        request_headers_to_remove: headers.request.remove,
        response_headers_to_add: filter::added(&headers.response),
        response_headers_to_remove: headers.response.remove,
        host_rewrite_specifier: hostname
            .cloned()
            .map(weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        ..weighted_cluster::ClusterWeight::default()
    }
}

fn direct_response(response: &DirectResponse) -> route::Action {
    route::Action::DirectResponse(DirectResponseAction {
        status: response.status.into(),
        body: Some(DataSource {
            specifier: Some(data_source::Specifier::InlineString(response.body.clone())),
            ..DataSource::default()
        }),
        ..DirectResponseAction::default()
    })
}

/// Envoy would cut a request after 15 s unless told otherwise.
fn forward(
    specifier: route_action::ClusterSpecifier,
    hash_policy: Vec<route_action::HashPolicy>,
    dialect: Dialect,
) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(specifier),
        hash_policy,
        timeout: (dialect == Dialect::Envoy).then(Duration::default),
        ..RouteAction::default()
    }
}

fn port(key: &PortName) -> u16 {
    match key {
        PortName::Service(service) => service.port,
        PortName::Workload(address) => address.port(),
    }
}
