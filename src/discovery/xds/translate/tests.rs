use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use pillion_wire::extension;
use pillion_wire::load_shedding::{CRITICALITY_METADATA, Criticality, CriticalityRule};
use pillion_wire::mesh::{Application, MeshEndpoint};
use pillion_wire::xds::adaptive_concurrency::adaptive_concurrency::ConcurrencyControllerConfig;
use pillion_wire::xds::adaptive_concurrency::gradient_controller_config::{
    ConcurrencyLimitCalculationParams, MinimumRttCalculationParams,
};
use pillion_wire::xds::adaptive_concurrency::{AdaptiveConcurrency, GradientControllerConfig};
use pillion_wire::xds::cluster::circuit_breakers::Thresholds;
use pillion_wire::xds::cluster::{CircuitBreakers, Cluster, OutlierDetection, cluster};
use pillion_wire::xds::core::{
    Address, AggregatedConfigSource, ConfigSource, DataSource, Http2ProtocolOptions, Metadata, SocketAddress,
    TransportSocket, address, config_source, data_source, socket_address, transport_socket,
};
use pillion_wire::xds::endpoint::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, cluster_load_assignment, lb_endpoint,
};
use pillion_wire::xds::hcm::{HttpConnectionManager, HttpFilter, Rds, http_connection_manager, http_filter};
use pillion_wire::xds::listener::{
    AdditionalAddress, ApiListener, Filter, FilterChain, FilterChainMatch, Listener, filter,
};
use pillion_wire::xds::matcher::{RegexMatcher, StringMatcher, string_matcher};
use pillion_wire::xds::route::{
    DirectResponseAction, HeaderMatcher, NonForwardingAction, QueryParameterMatcher, RedirectAction, Route,
    RouteAction, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster, header_matcher, query_parameter_matcher,
    route, route_action, route_match, weighted_cluster,
};
use pillion_wire::xds::router::Router;
use pillion_wire::xds::tcp_proxy::{TcpProxy, tcp_proxy};
use pillion_wire::xds::tls::DownstreamTlsContext;
use pillion_wire::xds::upstream_http::{HttpProtocolOptions, http_protocol_options};
use pillion_wire::xds::{BoolValue, UInt32Value, pack};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::config::{
    Access, Action, AppProtocol, HeaderName, Health, InboundPort, PathMatch, RouteSource, StringMatch,
    UpstreamProtocol, ValueMatch,
};

const HOST: &str = "pillion/host?name=orders.shop";
const INBOUND: &str = "pillion/inbound?xds.resource.listening_address=127.0.0.1:15008";

fn ads() -> ConfigSource {
    let ads = config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {});
    ConfigSource { config_source_specifier: Some(ads), ..ConfigSource::default() }
}

fn address(text: &str) -> Address {
    let parsed: SocketAddr = text.parse().expect("literal");
    let port_specifier = Some(socket_address::PortSpecifier::PortValue(parsed.port().into()));
    let socket = SocketAddress { address: parsed.ip().to_string(), port_specifier, ..SocketAddress::default() };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

fn manager() -> HttpConnectionManager {
    let config_type = Some(http_filter::ConfigType::TypedConfig(pack(type_url::ROUTER, &Router::default())));
    let rds = Rds { config_source: Some(ads()), route_config_name: "orders.shop:80".into() };
    HttpConnectionManager {
        stat_prefix: "x".into(),
        http_filters: vec![HttpFilter { name: "router".into(), config_type, ..HttpFilter::default() }],
        route_specifier: Some(http_connection_manager::RouteSpecifier::Rds(rds)),
        ..HttpConnectionManager::default()
    }
}

fn tcp_filter(proxy: &TcpProxy) -> Filter {
    let config_type = Some(filter::ConfigType::TypedConfig(pack(type_url::TCP_PROXY, proxy)));
    Filter { name: "tcp".into(), config_type }
}

fn to_cluster(name: &str) -> TcpProxy {
    TcpProxy { cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(name.into())), ..TcpProxy::default() }
}

fn outbound(manager: &HttpConnectionManager) -> Listener {
    let chain = FilterChain { filters: vec![tcp_filter(&to_cluster("orders.shop:80"))], ..FilterChain::default() };
    Listener {
        name: "orders.shop:80".into(),
        api_listener: Some(ApiListener { api_listener: Some(pack(type_url::HCM, manager)) }),
        default_filter_chain: Some(chain),
        ..Listener::default()
    }
}

fn chain(port: u32, filter: Filter) -> FilterChain {
    let tls = DownstreamTlsContext {
        require_client_certificate: Some(BoolValue { value: true }),
        ..DownstreamTlsContext::default()
    };
    let config = transport_socket::ConfigType::TypedConfig(pack(type_url::DOWNSTREAM_TLS, &tls));
    FilterChain {
        filter_chain_match: Some(FilterChainMatch {
            destination_port: Some(UInt32Value { value: port }),
            ..FilterChainMatch::default()
        }),
        filters: vec![filter],
        metadata: Some(application(false)),
        transport_socket: Some(TransportSocket { name: "tls".into(), config_type: Some(config) }),
        ..FilterChain::default()
    }
}

fn application(tls: bool) -> Metadata {
    Application { address: "127.0.0.1:8080".parse().expect("literal"), tls }.to_metadata()
}

/// A chain of an application that speaks TLS itself.
fn own_tls(port: u32) -> FilterChain {
    FilterChain { metadata: Some(application(true)), ..chain(port, tcp_filter(&to_cluster("application"))) }
}

fn passthrough(mut chain: FilterChain) -> FilterChain {
    chain.transport_socket = None;
    chain.filter_chain_match.as_mut().expect("set").transport_protocol = "tls".into();
    chain
}

