//! `RouteConfiguration` of a Service port.

use pillion_wire::xds::{
    core::{DataSource, data_source},
    matcher::{RegexMatcher, StringMatcher, string_matcher},
    route::{
        DirectResponseAction, HeaderMatcher, QueryParameterMatcher, Route, RouteAction, RouteConfiguration, RouteMatch,
        VirtualHost, WeightedCluster, header_matcher, query_parameter_matcher, route, route_action, route_match,
        weighted_cluster,
    },
    {Duration, UInt32Value},
};

use super::{INVALID_BACKEND, treatment::treat};
use crate::{
    core::{
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
                paths(&entry.matched.path, dialect).into_iter().map(move |path| route_of(entry, path, dialect))
            })
            .collect(),
        None => vec![default_route(view, dialect)],
    };
    VirtualHost { name: view.key.to_string(), domains, routes, ..VirtualHost::default() }
}

fn default_route(view: &PortView, dialect: Dialect) -> Route {
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix(String::new())),
            ..RouteMatch::default()
        }),
        action: Some(forward(route_action::ClusterSpecifier::Cluster(view.key.to_string()), dialect)),
        ..Route::default()
    };
    treat(route, &view.policy, dialect)
}

fn route_of(entry: &RouteEntry, path: route_match::PathSpecifier, dialect: Dialect) -> Route {
    let route = Route {
        name: entry.name.clone(),
        r#match: Some(RouteMatch {
            path_specifier: Some(path),
            headers: headers(&entry.matched),
            query_parameters: entry.matched.query.iter().map(parameter).collect(),
            ..RouteMatch::default()
        }),
        action: Some(action(&entry.shares, dialect)),
        ..Route::default()
    };
    treat(route, &entry.policy, dialect)
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
    method
        .chain(matched.headers.iter().cloned())
        .map(|header| HeaderMatcher {
            header_match_specifier: Some(header_matcher::HeaderMatchSpecifier::StringMatch(string(&header.value))),
            name: header.name,
            ..HeaderMatcher::default()
        })
        .collect()
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

fn action(shares: &[Share], dialect: Dialect) -> route::Action {
    let name = |share: &Share| share.target.as_ref().map_or_else(|| INVALID_BACKEND.to_owned(), ToString::to_string);
    match shares {
        [] if dialect == Dialect::Pillion => {
            forward(route_action::ClusterSpecifier::Cluster(INVALID_BACKEND.to_owned()), dialect)
        }
        [] => route::Action::DirectResponse(DirectResponseAction {
            status: 500,
            body: Some(DataSource {
                specifier: Some(data_source::Specifier::InlineString("no backend of this route exists\n".to_owned())),
                ..DataSource::default()
            }),
            ..DirectResponseAction::default()
        }),
        [only] => forward(route_action::ClusterSpecifier::Cluster(name(only)), dialect),
        several => {
            let clusters = several
                .iter()
                .map(|share| weighted_cluster::ClusterWeight {
                    name: name(share),
                    weight: Some(UInt32Value { value: share.weight }),
                    ..weighted_cluster::ClusterWeight::default()
                })
                .collect();
            forward(
                route_action::ClusterSpecifier::WeightedClusters(WeightedCluster {
                    clusters,
                    ..WeightedCluster::default()
                }),
                dialect,
            )
        }
    }
}

/// Envoy would cut a request after 15 s unless told otherwise.
fn forward(specifier: route_action::ClusterSpecifier, dialect: Dialect) -> route::Action {
    route::Action::Route(RouteAction {
        cluster_specifier: Some(specifier),
        timeout: (dialect == Dialect::Envoy).then(Duration::default),
        ..RouteAction::default()
    })
}
