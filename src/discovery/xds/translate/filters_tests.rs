//! What is read of filters, and what is refused with its path.

use std::collections::HashMap;

use pillion_wire::xds::core::{HeaderValue, HeaderValueOption, RuntimeFractionalPercent};
use pillion_wire::xds::envoy_type::FractionalPercent;
use pillion_wire::xds::hcm::{HttpFilter as PbFilter, http_filter};
use pillion_wire::xds::http_cors::{Cors, CorsPolicy};
use pillion_wire::xds::http_fault::{FaultAbort, HttpFault, fault_abort::ErrorType};
use pillion_wire::xds::matcher::{RegexMatchAndSubstitute, RegexMatcher};
use pillion_wire::xds::route::route_action::{ClusterSpecifier, RequestMirrorPolicy};
use pillion_wire::xds::route::weighted_cluster::ClusterWeight;
use pillion_wire::xds::route::{
    FilterConfig, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster, route, route_match,
};
use pillion_wire::xds::router::Router;
use pillion_wire::xds::{Any, UInt32Value, pack, type_url};

use super::at::At;
use super::{filters, route as routes};
use crate::config::{self, Action, HeaderChange, HttpFilter, Override, PathRewrite, PerMillion};

fn add(name: &str, value: &str, action: i32) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.into(), value: value.into(), ..HeaderValue::default() }),
        append_action: action,
        ..HeaderValueOption::default()
    }
}

fn to(cluster: ClusterSpecifier) -> RouteAction {
    RouteAction { cluster_specifier: Some(cluster), ..RouteAction::default() }
}

fn forward(action: RouteAction) -> Route {
    let path = Some(route_match::PathSpecifier::PathSeparatedPrefix("/foo".into()));
    Route {
        r#match: Some(RouteMatch { path_specifier: path, ..RouteMatch::default() }),
        action: Some(route::Action::Route(action)),
        ..Route::default()
    }
}

fn plain() -> RouteAction {
    to(ClusterSpecifier::Cluster("c".into()))
}

fn configuration(route: Route) -> RouteConfiguration {
    let host = VirtualHost { domains: vec!["*".into()], routes: vec![route], ..VirtualHost::default() };
    RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() }
}

fn read(config: RouteConfiguration) -> Result<config::Route, String> {
    let read = routes::configuration(&At::ROOT, config).map_err(|refusal| refusal.to_string())?;
    Ok(read.virtual_hosts[0].routes[0].clone())
}

fn fault(status: u32) -> Any {
    let abort = FaultAbort {
        percentage: Some(FractionalPercent { numerator: 7, denominator: 1 }),
        error_type: Some(ErrorType::HttpStatus(status)),
        ..FaultAbort::default()
    };
    pack(type_url::FAULT, &HttpFault { abort: Some(abort), ..HttpFault::default() })
}

fn wrapped(config: Any, is_optional: bool, disabled: bool) -> Any {
    pack(type_url::FILTER_CONFIG, &FilterConfig { config: Some(config), is_optional, disabled })
}

fn unknown() -> Any {
    Any { type_url: "type.googleapis.com/example.Unknown".into(), value: Vec::new() }
}

#[test]
fn clusters_speak_first_and_the_most_general_level_last_unless_told_otherwise() {
    for (specific_wins, order) in [(false, ["4", "3", "2", "1"]), (true, ["4", "1", "2", "3"])] {
        let cluster = ClusterWeight {
            name: "c".into(),
            weight: Some(UInt32Value { value: 1 }),
            request_headers_to_add: vec![add("a", "4", 2)],
            request_headers_to_remove: vec!["b".into()],
            ..ClusterWeight::default()
        };
        let clusters = WeightedCluster { clusters: vec![cluster], ..WeightedCluster::default() };
        let mut config = configuration(Route {
            request_headers_to_add: vec![add("a", "3", 2)],
            ..forward(to(ClusterSpecifier::WeightedClusters(clusters)))
        });
        config.request_headers_to_add = vec![add("a", "1", 2)];
        config.virtual_hosts[0].request_headers_to_add = vec![add("a", "2", 2)];
        config.most_specific_header_mutations_wins = specific_wins;
        let Action::Forward(split) = read(config).expect("accepted").action else { panic!() };
        let changes = split.clusters[0].headers.request.iter();
        let values = changes.filter_map(|change| match change {
            HeaderChange::Overwrite(_, value) => value.to_str().ok(),
            HeaderChange::Remove(_) => None,
            other => panic!("{other:?}"),
        });
        let values: Vec<_> = values.collect();
        assert_eq!(values, order);
        assert_eq!(split.clusters[0].headers.request.len(), 5);
    }
}