/// An outbound chain for TLS connections that ask for `names`.
fn by_name(names: &[&str]) -> FilterChain {
    FilterChain {
        filter_chain_match: Some(FilterChainMatch {
            transport_protocol: "tls".into(),
            server_names: names.iter().map(ToString::to_string).collect(),
            ..FilterChainMatch::default()
        }),
        filters: vec![tcp_filter(&to_cluster("payment.shop:443"))],
        ..FilterChain::default()
    }
}

fn plaintext(mut chain: FilterChain) -> FilterChain {
    chain.transport_socket = None;
    chain.filter_chain_match.as_mut().expect("set").transport_protocol = "raw_buffer".into();
    chain
}

fn http_filter(codec: http_connection_manager::CodecType) -> Filter {
    let everything = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix(String::new())),
            ..RouteMatch::default()
        }),
        action: Some(route::Action::NonForwardingAction(NonForwardingAction {})),
        ..Route::default()
    };
    let host = VirtualHost { domains: vec!["*".into()], routes: vec![everything], ..VirtualHost::default() };
    let config = RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() };
    let manager = HttpConnectionManager {
        codec_type: codec.into(),
        route_specifier: Some(http_connection_manager::RouteSpecifier::RouteConfig(config)),
        ..manager()
    };
    let config_type = Some(filter::ConfigType::TypedConfig(pack(type_url::HCM, &manager)));
    Filter { name: "http".into(), config_type }
}

fn inbound(chains: Vec<FilterChain>) -> Listener {
    let bound = Some(address("127.0.0.1:15008"));
    Listener { name: INBOUND.into(), address: bound, filter_chains: chains, ..Listener::default() }
}

fn route(path: route_match::PathSpecifier) -> Route {
    let action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster("c".into())),
        ..RouteAction::default()
    };
    Route {
        name: "HTTPRoute/shop/orders/0".into(),
        r#match: Some(RouteMatch { path_specifier: Some(path), ..RouteMatch::default() }),
        action: Some(route::Action::Route(action)),
        ..Route::default()
    }
}

fn any_path() -> Route {
    route(route_match::PathSpecifier::Prefix(String::new()))
}

fn routes(routes: Vec<Route>) -> RouteConfiguration {
    let host = VirtualHost { domains: vec!["*".into()], routes, ..VirtualHost::default() };
    RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..RouteConfiguration::default() }
}

fn eds() -> Cluster {
    let source = cluster::EdsClusterConfig { eds_config: Some(ads()), service_name: String::new() };
    Cluster {
        name: "c".into(),
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(3)),
        eds_cluster_config: Some(source),
        ..Cluster::default()
    }
}

fn with_protocol(options: http_protocol_options::UpstreamProtocolOptions) -> Cluster {
    let options = HttpProtocolOptions { upstream_protocol_options: Some(options), ..HttpProtocolOptions::default() };
    let packed = pack(type_url::HTTP_PROTOCOL_OPTIONS, &options);
    Cluster {
        typed_extension_protocol_options: HashMap::from([(type_url::HTTP_PROTOCOL_OPTIONS_KEY.to_owned(), packed)]),
        ..eds()
    }
}

fn host(at: &str) -> LbEndpoint {
    let endpoint = Endpoint { address: Some(address(at)), ..Endpoint::default() };
    LbEndpoint { host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() }
}

fn assignment(hosts: Vec<LbEndpoint>) -> ClusterLoadAssignment {
    let locality = LocalityLbEndpoints { lb_endpoints: hosts, ..LocalityLbEndpoints::default() };
    ClusterLoadAssignment { cluster_name: "e".into(), endpoints: vec![locality], ..ClusterLoadAssignment::default() }
}

fn listener(message: &Listener) -> Result<Config, Refusal> {
    resource(Kind::Listener, &message.name, &pack(type_url::LISTENER, message))
}

fn refused(result: Result<Config, Refusal>) -> String {
    result.expect_err("refused").to_string()
}

fn route_config(message: &RouteConfiguration) -> Result<Config, Refusal> {
    resource(Kind::Route, "r", &pack(type_url::ROUTE, message))
}

fn one_route(message: Route) -> crate::config::Route {
    match route_config(&routes(vec![message])).expect("accepted") {
        Config::Route(mut config) => config.virtual_hosts.remove(0).routes.remove(0),
        other => panic!("{other:?}"),
    }
}

fn cluster_config(message: &Cluster) -> Result<Config, Refusal> {
    resource(Kind::Cluster, "c", &pack(type_url::CLUSTER, message))
}

fn endpoints_config(message: &ClusterLoadAssignment) -> Result<Config, Refusal> {
    resource(Kind::Endpoints, "e", &pack(type_url::ENDPOINTS, message))
}

#[test]
fn an_outbound_listener_takes_http_and_tcp() {
    let Ok(Config::Outbound(config)) = listener(&outbound(&manager())) else { panic!("refused") };
    assert_eq!(config.destination.to_string(), "orders.shop:80");
    assert_eq!(config.http, Some(RouteSource::Named("orders.shop:80".into())));
    assert_eq!(config.tcp.expect("tcp").clusters[0].name, "orders.shop:80");
}

#[test]
fn tls_is_chosen_by_server_name() {
    let filter_chains = vec![by_name(&["A.example", "*.b.example"]), by_name(&[])];
    let message = Listener { filter_chains, ..outbound(&manager()) };
    let Config::Outbound(config) = listener(&message).expect("accepted") else { panic!("not outbound") };
    let names: Vec<_> = config.tls.iter().map(|chain| chain.server_names.join(" ")).collect();
    assert_eq!(names, ["a.example *.b.example", ""]);
    assert_eq!(config.tls[0].split, crate::config::Split::one("payment.shop:443"));
    let alone = Listener { api_listener: None, default_filter_chain: None, ..message };
    assert!(listener(&alone).is_ok());
}

#[test]
fn an_inbound_listener_lists_the_ports_of_the_application() {
    use http_connection_manager::CodecType;
    let message = inbound(vec![
        plaintext(chain(80, http_filter(CodecType::Http1))),
        chain(80, http_filter(CodecType::Http1)),
        chain(81, http_filter(CodecType::Http2)),
        chain(82, http_filter(CodecType::Auto)),
        chain(83, tcp_filter(&to_cluster("application"))),
        own_tls(84),
        own_tls(85),
        passthrough(own_tls(85)),
    ]);
    let Config::Inbound(config) = listener(&message).expect("accepted") else { panic!("not inbound") };
    let application = "127.0.0.1:8080".parse().expect("literal");
    let port = |port, protocol, access| (port, InboundPort { access, ..InboundPort::new(port, application, protocol) });
    let wanted = [
        port(80, AppProtocol::Http1, Access::Permissive),
        port(81, AppProtocol::Http2, Access::Strict),
        port(82, AppProtocol::Auto, Access::Strict),
        port(83, AppProtocol::Tcp, Access::Strict),
        port(84, AppProtocol::Tls, Access::Strict),
        port(85, AppProtocol::Tls, Access::Permissive),
    ];
    assert_eq!(config.ports.into_iter().collect::<Vec<_>>(), wanted);
}

#[test]
fn the_limit_of_a_port_is_read_from_the_filter_and_from_our_metadata() {
    let http = http_filter(http_connection_manager::CodecType::Auto);
    let Some(filter::ConfigType::TypedConfig(any)) = http.config_type else { panic!("typed") };
    let mut manager: HttpConnectionManager = pillion_wire::xds::unpack(type_url::HCM, &any).expect("its own");
    let shedding = |gradient: bool| {
        let rtt = MinimumRttCalculationParams { interval: seconds(9), ..MinimumRttCalculationParams::default() };
        let limits = ConcurrencyLimitCalculationParams {
            concurrency_update_interval: seconds(1),
            ..ConcurrencyLimitCalculationParams::default()
        };
        let config = GradientControllerConfig {
            concurrency_limit_params: Some(limits),
            min_rtt_calc_params: Some(rtt),
            ..GradientControllerConfig::default()
        };
        let controller = ConcurrencyControllerConfig::GradientControllerConfig(config);
        let concurrency_controller_config = gradient.then_some(controller);
        let message = AdaptiveConcurrency { concurrency_controller_config, ..AdaptiveConcurrency::default() };
        let config = http_filter::ConfigType::TypedConfig(pack(type_url::ADAPTIVE_CONCURRENCY, &message));
        HttpFilter { name: "limit".into(), config_type: Some(config), ..HttpFilter::default() }
    };
    let mut read = |filters: Vec<HttpFilter>, metadata: &Metadata| {
        let router = manager.http_filters.pop().expect("a router");
        manager.http_filters = filters.into_iter().chain([router]).collect();
        let config_type = Some(filter::ConfigType::TypedConfig(pack(type_url::HCM, &manager)));
        let chain = chain(80, Filter { name: "http".into(), config_type });
        listener(&inbound(vec![FilterChain { metadata: Some(metadata.clone()), ..chain }]))
    };
    let mut metadata = application(false);
    let rule = CriticalityRule { default: Criticality::Sheddable, ..CriticalityRule::default() };
    extension::put(&mut metadata, CRITICALITY_METADATA, &rule);
    let Ok(Config::Inbound(config)) = read(vec![shedding(true)], &metadata) else { panic!("refused") };
    let told = config.ports[&80].load_shedding.clone().expect("shedding");
    assert_eq!((told.gradient.min_rtt.interval.as_secs(), told.criticality), (9, rule));
    let at = "filter_chains[0].filters[0].http_filters";
    let twice = read(vec![shedding(true), shedding(true)], &metadata);
    assert_eq!(refused(twice), format!("{at}[1]: is the second one of its kind"));
    let empty = read(vec![shedding(false)], &metadata);
    assert_eq!(refused(empty), format!("{at}[0].typed_config.gradient_controller_config: is missing"));
    extension::put(&mut metadata, CRITICALITY_METADATA, &serde_json::json!({ "default": "URGENT" }));
    let wrong = refused(read(vec![shedding(true)], &metadata));
    assert!(wrong.starts_with("filter_chains[0].metadata: metadata pillion.dev/criticality: "), "{wrong}");
}

fn seconds(seconds: i64) -> Option<pillion_wire::xds::Duration> {
    Some(pillion_wire::xds::Duration { seconds, nanos: 0 })
}

/// A listener of the host `orders.shop`.
fn host_listener(addresses: &[&str]) -> Listener {
    let mut addresses = addresses.iter().map(|text| bare_address(text, Some(0)));
    Listener {
        name: HOST.into(),
        address: addresses.next(),
        additional_addresses: addresses
            .map(|address| AdditionalAddress { address: Some(address), ..AdditionalAddress::default() })
            .collect(),
        ..Listener::default()
    }
}