#[test]
fn filters_of_routes_are_read() {
    let mirror = RequestMirrorPolicy {
        cluster: "m".into(),
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent { numerator: 5, denominator: 0 }),
            runtime_key: String::new(),
        }),
        ..RequestMirrorPolicy::default()
    };
    let action = RouteAction { prefix_rewrite: "/x".into(), request_mirror_policies: vec![mirror], ..plain() };
    let mut config = configuration(forward(action));
    config.virtual_hosts[0].typed_per_filter_config =
        HashMap::from([("f".to_owned(), fault(503)), ("g".to_owned(), fault(500))]);
    config.virtual_hosts[0].routes[0].typed_per_filter_config = HashMap::from([
        ("f".to_owned(), wrapped(unknown(), true, true)),
        ("c".to_owned(), pack(type_url::CORS_POLICY, &CorsPolicy::default())),
        ("o".to_owned(), wrapped(unknown(), true, false)),
    ]);
    let filters = read(config).expect("accepted").filters;
    assert_eq!(filters.path, Some(PathRewrite::Prefix { matched: Some(4), with: "/x".into() }));
    assert_eq!((filters.mirrors[0].share, filters.mirrors[0].suffix), (PerMillion(50_000), true));
    let names: Vec<_> = filters.overrides.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["c", "f", "g"], "the optional unknown one is passed over");
    assert_eq!(filters.overrides[1].1, Override::Disabled);
    let Override::Fault(config::Fault { abort: Some((_, share)), .. }) = filters.overrides[2].1 else { panic!() };
    assert_eq!(share, PerMillion(700));
}

#[test]
fn what_cannot_be_done_is_refused_with_its_path() {
    let changed = |change: fn(&mut Route)| {
        let mut route = forward(plain());
        change(&mut route);
        configuration(route)
    };
    let action = |change: fn(&mut RouteAction)| {
        let mut action = plain();
        change(&mut action);
        configuration(forward(action))
    };
    for (config, wanted) in [
        (
            changed(|route| route.request_headers_to_add = vec![add("a", "%REQ(x)%", 0)]),
            "header.value.%: is not supported",
        ),
        (changed(|route| route.request_headers_to_add = vec![add("a", "b\nc", 0)]), "header.value: is no value"),
        (
            changed(|route| route.response_headers_to_add = vec![add("te", "x", 0)]),
            "response_headers_to_add[0].header.key",
        ),
        (changed(|route| route.response_headers_to_add = vec![add("x-pillion-port", "1", 0)]), "only sidecars set"),
        (changed(|route| route.request_headers_to_add = vec![add(":path", "x", 0)]), "is a pseudo header"),
        (changed(|route| route.request_headers_to_add = vec![add("a", "x", 9)]), "append_action: is not known"),
        (
            changed(|route| drop(route.typed_per_filter_config.insert("x".into(), unknown()))),
            "typed_per_filter_config: is not supported",
        ),
        (
            changed(|route| drop(route.typed_per_filter_config.insert("x".into(), fault(42)))),
            "typed_per_filter_config.abort.http_status: is no final",
        ),
        (
            action(|action| {
                action.prefix_rewrite = "/x".into();
                action.regex_rewrite = Some(RegexMatchAndSubstitute::default());
            }),
            "regex_rewrite: excludes prefix_rewrite",
        ),
        (
            action(|action| {
                let pattern = Some(RegexMatcher { regex: "(a)".into(), ..RegexMatcher::default() });
                action.regex_rewrite = Some(RegexMatchAndSubstitute { pattern, substitution: r"\2".into() });
            }),
            "regex_rewrite.substitution: refers to a group",
        ),
        (
            action(|action| action.request_mirror_policies.push(RequestMirrorPolicy::default())),
            "request_mirror_policies[0].cluster: is missing",
        ),
    ] {
        let error = read(config).expect_err(wanted);
        assert!(error.contains(wanted), "{error:?} does not say {wanted:?}");
    }
}

#[test]
fn filters_of_listeners_stand_before_the_router_and_are_ours_or_optional() {
    let filter = |name: &str, config: Any| PbFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..PbFilter::default()
    };
    let router = || filter("router", pack(type_url::ROUTER, &Router::default()));
    let optional = |filter: PbFilter| PbFilter { is_optional: true, ..filter };
    let read = |all: Vec<PbFilter>| filters::outbound(&At::ROOT, all).map_err(|refusal| refusal.to_string());
    let cors = || filter("c", pack(type_url::CORS, &Cors::default()));
    let known = read(vec![cors(), optional(filter("x", unknown())), filter("f", fault(503)), router()]);
    let known = known.expect("accepted");
    assert!(matches!(&known[..], [HttpFilter::Cors { name: c }, HttpFilter::Fault { name: f, otherwise: Some(_) }]
        if c == "c" && f == "f"));
    for (all, wanted) in [
        (vec![], "is missing"),
        (vec![cors()], "[0]: has to be the router"),
        (vec![router(), cors()], "[1]: has to be the router"),
        (vec![filter("x", unknown()), router()], "[0]: is not supported"),
        (vec![router(), router()], "[0]: is not supported"),
        (vec![filter("f", fault(1)), router()], "[0].typed_config.abort.http_status"),
    ] {
        let error = read(all).expect_err(wanted);
        assert!(error.contains(wanted), "{error:?} does not say {wanted:?}");
    }
    assert!(filters::inbound(&At::ROOT, vec![cors(), router()]).is_err(), "nothing of it is done inbound");
}