fn bare_address(ip: &str, port: Option<u32>) -> Address {
    let port_specifier = port.map(socket_address::PortSpecifier::PortValue);
    let socket = SocketAddress { address: ip.to_owned(), port_specifier, ..SocketAddress::default() };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

#[test]
fn a_host_listener_is_a_list_of_addresses() {
    for (sent, wanted) in [
        (&["10.0.0.1", "fd00::1", "10.0.0.1"][..], &["10.0.0.1", "fd00::1"][..]),
        (&["10.0.0.1"], &["10.0.0.1"]),
        (&[], &[]),
    ] {
        let Config::Host(config) = listener(&host_listener(sent)).expect("accepted") else { panic!("not a host") };
        assert_eq!(config.name, "orders.shop");
        assert_eq!(config.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted);
    }
    let without_port = Listener { address: Some(bare_address("10.0.0.1", None)), ..host_listener(&[]) };
    assert!(listener(&without_port).is_ok());
    for (message, wanted) in [
        (
            Listener { address: Some(bare_address("10.0.0.1", Some(80))), ..host_listener(&[]) },
            "address.socket_address.port_value: has to be 0, for nothing listens there",
        ),
        (host_listener(&["10.0.0.1", "x"]), "additional_addresses[0].address.socket_address.address: is no IP address"),
        (
            Listener { additional_addresses: vec![AdditionalAddress::default()], ..host_listener(&[]) },
            "additional_addresses[0].address: is missing",
        ),
        (Listener { name: HOST.into(), ..outbound(&manager()) }, "api_listener: is not supported"),
    ] {
        assert_eq!(refused(listener(&message)), wanted);
    }
}

#[test]
fn listeners_that_would_mean_something_else_are_refused_with_the_path() {
    use http_connection_manager::CodecType;
    let http = || chain(80, http_filter(CodecType::Http1));
    let with_manager = |change: fn(&mut HttpConnectionManager)| {
        let mut manager = manager();
        change(&mut manager);
        outbound(&manager)
    };
    let with_chain = |change: fn(&mut FilterChain)| {
        let mut chain = http();
        change(&mut chain);
        inbound(vec![chain])
    };
    let unknown_filter = |optional| HttpFilter {
        config_type: Some(http_filter::ConfigType::TypedConfig(Any { type_url: "x/y".into(), value: vec![] })),
        is_optional: optional,
        ..HttpFilter::default()
    };
    let mut before_router = manager();
    before_router.http_filters.insert(0, unknown_filter(false));
    let cases = [
        (Listener { name: "orders.shop:80".into(), ..Listener::default() }, "api_listener: is missing"),
        (
            Listener { use_original_dst: Some(BoolValue { value: true }), ..outbound(&manager()) },
            "use_original_dst: is not supported",
        ),
        (
            Listener { filter_chains: vec![FilterChain::default()], ..outbound(&manager()) },
            "filter_chains[0].filter_chain_match: is missing",
        ),
        (with_manager(|manager| manager.http_filters.clear()), "api_listener.api_listener.http_filters: is missing"),
        (outbound(&before_router), "api_listener.api_listener.http_filters[0]: is not supported"),
        (
            with_manager(|manager| manager.xff_num_trusted_hops = 1),
            "api_listener.api_listener.xff_num_trusted_hops: is not supported",
        ),
        (with_manager(|manager| manager.route_specifier = None), "api_listener.api_listener.rds: is missing"),
        (with_chain(|chain| chain.transport_socket = None), "filter_chains[0].transport_socket: is missing"),
        (with_chain(|chain| chain.metadata = None), "filter_chains[0].metadata: is missing"),
        (with_chain(|chain| chain.filters.clear()), "filter_chains[0].filters: is missing"),
        (
            Listener { additional_addresses: vec![AdditionalAddress::default()], ..outbound(&manager()) },
            "additional_addresses: is not supported",
        ),
        (
            with_chain(|chain| {
                chain.filter_chain_match.as_mut().expect("set").server_names = vec!["a".into()];
            }),
            "filter_chains[0].filter_chain_match.server_names: is not supported",
        ),
        (
            inbound(vec![http(), http()]),
            "filter_chains[1].filter_chain_match: matches the same port as another filter chain",
        ),
        (
            inbound(vec![plaintext(http())]),
            "filter_chains[0]: takes plaintext, but has no equal beside it that takes TLS",
        ),
        (
            Listener { address: Some(address("127.0.0.1:1")), ..inbound(vec![http()]) },
            "address: is not the address in the listener's name",
        ),
    ];
    for (message, wanted) in cases {
        assert_eq!(refused(listener(&message)), wanted);
    }
    let mut optional = manager();
    optional.http_filters.insert(0, unknown_filter(true));
    assert!(listener(&outbound(&optional)).is_ok());
}

#[test]
fn tls_that_would_go_elsewhere_is_refused_with_the_path() {
    let http = || chain(80, http_filter(http_connection_manager::CodecType::Http1));
    let with_tls = |filter_chains| Listener { filter_chains, ..outbound(&manager()) };
    let cases = [
        (
            with_tls(vec![chain(80, tcp_filter(&to_cluster("a")))]),
            "filter_chains[0].filter_chain_match.destination_port: is not supported",
        ),
        (
            with_tls(vec![plaintext(by_name(&["a"]))]),
            "filter_chains[0].filter_chain_match.transport_protocol: has to be \"tls\"",
        ),
        (
            with_tls(vec![by_name(&["a", "*b.example"])]),
            "filter_chains[0].filter_chain_match.server_names[1]: is neither a DNS name nor \"*.\" and one",
        ),
        (
            with_tls(vec![by_name(&["a", "b"]), by_name(&["B"])]),
            "filter_chains[1].filter_chain_match.server_names: matches the same connections as another filter chain",
        ),
        (
            with_tls(vec![by_name(&[]), by_name(&[])]),
            "filter_chains[1].filter_chain_match.server_names: matches the same connections as another filter chain",
        ),
        (with_tls(vec![FilterChain { filters: vec![], ..by_name(&[]) }]), "filter_chains[0].filters: is missing"),
        (
            with_tls(vec![FilterChain { transport_socket: own_tls(1).transport_socket, ..by_name(&[]) }]),
            "filter_chains[0].transport_socket: is not supported",
        ),
        (inbound(vec![passthrough(http())]), "filter_chains[0].transport_socket: is missing"),
        (
            inbound(vec![own_tls(80), plaintext(own_tls(80))]),
            "filter_chains[1].filter_chain_match.transport_protocol: is not supported",
        ),
        (
            inbound(vec![FilterChain { metadata: Some(application(true)), ..http() }]),
            "filter_chains[0].filters: are for plaintext, but the application speaks TLS",
        ),
    ];
    for (message, wanted) in cases {
        assert_eq!(refused(listener(&message)), wanted);
    }
}

#[test]
fn an_inbound_port_without_client_certificates_is_refused() {
    let mut open = chain(80, tcp_filter(&to_cluster("application")));
    let tls = pack(type_url::DOWNSTREAM_TLS, &DownstreamTlsContext::default());
    let config_type = Some(transport_socket::ConfigType::TypedConfig(tls));
    open.transport_socket = Some(TransportSocket { name: "tls".into(), config_type });
    let error = refused(listener(&inbound(vec![open])));
    assert!(error.starts_with("filter_chains[0].transport_socket.typed_config.require_client_certificate"), "{error}");
}

#[test]
fn a_resource_that_calls_itself_something_else_is_refused() {
    let any = pack(type_url::LISTENER, &outbound(&manager()));
    let error = resource(Kind::Listener, "payment.shop:80", &any).expect_err("another name");
    assert_eq!(error.reason, Reason::OtherName("orders.shop:80".into()));
    assert!(resource(Kind::Listener, "no name", &any).is_err());
    assert!(resource(Kind::Route, "x", &pack(type_url::ROUTE, &routes(vec![]))).is_err());
    assert!(resource(Kind::Cluster, "x", &pack(type_url::CLUSTER, &eds())).is_err());
    assert!(resource(Kind::Cluster, "c", &pack(type_url::ROUTE, &eds())).is_err());
}

#[test]
fn paths_are_matched_as_said() {
    use route_match::PathSpecifier as Said;
    let path = |path| one_route(route(path)).matches.path;
    assert_eq!(path(Said::Prefix(String::new())), PathMatch::Any);
    assert_eq!(path(Said::Prefix("/".into())), PathMatch::Any);
    assert_eq!(path(Said::Prefix("/a".into())), PathMatch::Prefix("/a".into()));
    assert_eq!(path(Said::Path("/a".into())), PathMatch::Exact("/a".into()));
    assert_eq!(path(Said::PathSeparatedPrefix("/a".into())), PathMatch::SegmentPrefix("/a".into()));
    let regex = RegexMatcher { regex: "/a|/b".into(), ..RegexMatcher::default() };
    assert!(matches!(path(Said::SafeRegex(regex)), PathMatch::Regex(pattern) if pattern.as_str() == "/a|/b"));
}

#[test]
fn headers_and_query_parameters_are_matched_as_said() {
    let exact = |text: &str| StringMatcher {
        match_pattern: Some(string_matcher::MatchPattern::Exact(text.into())),
        ignore_case: true,
    };
    let mut message = any_path();
    let rule = message.r#match.as_mut().expect("set");
    rule.headers = vec![
        HeaderMatcher {
            name: ":method".into(),
            header_match_specifier: Some(header_matcher::HeaderMatchSpecifier::StringMatch(exact("GET"))),
            ..HeaderMatcher::default()
        },
        HeaderMatcher { name: "X-Canary".into(), invert_match: true, ..HeaderMatcher::default() },
    ];
    rule.query_parameters = vec![QueryParameterMatcher {
        name: "q".into(),
        query_parameter_match_specifier: Some(query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch(
            exact("1"),
        )),
    }];
    let matches = one_route(message).matches;
    assert_eq!(matches.headers[0].name, HeaderName::Method);
    assert_eq!(matches.headers[0].value, ValueMatch::String(StringMatch::Exact("GET".into(), true)));
    assert_eq!(matches.headers[1].name, HeaderName::Field(http::HeaderName::from_static("x-canary")));
    assert_eq!((&matches.headers[1].value, matches.headers[1].invert), (&ValueMatch::Present, true));
    assert_eq!(matches.query[0].value, Some(StringMatch::Exact("1".into(), true)));
}

#[test]
fn weights_of_zero_get_nothing() {
    let weighted = |weights: &[(&str, u32)]| {
        let weight = |&(name, value): &(&str, u32)| weighted_cluster::ClusterWeight {
            name: name.into(),
            weight: Some(UInt32Value { value }),
            ..weighted_cluster::ClusterWeight::default()
        };
        let clusters = WeightedCluster { clusters: weights.iter().map(weight).collect(), ..Default::default() };
        let specifier = Some(route_action::ClusterSpecifier::WeightedClusters(clusters));
        let action = RouteAction { cluster_specifier: specifier, ..RouteAction::default() };
        Route { action: Some(route::Action::Route(action)), ..any_path() }
    };
    let Action::Forward(split) = one_route(weighted(&[("a", 90), ("b", 0), ("c", 10)])).action else {
        panic!("not forwarded")
    };
    let shares: Vec<_> = split.clusters.iter().map(|cluster| (cluster.name.as_str(), cluster.weight.get())).collect();
    assert_eq!(shares, [("a", 90), ("c", 10)]);
    for wrong in [weighted(&[("a", 0)]), weighted(&[]), weighted(&[("a", u32::MAX), ("b", 1)])] {
        let error = refused(route_config(&routes(vec![wrong])));
        assert!(error.contains("routes[0].route.weighted_clusters.clusters: have weights"), "{error}");
    }
}

#[test]
fn a_direct_response_needs_a_final_status() {
    let response = |status| {
        let body = DataSource {
            specifier: Some(data_source::Specifier::InlineString("no\n".into())),
            ..DataSource::default()
        };
        let action = DirectResponseAction { status, body: Some(body), ..DirectResponseAction::default() };
        Route { action: Some(route::Action::DirectResponse(action)), ..any_path() }
    };
    let action = one_route(response(500)).action;
    assert_eq!(action, Action::DirectResponse { status: http::StatusCode::INTERNAL_SERVER_ERROR, body: "no\n".into() });
    for wrong in [0, 100, 199, 600, u32::MAX] {
        let error = refused(route_config(&routes(vec![response(wrong)])));
        assert_eq!(error, "virtual_hosts[0].routes[0].direct_response.status: is no final HTTP status");
    }
}

#[test]
fn routes_that_would_mean_something_else_are_refused_with_the_path() {
    use route_match::PathSpecifier as Said;
    let changed = |change: fn(&mut Route)| {
        let mut message = any_path();
        change(&mut message);
        routes(vec![any_path(), message])
    };
    let matched = |change: fn(&mut RouteMatch)| {
        let mut message = any_path();
        change(message.r#match.as_mut().expect("set"));
        routes(vec![any_path(), message])
    };
    let with_path = |path| routes(vec![any_path(), route(path)]);
    let with_domains = |domains: &[&str]| {
        let mut message = routes(vec![]);
        message.virtual_hosts[0].domains = domains.iter().map(|&domain| domain.into()).collect();
        message
    };
    let regex = |text: &str| RegexMatcher { regex: text.into(), ..RegexMatcher::default() };
    let cases = [
        (changed(|route| route.r#match = None), "routes[1].match: is missing"),
        (changed(|route| route.action = None), "routes[1].action: is missing"),
        (
            changed(|route| {
                let action = RedirectAction { response_code: 9, ..RedirectAction::default() };
                route.action = Some(route::Action::Redirect(action));
            }),
            "routes[1].redirect.response_code: is not known",
        ),
        (
            changed(|route| {
                if let Some(route::Action::Route(action)) = &mut route.action {
                    action.prefix_rewrite = "x".into();
                }
            }),
            "routes[1].route.prefix_rewrite: is no path",
        ),
        (
            changed(|route| {
                if let Some(route::Action::Route(action)) = &mut route.action {
                    action.timeout = Some(pillion_wire::xds::Duration { seconds: -1, nanos: 0 });
                }
            }),
            "routes[1].route.timeout: is no duration",
        ),
        (
            changed(|route| route.request_headers_to_remove.push("Host".into())),
            "request_headers_to_remove[0]: is no ordinary field",
        ),
        (
            matched(|rule| rule.case_sensitive = Some(BoolValue { value: false })),
            "routes[1].match.case_sensitive: is not supported",
        ),
        (matched(|rule| rule.path_specifier = None), "routes[1].match.path_specifier: is missing"),
        (matched(|rule| rule.grpc = Some(route_match::GrpcRouteMatchOptions {})), "match.grpc: is not supported"),
        (
            matched(|rule| rule.headers.push(HeaderMatcher { name: "a b".into(), ..Default::default() })),
            "match.headers[0].name: is no field name",
        ),
        (with_path(Said::Path("a".into())), "match.path: has to begin with"),
        (with_path(Said::PathSeparatedPrefix("/a/".into())), "path_separated_prefix: must not end in"),
        (with_path(Said::SafeRegex(regex("("))), "match.safe_regex.regex: regex parse error"),
        (with_path(Said::SafeRegex(regex("[a-z]{1000}{1000}"))), "Compiled regex exceeds size limit"),
        (with_domains(&[]), "virtual_hosts[0].domains: is missing"),
        (with_domains(&["a", "A"]), "virtual_hosts[0].domains[1]: stands in the configuration twice"),
        (with_domains(&["a*b"]), "virtual_hosts[0].domains[0]: is no domain"),
    ];
    for (message, wanted) in cases {
        let error = refused(route_config(&message));
        assert!(error.contains(wanted), "{error:?} does not say {wanted:?}");
    }
}

#[test]
fn a_timeout_of_zero_means_none() {
    let mut message = any_path();
    if let Some(route::Action::Route(action)) = &mut message.action {
        action.timeout = Some(pillion_wire::xds::Duration::default());
    }
    assert!(route_config(&routes(vec![message])).is_ok());
}

#[test]
fn clusters_say_how_their_hosts_are_spoken_to() {
    use http_protocol_options::explicit_http_config::ProtocolConfig;
    use http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig};
    let explicit = ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default());
    let explicit = ExplicitHttpConfig { protocol_config: Some(explicit) };
    let cases = [
        (eds(), UpstreamProtocol::Http1),
        (with_protocol(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)), UpstreamProtocol::Http2),
        (
            with_protocol(UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig::default())),
            UpstreamProtocol::Downstream,
        ),
    ];
    for (message, wanted) in cases {
        let Ok(Config::Cluster(config)) = cluster_config(&message) else { panic!("refused") };
        assert_eq!(config.protocol, wanted);
        assert_eq!((config.endpoints.as_str(), config.connect_timeout), ("c", Duration::from_secs(5)));
    }
}

#[test]
fn clusters_that_would_mean_something_else_are_refused_with_the_path() {
    let changed = |change: fn(&mut Cluster)| {
        let mut message = eds();
        change(&mut message);
        message
    };
    let cases = [
        (changed(|cluster| cluster.cluster_discovery_type = None), "type: is not supported"),
        (changed(|cluster| cluster.lb_policy = 6), "lb_policy: is not supported"),
        (changed(|cluster| cluster.lb_policy = 99), "lb_policy: is not supported"),
        (changed(|cluster| cluster.eds_cluster_config = None), "eds_cluster_config: is missing"),
        (
            changed(|cluster| cluster.eds_cluster_config = Some(cluster::EdsClusterConfig::default())),
            "eds_cluster_config.eds_config: is missing",
        ),
        (
            changed(|cluster| {
                cluster.outlier_detection =
                    Some(OutlierDetection { split_external_local_origin_errors: true, ..OutlierDetection::default() });
            }),
            "outlier_detection.split_external_local_origin_errors: is not supported",
        ),
        (
            changed(|cluster| {
                let value = Some(UInt32Value { value: 50 });
                cluster.outlier_detection =
                    Some(OutlierDetection { enforcing_consecutive_5xx: value, ..OutlierDetection::default() });
            }),
            "outlier_detection.enforcing_consecutive_5xx: is supported as 0 and as 100 only",
        ),
        (
            changed(|cluster| {
                let per_host = Thresholds { max_requests: Some(UInt32Value { value: 5 }), ..Thresholds::default() };
                cluster.circuit_breakers =
                    Some(CircuitBreakers { per_host_thresholds: vec![per_host], ..CircuitBreakers::default() });
            }),
            "circuit_breakers.per_host_thresholds[0].max_requests: is not supported",
        ),
        (
            changed(|cluster| cluster.transport_socket = Some(TransportSocket::default())),
            "transport_socket.typed_config: is missing",
        ),
        (
            changed(|cluster| cluster.connect_timeout = Some(pillion_wire::xds::Duration { seconds: -1, nanos: 0 })),
            "connect_timeout: is no duration",
        ),
        (
            changed(|cluster| cluster.connect_timeout = Some(pillion_wire::xds::Duration::default())),
            "connect_timeout: has to be longer than 0",
        ),
    ];
    for (message, wanted) in cases {
        assert_eq!(refused(cluster_config(&message)), wanted);
    }
}

#[test]
fn limits_breaker_and_outlier_detection_come_from_envoys_fields_and_from_ours() {
    use pillion_wire::resilience::{BREAKER_METADATA, Breaker, LIMITS_METADATA, Limits, Outlier, SuccessRate};
    let resilience = |message: &Cluster| match cluster_config(message) {
        Ok(Config::Cluster(config)) => config.resilience.as_deref().cloned(),
        other => panic!("{other:?}"),
    };
    let value = |value| Some(UInt32Value { value });
    assert_eq!(resilience(&eds()), None, "nothing is limited that nobody limits");
    let unlimited = Thresholds { max_requests: value(u32::MAX), ..Thresholds::default() };
    let breakers = CircuitBreakers { thresholds: vec![unlimited], ..CircuitBreakers::default() };
    assert_eq!(resilience(&Cluster { circuit_breakers: Some(breakers), ..eds() }), None);

    let told = Limits {
        requests: Some(7),
        pending: 3,
        pending_timeout: Duration::from_secs(2),
        endpoint_requests: Some(4),
        ..Limits::default()
    };
    let high = Thresholds { priority: 1, max_requests: value(1), ..Thresholds::default() };
    let thresholds = Thresholds { max_requests: value(7), max_pending_requests: value(3), ..Thresholds::default() };
    let breakers = CircuitBreakers { thresholds: vec![high, thresholds], ..CircuitBreakers::default() };
    let filter_metadata = HashMap::from([(LIMITS_METADATA.to_owned(), told.to_struct())]);
    let metadata = Some(Metadata { filter_metadata, ..Metadata::default() });
    let read = resilience(&Cluster { circuit_breakers: Some(breakers), metadata, ..eds() });
    assert_eq!(read.and_then(|read| read.limits), Some(told));

    // Envoy's defaults: 5 in a row, 30 s, and the success rate.
    let read =
        resilience(&Cluster { outlier_detection: Some(OutlierDetection::default()), ..eds() }).expect("something");
    let breaker = read.breaker.expect("failures in a row");
    assert_eq!(
        (breaker.consecutive, breaker.open, breaker.max_open),
        (Some(5), Duration::from_secs(30), Duration::from_secs(300))
    );
    assert_eq!(read.outlier, Some(Outlier { success_rate: Some(SuccessRate::default()), ..Outlier::default() }));

    let ours = Breaker { probes: 3, successes: 2, ..Breaker::default() };
    let filter_metadata = HashMap::from([(BREAKER_METADATA.to_owned(), ours.to_struct())]);
    let metadata = Some(Metadata { filter_metadata, ..Metadata::default() });
    let off = OutlierDetection { enforcing_success_rate: value(0), ..OutlierDetection::default() };
    let read = resilience(&Cluster { outlier_detection: Some(off), metadata, ..eds() }).expect("something");
    assert_eq!((read.breaker, read.outlier), (Some(ours), None));
}

#[test]
fn endpoints_carry_address_health_and_mesh_identity() {
    let identity = "spiffe://cluster.local/ns/shop/sa/orders".parse().expect("literal");
    let inside = MeshEndpoint { port: 15008, identity };
    let mut hosts = vec![host("127.0.0.1:80"), host("[::1]:81"), host("127.0.0.1:82"), host("127.0.0.1:83")];
    hosts[0].metadata = Some(inside.to_metadata());
    hosts[1].health_status = 3;
    hosts[2].health_status = 2;
    hosts[3].health_status = 77;
    let Ok(Config::Endpoints(config)) = endpoints_config(&assignment(hosts)) else { panic!("refused") };
    let found = &config.localities[0].endpoints;
    assert_eq!(found[0].mesh, Some(inside));
    assert_eq!(found[1].address, "[::1]:81".parse().expect("literal"));
    let health: Vec<_> = found.iter().map(|endpoint| endpoint.health).collect();
    assert_eq!(health, [Health::Healthy, Health::Draining, Health::Unhealthy, Health::Unhealthy]);
}

#[test]
fn endpoints_that_would_mean_something_else_are_refused_with_the_path() {
    let changed = |change: fn(&mut LbEndpoint)| {
        let mut wrong = host("127.0.0.1:80");
        change(&mut wrong);
        assignment(vec![host("127.0.0.1:80"), wrong])
    };
    let misspelt = |endpoint: &mut LbEndpoint| {
        let mut metadata: Metadata =
            MeshEndpoint { port: 1, identity: "spiffe://a/ns/b/sa/c".parse().expect("literal") }.to_metadata();
        let fields = metadata.filter_metadata.get_mut("pillion.dev/mesh").expect("ours");
        fields.fields.remove("identity");
        endpoint.metadata = Some(metadata);
    };
    let drops = cluster_load_assignment::Policy {
        drop_overloads: vec![cluster_load_assignment::policy::DropOverload::default()],
        ..Default::default()
    };
    let cases = [
        (changed(|host| host.host_identifier = None), "endpoints[0].lb_endpoints[1].endpoint: is missing"),
        (
            changed(|host| host.load_balancing_weight = Some(UInt32Value { value: 0 })),
            "endpoints[0].lb_endpoints[1].load_balancing_weight: has to be at least 1",
        ),
        (changed(misspelt), "endpoints[0].lb_endpoints[1].metadata: metadata pillion.dev/mesh: identity is missing"),
        (ClusterLoadAssignment { policy: Some(drops), ..assignment(vec![]) }, "policy.drop_overloads: is not supp"),
    ];
    for (message, wanted) in cases {
        let error = refused(endpoints_config(&message));
        assert!(error.starts_with(wanted), "{error:?} does not say {wanted:?}");
    }
}

#[test]
fn a_locality_without_weight_in_the_balance_is_left_out() {
    let mut message = assignment(vec![host("127.0.0.1:80")]);
    message.endpoints[0].load_balancing_weight = Some(UInt32Value { value: 0 });
    let Ok(Config::Endpoints(config)) = endpoints_config(&message) else { panic!("refused") };
    assert!(config.localities.is_empty());
}

/// Real messages to damage, with the name that each is asked for by.
fn samples() -> Vec<(Kind, &'static str, Any)> {
    let http = http_filter(http_connection_manager::CodecType::Auto);
    let by_name = Cluster {
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::StrictDns.into())),
        eds_cluster_config: None,
        load_assignment: Some(assignment(vec![host("127.0.0.1:80")])),
        ..eds()
    };
    vec![
        (Kind::Listener, "orders.shop:80", pack(type_url::LISTENER, &outbound(&manager()))),
        (Kind::Listener, INBOUND, pack(type_url::LISTENER, &inbound(vec![chain(80, http)]))),
        (Kind::Route, "r", pack(type_url::ROUTE, &routes(vec![any_path()]))),
        (Kind::Cluster, "c", pack(type_url::CLUSTER, &eds())),
        (Kind::Cluster, "c", pack(type_url::CLUSTER, &by_name)),
        (Kind::Endpoints, "e", pack(type_url::ENDPOINTS, &assignment(vec![host("127.0.0.1:80")]))),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        for (kind, name, sample) in samples() {
            let _verdict = resource(kind, name, &Any { value: bytes.clone(), ..sample });
        }
    }

    #[test]
    fn damaged_messages_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        for (kind, name, mut sample) in samples() {
            let at = at.index(sample.value.len());
            if cut {
                sample.value.truncate(at);
            } else {
                sample.value[at] = byte;
            }
            let _verdict = resource(kind, name, &sample);
        }
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over(number in 15_000_u64..16_000) {
        for (kind, name, mut sample) in samples() {
            prost::encoding::encode_varint(number << 3, &mut sample.value);
            sample.value.push(1);
            prop_assert!(resource(kind, name, &sample).is_ok());
        }
    }
}

#[test]
fn deep_nesting_is_an_error_not_a_crash() {
    let mut bytes = Vec::new();
    for _ in 0..100_000 {
        let mut outer = vec![0x1a];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        if outer.len() + bytes.len() > 65_536 {
            break;
        }
        outer.extend_from_slice(&bytes);
        bytes = outer;
    }
    assert!(Listener::decode(bytes.as_slice()).is_err() || bytes.len() < 65_537);
    let any = Any { type_url: type_url::LISTENER.into(), value: bytes };
    assert!(resource(Kind::Listener, "orders.shop:80", &any).is_err());
}

#[test]
fn a_route_without_retries_of_its_own_has_those_of_its_virtual_host() {
    use pillion_wire::xds::route::RetryPolicy;
    let on = |retry_on: &str| Some(RetryPolicy { retry_on: retry_on.into(), ..RetryPolicy::default() });
    let mut own = any_path();
    if let Some(route::Action::Route(action)) = &mut own.action {
        action.retry_policy = on("reset");
    }
    let mut message = routes(vec![own, any_path()]);
    message.virtual_hosts[0].retry_policy = on("unavailable");
    let Ok(Config::Route(config)) = route_config(&message) else { panic!("refused") };
    let on = |at: usize| config.virtual_hosts[0].routes[at].treatment.retry.as_ref().map(|retry| retry.on);
    assert_eq!((on(0), on(1)), (Some(crate::config::Conditions::RESET), Some(crate::config::Conditions::UNAVAILABLE)));
}
