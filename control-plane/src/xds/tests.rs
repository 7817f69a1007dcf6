//! Catalog and streams in tables: what each dialect is sent, and when.

use pillion_wire::{
    extension,
    health::HealthCheck,
    load_shedding::{CRITICALITY_METADATA, Criticality, CriticalityRule},
    mesh::Application,
    name::ListenerName,
    setting,
    xds::{
        cluster::Cluster,
        core::health_check::HealthChecker,
        endpoint::ClusterLoadAssignment,
        hcm::{HttpConnectionManager, http_connection_manager},
        listener::{Listener, filter},
        route::{RouteConfiguration, route, route_match},
        tcp_proxy::{TcpProxy, tcp_proxy},
        tls::{UpstreamTlsContext, common_tls_context},
        type_url, unpack,
        upstream_http::{HttpProtocolOptions, http_protocol_options::UpstreamProtocolOptions},
        value,
    },
};

use super::{
    catalog::{Catalog, Found, Lookup, Viewer},
    dialect::Dialect,
    kind::Kind,
};
use crate::core::{
    mesh::Mesh,
    tests::{objects, route as route_object, service, workload},
};

pub(crate) fn viewer(dialect: Dialect) -> Viewer {
    Viewer {
        identity: "spiffe://cluster.local/ns/shop/sa/a".parse().unwrap(),
        dialect,
        workload: (dialect == Dialect::Pillion).then(|| "a-1".to_owned()),
        zone: None,
        outbound_address: Some("127.0.0.1:15001".parse().unwrap()),
    }
}

/// Services `a` (HTTP, one endpoint in the mesh and one outside), `b` (auto, outside)
/// and `t` (TCP); `a` routes a prefix to both.
pub(super) fn shop(a_weight: u32) -> String {
    [
        service("a", "[{port: 80, targetPort: web, appProtocol: http}]"),
        service("b", "[{port: 80}]"),
        service("t", "[{port: 7000, appProtocol: tcp}]"),
        workload("a-1", "a", "address: 10.0.0.1, mesh: {port: 15008}, ports: [{name: web, port: 8080}]"),
        workload("a-2", "a", "address: 10.0.0.2, ports: [{name: web, port: 8080}]"),
        workload(
            "b-1",
            "b",
            "address: 10.0.0.3, mesh: {port: 15008}, ports: [{port: 80, access: permissive}, {port: 7000, protocol: tcp}]",
        ),
        route_object(
            "HTTPRoute",
            "r",
            "name: a",
            &format!(
                "[{{matches: [{{path: {{value: /x}}, method: GET, headers: [{{name: v, value: '1'}}]}}], \
                 backendRefs: [{{name: a, port: 80, weight: {a_weight}}}, {{name: b, port: 80}}]}}]"
            ),
        ),
    ]
    .concat()
}

pub(super) fn catalog(text: &str, previous: Option<&Catalog>) -> Catalog {
    let (mesh, _) = Mesh::compile(&objects(text), previous.map(Catalog::mesh));
    Catalog::new(mesh, "cluster.local".parse().unwrap(), previous)
}

fn find(catalog: &Catalog, kind: Kind, name: &str, dialect: Dialect) -> Found {
    match catalog.find(kind, name, &viewer(dialect)) {
        Lookup::Found(found) => found,
        other => panic!("{name}: {other:?}"),
    }
}

fn cluster(catalog: &Catalog, name: &str, dialect: Dialect) -> Cluster {
    unpack(type_url::CLUSTER, &find(catalog, Kind::Cluster, name, dialect).body()).unwrap()
}

fn endpoints(catalog: &Catalog, name: &str, dialect: Dialect) -> ClusterLoadAssignment {
    unpack(type_url::ENDPOINTS, &find(catalog, Kind::Endpoints, name, dialect).body()).unwrap()
}

fn routes(catalog: &Catalog, name: &str, dialect: Dialect) -> RouteConfiguration {
    unpack(type_url::ROUTE, &find(catalog, Kind::Route, name, dialect).body()).unwrap()
}

fn listener(catalog: &Catalog, name: &str, dialect: Dialect) -> Listener {
    unpack(type_url::LISTENER, &find(catalog, Kind::Listener, name, dialect).body()).unwrap()
}

fn inbound(address: &str) -> String {
    ListenerName::Inbound(address.parse().unwrap()).to_string()
}

fn upstream_tls(cluster: &Cluster) -> UpstreamTlsContext {
    use pillion_wire::xds::core::transport_socket::ConfigType;
    let Some(ConfigType::TypedConfig(any)) = &cluster.transport_socket.as_ref().unwrap().config_type else {
        panic!("{cluster:?}")
    };
    unpack(type_url::UPSTREAM_TLS, any).unwrap()
}

fn http_version(cluster: &Cluster) -> UpstreamProtocolOptions {
    let any = &cluster.typed_extension_protocol_options[type_url::HTTP_PROTOCOL_OPTIONS_KEY];
    let options: HttpProtocolOptions = unpack(type_url::HTTP_PROTOCOL_OPTIONS, any).unwrap();
    options.upstream_protocol_options.unwrap()
}

#[test]
fn outbound_listeners_carry_what_the_port_carries() {
    let catalog = catalog(&shop(1), None);
    for (name, dialect, http, tcp) in [
        ("a:80", Dialect::Pillion, true, false),
        ("a.shop.svc.cluster.local:80", Dialect::Grpc, true, false),
        ("b.shop:80", Dialect::Pillion, true, true),
        ("b.shop:80", Dialect::Grpc, true, false),
        ("t.shop:7000", Dialect::Pillion, false, true),
    ] {
        let listener = listener(&catalog, name, dialect);
        assert_eq!(listener.name, name);
        assert_eq!(listener.api_listener.is_some(), http, "{name} {dialect:?}");
        assert_eq!(listener.default_filter_chain.is_some(), tcp, "{name} {dialect:?}");
    }
    let missing = |name: &str| catalog.find(Kind::Listener, name, &viewer(Dialect::Grpc));
    assert!(matches!(missing("t.shop:7000"), Lookup::Missing), "gRPC cannot use it");
    assert!(matches!(missing("nonsense"), Lookup::Missing));
    assert!(matches!(catalog.find(Kind::Route, "t.shop:7000", &viewer(Dialect::Pillion)), Lookup::Missing));
}

#[test]
fn a_prefix_is_written_as_each_client_reads_it() {
    use route_match::PathSpecifier as Path;
    let catalog = catalog(&shop(1), None);
    let paths = |dialect| -> Vec<Path> {
        routes(&catalog, "a.shop:80", dialect).virtual_hosts[0]
            .routes
            .iter()
            .map(|route| route.r#match.clone().unwrap().path_specifier.unwrap())
            .collect()
    };
    assert_eq!(paths(Dialect::Pillion), [Path::PathSeparatedPrefix("/x".into())]);
    assert_eq!(paths(Dialect::Envoy), [Path::PathSeparatedPrefix("/x".into())]);
    assert_eq!(paths(Dialect::Grpc), [Path::Path("/x".into()), Path::Prefix("/x/".into())]);
    let routes = routes(&catalog, "a.shop:80", Dialect::Pillion);
    let route = &routes.virtual_hosts[0].routes[0];
    assert_eq!(route.name, "HTTPRoute/shop/r/0");
    let headers: Vec<&str> =
        route.r#match.as_ref().unwrap().headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!(headers, [":method", "v"]);
    assert_eq!(routes.virtual_hosts[0].routes.len(), 1, "what no route matches is not found");
}

#[test]
fn only_envoy_is_told_that_requests_may_last() {
    let catalog = catalog(&shop(1), None);
    for (dialect, expected) in [(Dialect::Envoy, true), (Dialect::Pillion, false), (Dialect::Grpc, false)] {
        let routes = routes(&catalog, "b.shop:80", dialect);
        let Some(route::Action::Route(action)) = &routes.virtual_hosts[0].routes[0].action else {
            panic!("{routes:?}")
        };
        assert_eq!(action.timeout.is_some(), expected);
    }
}

#[test]
fn limits_and_breakers_reach_each_client_in_the_fields_that_it_has() {
    let policy = |section: &str| {
        format!(
            "{}---\napiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p, namespace: shop}}\n\
             spec: {{targetRefs: [{{kind: Service, name: a}}], {section}}}\n",
            shop(1)
        )
    };
    let number = |value: &Option<pillion_wire::xds::UInt32Value>| value.as_ref().map(|value| value.value);
    let none = catalog(&shop(1), None);
    assert_eq!(cluster(&none, "a.shop:80", Dialect::Pillion).circuit_breakers, None);
    for dialect in [Dialect::Grpc, Dialect::Envoy] {
        let breakers = cluster(&none, "a.shop:80", dialect).circuit_breakers.unwrap();
        assert_eq!(number(&breakers.thresholds[0].max_requests), Some(u32::MAX), "whose default is 1024");
    }
    let told = catalog(
        &policy(
            "limits: {requests: 9, pending: 2, perEndpoint: {connections: 3}}, breaker: {consecutiveFailures: 4, openTime: 2s}",
        ),
        Some(&none),
    );
    let found = |catalog: &Catalog, dialect| find(catalog, Kind::Cluster, "a.shop:80", dialect).version().to_owned();
    assert_ne!(found(&none, Dialect::Pillion), found(&told, Dialect::Pillion), "a policy alone is news");
    let ours = cluster(&told, "a.shop:80", Dialect::Pillion);
    assert_eq!(ours.outlier_detection, None);
    let metadata = ours.metadata.unwrap();
    let breaker = pillion_wire::resilience::Breaker::from_metadata(&metadata).unwrap().unwrap();
    assert_eq!((breaker.consecutive, breaker.open.as_secs()), (Some(4), 2));
    let thresholds = ours.circuit_breakers.unwrap();
    assert_eq!(number(&thresholds.thresholds[0].max_pending_requests), Some(2));
    assert_eq!(number(&thresholds.per_host_thresholds[0].max_connections), Some(3));
    let grpc = cluster(&told, "a.shop:80", Dialect::Grpc);
    assert_eq!((grpc.outlier_detection, grpc.metadata), (None, None), "gRPC knows no failures in a row");
    assert_eq!(number(&grpc.circuit_breakers.unwrap().thresholds[0].max_requests), Some(9));
    let envoy = cluster(&told, "a.shop:80", Dialect::Envoy).outlier_detection.unwrap();
    assert_eq!((number(&envoy.consecutive_5xx), number(&envoy.enforcing_consecutive_5xx)), (Some(4), Some(100)));
    assert_eq!(number(&envoy.enforcing_success_rate), Some(0), "on unless it is turned off");
    let rate = catalog(&policy("outlierDetection: {successRate: {}, failurePercentage: {threshold: 60}}"), None);
    let grpc = cluster(&rate, "a.shop:80", Dialect::Grpc).outlier_detection.unwrap();
    assert_eq!(
        (number(&grpc.enforcing_success_rate), number(&grpc.failure_percentage_threshold)),
        (Some(100), Some(60))
    );
    assert_eq!(number(&grpc.enforcing_consecutive_5xx), Some(0));
}

#[test]
fn health_checks_are_for_those_who_make_them_and_of_ports_that_can_be_checked_so() {
    let told = |service: &str, section: &str| {
        let policy = "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p, namespace: shop}";
        let spec = format!("{{targetRefs: [{{kind: Service, name: {service}}}], healthChecks: {section}}}");
        catalog(&format!("{}---\n{policy}\nspec: {spec}\n", shop(1)), None)
    };
    let all = told("a", "{http: {path: /up}, minimumHealthy: 0}");
    let ours = cluster(&all, "a.shop:80", Dialect::Pillion);
    assert_eq!(ours.health_checks.len(), 1);
    let keep = setting::get(ours.metadata.as_ref(), HealthCheck::KEEP);
    assert_eq!(keep, Some(&value::Kind::NumberValue(0.0)));
    let panic =
        |cluster: &Cluster| cluster.common_lb_config.as_ref()?.healthy_panic_threshold.as_ref().map(|it| it.value);
    let envoy = cluster(&all, "a.shop:80", Dialect::Envoy);
    assert_eq!((panic(&envoy), envoy.ignore_health_on_host_removal), (Some(0.0), true));
    let Some(HealthChecker::HttpHealthCheck(http)) = &envoy.health_checks[0].health_checker else {
        panic!("{envoy:?}")
    };
    assert_eq!(http.codec_client_type, 1, "HTTP/2 towards sidecars");
    assert_eq!((http.retriable_statuses[0].start, http.retriable_statuses[0].end), (100, 600));
    assert!(cluster(&all, "a.shop:80", Dialect::Grpc).health_checks.is_empty());
    assert_eq!(panic(&cluster(&told("a", "{tcp: {}}"), "a.shop:80", Dialect::Envoy)), Some(1.0));
    for (service, name, section, expected) in [
        ("t", "t.shop:7000", "{http: {path: /}}", 0),
        ("t", "t.shop:7000", "{grpc: {}}", 0),
        ("t", "t.shop:7000", "{tcp: {}}", 1),
        ("a", "a.shop:80", "{grpc: {}}", 0),
        ("b", "b.shop:80", "{grpc: {}}", 1),
    ] {
        let checks = cluster(&told(service, section), name, Dialect::Pillion).health_checks;
        assert_eq!(checks.len(), expected, "{service}: {section}");
    }
}

#[test]
fn clusters_speak_and_prove_as_each_client_can() {
    let catalog = catalog(&shop(1), None);
    let own = cluster(&catalog, "a.shop:80", Dialect::Pillion);
    assert!(own.transport_socket.is_none(), "a sidecar goes by each endpoint");
    assert!(matches!(http_version(&own), UpstreamProtocolOptions::ExplicitHttpConfig(_)));
    let auto = cluster(&catalog, "b.shop:80", Dialect::Pillion);
    assert!(matches!(http_version(&auto), UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)));
    assert!(cluster(&catalog, "t.shop:7000", Dialect::Pillion).typed_extension_protocol_options.is_empty());

    let grpc = upstream_tls(&cluster(&catalog, "a.shop:80", Dialect::Grpc)).common_tls_context.unwrap();
    assert_eq!(grpc.tls_certificate_provider_instance.unwrap().instance_name, "default");
    let Some(common_tls_context::ValidationContextType::ValidationContext(context)) = grpc.validation_context_type
    else {
        panic!("a context of its own")
    };
    assert_eq!(context.ca_certificate_provider_instance.unwrap().instance_name, "default");

    let envoy = upstream_tls(&cluster(&catalog, "a.shop:80", Dialect::Envoy)).common_tls_context.unwrap();
    assert_eq!(envoy.alpn_protocols, ["h2"]);
    assert_eq!(envoy.tls_certificate_sds_secret_configs[0].name, "pillion-workload");
    let Some(common_tls_context::ValidationContextType::CombinedValidationContext(context)) =
        envoy.validation_context_type
    else {
        panic!("a combined context")
    };
    assert_eq!(context.validation_context_sds_secret_config.unwrap().name, "pillion-root");
    let names = context.default_validation_context.unwrap().match_typed_subject_alt_names;
    assert_eq!(names.len(), 1);
    let identity = "spiffe://cluster.local/ns/shop/sa/a";
    assert!(format!("{:?}", names[0].matcher).contains(identity));
}

#[test]
fn endpoints_outside_the_mesh_are_left_out_where_all_must_be_alike() {
    let catalog = catalog(&shop(1), None);
    let count = |dialect| {
        let assignment = endpoints(&catalog, "a.shop:80", dialect);
        let count = assignment.endpoints[0].lb_endpoints.len();
        assert_eq!(assignment.endpoints[0].load_balancing_weight.as_ref().unwrap().value as usize, count);
        count
    };
    assert_eq!([Dialect::Pillion, Dialect::Grpc, Dialect::Envoy].map(count), [2, 1, 1]);
}

#[test]
fn zones_are_localities() {
    let text = shop(1).replace(
        "name: a-2, namespace: shop, labels: {app: a}",
        "name: a-2, namespace: shop, labels: {app: a, topology.kubernetes.io/zone: west}",
    );
    let assignment = endpoints(&catalog(&text, None), "a.shop:80", Dialect::Pillion);
    let zones: Vec<&str> =
        assignment.endpoints.iter().map(|endpoints| endpoints.locality.as_ref().unwrap().zone.as_str()).collect();
    assert_eq!(zones, ["", "west"]);
}

/// A policy that says how endpoints of `a` are picked, after a document without an end.
fn balancing(section: &str) -> String {
    format!("---\n{}", policy("a", &format!("loadBalancing: {section}")))
}

#[test]
fn zones_are_priorities_for_each_caller_by_where_it_is() {
    let placed = |workload: &str, zone: &str| {
        (
            format!("name: {workload}, namespace: shop, labels: {{app: a}}"),
            format!("name: {workload}, namespace: shop, labels: {{app: a, topology.kubernetes.io/zone: {zone}}}"),
        )
    };
    let mut text = shop(1);
    for (workload, zone) in [("a-1", "east"), ("a-2", "west")] {
        let (from, to) = placed(workload, zone);
        assert!(text.contains(&from));
        text = text.replace(&from, &to);
    }
    let priorities = |section: &str, viewer: &Viewer| -> Vec<u32> {
        let catalog = catalog(&[text.clone(), balancing(section)].concat(), None);
        let Lookup::Found(found) = catalog.find(Kind::Endpoints, "a.shop:80", viewer) else { panic!("not found") };
        let assignment: ClusterLoadAssignment = unpack(type_url::ENDPOINTS, &found.body()).unwrap();
        assignment.endpoints.iter().map(|endpoints| endpoints.priority).collect()
    };
    let east = viewer(Dialect::Pillion);
    let west = Viewer { zone: Some("west".to_owned()), ..east.clone() };
    let nowhere = Viewer { workload: None, ..east.clone() };
    assert_eq!(priorities("{algorithm: random}", &east), [0, 0], "nothing is said of zones");
    assert_eq!(priorities("{zones: {}}", &east), [0, 1], "in the zone of its workload");
    assert_eq!(priorities("{zones: {}}", &west), [1, 0], "in the zone that the node says");
    assert_eq!(priorities("{zones: {}}", &nowhere), [0, 0]);
    assert_eq!(priorities("{zones: {preferOwn: false, failover: [west, east]}}", &east), [1, 0]);
}

#[test]
fn clients_are_told_of_load_balancing_what_they_know() {
    let hashed = "{algorithm: maglev, hashOn: [{header: x-user}, {cookie: {name: sid, ttl: 1h}}]}";
    let catalog = catalog(&[shop(1), balancing(hashed)].concat(), None);
    let policies = [Dialect::Pillion, Dialect::Grpc, Dialect::Envoy].map(|dialect| {
        let cluster = cluster(&catalog, "a.shop:80", dialect);
        let routes = routes(&catalog, "a.shop:80", dialect);
        let Some(route::Action::Route(action)) = &routes.virtual_hosts[0].routes[0].action else { panic!("no route") };
        (cluster.lb_policy(), action.hash_policy.len())
    });
    use pillion_wire::xds::cluster::cluster::LbPolicy;
    assert_eq!(policies, [(LbPolicy::Maglev, 2), (LbPolicy::RingHash, 1), (LbPolicy::Maglev, 2)]);
}

#[test]
fn a_policy_that_changes_is_another_version() {
    let versions = |section: &str| {
        let catalog = catalog(&[shop(1), balancing(section)].concat(), None);
        [Kind::Cluster, Kind::Route]
            .map(|kind| find(&catalog, kind, "a.shop:80", Dialect::Pillion).version().to_string())
    };
    let one = versions("{algorithm: maglev, hashOn: [{header: x-user}]}");
    let other = versions("{algorithm: maglev, tableSize: 251, hashOn: [{header: x-name}]}");
    assert!(one.iter().zip(&other).all(|(one, other)| one != other));
}

#[test]
fn an_inbound_listener_is_its_own_workloads_only() {
    let catalog = catalog(&shop(1), None);
    let own = listener(&catalog, &inbound("10.0.0.1:15008"), Dialect::Pillion);
    let names: Vec<&str> = own.filter_chains.iter().map(|chain| chain.name.as_str()).collect();
    assert_eq!(names, ["http-8080"]);
    let chain = &own.filter_chains[0];
    assert!(chain.transport_socket.is_some());
    let application = Application::from_metadata(chain.metadata.as_ref().unwrap()).unwrap().unwrap();
    assert_eq!(application, Application { address: "127.0.0.1:8080".parse().unwrap(), tls: false });
    let Some(filter::ConfigType::TypedConfig(any)) = &chain.filters[0].config_type else { panic!("{chain:?}") };
    let manager: HttpConnectionManager = unpack(type_url::HCM, any).unwrap();
    assert_eq!(manager.codec_type(), http_connection_manager::CodecType::Http1);

    let refused = |viewer: &Viewer, address: &str| {
        matches!(catalog.find(Kind::Listener, &inbound(address), viewer), Lookup::Refused(_))
    };
    let a = viewer(Dialect::Pillion);
    assert!(refused(&a, "10.0.0.3:15008"), "another account");
    assert!(refused(&Viewer { workload: Some("a-2".into()), ..a.clone() }, "10.0.0.1:15008"), "another workload");
    let elsewhere = "spiffe://cluster.local/ns/bank/sa/a".parse().unwrap();
    assert!(refused(&Viewer { identity: elsewhere, ..a.clone() }, "10.0.0.1:15008"), "another namespace");
    assert!(matches!(catalog.find(Kind::Listener, &inbound("10.9.9.9:1"), &a), Lookup::Missing));
    let any_address = listener(&catalog, &inbound("0.0.0.0:15008"), Dialect::Pillion);
    assert_eq!(any_address.filter_chains.len(), 1, "known by its name and port");
}

#[test]
fn a_permissive_port_has_a_second_chain_for_plaintext() {
    let catalog = catalog(&shop(1), None);
    let b = Viewer {
        identity: "spiffe://cluster.local/ns/shop/sa/b".parse().unwrap(),
        workload: Some("b-1".to_owned()),
        ..viewer(Dialect::Pillion)
    };
    let Lookup::Found(found) = catalog.find(Kind::Listener, &inbound("10.0.0.3:15008"), &b) else { panic!("its own") };
    let listener: Listener = unpack(type_url::LISTENER, &found.body()).unwrap();
    let chains: Vec<(&str, bool)> =
        listener.filter_chains.iter().map(|chain| (chain.name.as_str(), chain.transport_socket.is_some())).collect();
    assert_eq!(chains, [("auto-80", true), ("auto-80-plaintext", false), ("tcp-7000", true)]);
    let plaintext = listener.filter_chains[1].filter_chain_match.as_ref().unwrap();
    assert_eq!(plaintext.transport_protocol, "raw_buffer");
    assert_eq!(plaintext.destination_port.as_ref().unwrap().value, 80);
}

#[test]
fn a_listener_says_the_address_that_it_was_asked_by() {
    use pillion_wire::xds::core::{address, socket_address};
    let catalog = catalog(&shop(1), None);
    for asked in ["10.0.0.1:15008", "0.0.0.0:15008", "[::]:15008"] {
        let listener = listener(&catalog, &inbound(asked), Dialect::Pillion);
        let Some(address::Address::SocketAddress(socket)) = listener.address.unwrap().address else {
            panic!("{asked}")
        };
        let Some(socket_address::PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!("{asked}") };
        let said = std::net::SocketAddr::new(socket.address.parse().unwrap(), port.try_into().unwrap());
        assert_eq!(said.to_string(), asked);
    }
}

#[test]
fn a_single_workload_has_resources_of_its_own_while_it_is_there() {
    let before = catalog(&shop(1), None);
    for name in ["10.0.0.1:8080", "10.0.0.1:5432", "10.0.0.2:8080"] {
        assert_eq!(listener(&before, name, Dialect::Pillion).name, name);
        assert_eq!(cluster(&before, name, Dialect::Pillion).name, name);
        let assignment = endpoints(&before, name, Dialect::Pillion);
        assert_eq!(assignment.cluster_name, name);
        let in_mesh = assignment.endpoints[0].lb_endpoints[0].metadata.is_some();
        assert_eq!(in_mesh, name.starts_with("10.0.0.1"), "{name}");
        let routes = routes(&before, name, Dialect::Pillion);
        assert_eq!(routes.virtual_hosts[0].routes[0].name, "default", "the Service's routes are not for it");
    }
    assert!(cluster(&before, "10.0.0.1:8080", Dialect::Envoy).transport_socket.is_some());
    assert!(listener(&before, "10.0.0.1:5432", Dialect::Pillion).default_filter_chain.is_some());
    let pillion = viewer(Dialect::Pillion);
    assert!(matches!(before.find(Kind::Listener, "10.0.0.9:80", &pillion), Lookup::Missing));

    let version =
        |catalog: &Catalog| find(catalog, Kind::Endpoints, "10.0.0.1:8080", Dialect::Pillion).version().clone();
    let elsewhere = catalog(&shop(2), Some(&before));
    assert!(std::sync::Arc::ptr_eq(&version(&before), &version(&elsewhere)), "not made again");
    let outside = shop(1).replace("address: 10.0.0.1, mesh: {port: 15008}", "address: 10.0.0.1");
    let outside = catalog(&outside, Some(&before));
    assert_ne!(version(&before), version(&outside));
    let gone = catalog(&shop(1).replace("address: 10.0.0.1,", "address: 10.0.0.11,"), Some(&before));
    for kind in Kind::ALL {
        assert!(matches!(gone.find(kind, "10.0.0.1:8080", &pillion), Lookup::Missing), "{kind:?}");
    }
}

#[test]
fn a_host_listener_lists_addresses_and_is_for_sidecars() {
    let text = service("v", "[{port: 80}]").replace("selector", "clusterIPs: [10.96.0.1, 'fd00::a'], selector");
    let before = catalog(&text, None);
    let name = "pillion/host?name=v.shop";
    let listener = listener(&before, name, Dialect::Pillion);
    assert_eq!(listener.name, name);
    assert!(format!("{:?}", listener.address).contains("10.96.0.1"));
    assert_eq!(listener.additional_addresses.len(), 1);
    assert!(listener.api_listener.is_none() && listener.default_filter_chain.is_none());
    assert!(matches!(before.find(Kind::Listener, name, &viewer(Dialect::Grpc)), Lookup::Missing));
    assert!(matches!(
        before.find(Kind::Listener, "pillion/host?name=w.shop", &viewer(Dialect::Pillion)),
        Lookup::Missing
    ));
    let after = catalog(&text.replace("10.96.0.1", "10.96.0.2"), Some(&before));
    let version = |catalog: &Catalog| find(catalog, Kind::Listener, name, Dialect::Pillion).version().clone();
    assert_ne!(version(&before), version(&after));
}

#[test]
fn an_application_that_speaks_tls_is_told_from_one_that_speaks_tcp() {
    let ports = "ports: [{port: 443, protocol: tls}, {port: 444, protocol: tls, access: permissive}, {port: 445, protocol: tcp}]";
    let text = workload("a-1", "a", &format!("address: 10.0.0.1, mesh: {{port: 15008}}, {ports}"));
    let listener = listener(&catalog(&text, None), &inbound("10.0.0.1:15008"), Dialect::Pillion);
    let found: Vec<_> = listener
        .filter_chains
        .iter()
        .map(|chain| {
            let application = Application::from_metadata(chain.metadata.as_ref().unwrap()).unwrap().unwrap();
            let transport = chain.filter_chain_match.as_ref().unwrap().transport_protocol.as_str();
            (chain.name.as_str(), application.tls, chain.transport_socket.is_some(), transport)
        })
        .collect();
    let expected = [
        ("tls-443", true, true, ""),
        ("tls-444", true, true, ""),
        ("tls-444-passthrough", true, false, "tls"),
        ("tcp-445", false, true, ""),
    ];
    assert_eq!(found, expected);
}

#[test]
fn load_shedding_is_a_filter_of_envoys_that_grpc_is_not_told() {
    let sections = "loadShedding: {criticality: {default: SHEDDABLE}}";
    let catalog = catalog(&[shop(1), policy("a", sections)].concat(), None);
    for (dialect, wanted) in [(Dialect::Pillion, 2), (Dialect::Envoy, 2), (Dialect::Grpc, 1)] {
        let listener = listener(&catalog, &inbound("10.0.0.1:15008"), dialect);
        let chain = &listener.filter_chains[0];
        let rule = extension::get::<CriticalityRule>(chain.metadata.as_ref().unwrap(), CRITICALITY_METADATA).unwrap();
        assert_eq!(rule.unwrap().default, Criticality::Sheddable);
        let Some(filter::ConfigType::TypedConfig(any)) = &chain.filters[0].config_type else { panic!("{chain:?}") };
        let manager: HttpConnectionManager = unpack(type_url::HCM, any).unwrap();
        assert_eq!(manager.http_filters.len(), wanted, "{dialect:?}");
        assert_eq!(manager.http_filters.last().unwrap().name, "envoy.filters.http.router");
    }
}

#[test]
fn global_rate_limits_are_a_filter_of_envoys_that_grpc_is_not_told() {
    let sections =
        "globalRateLimit: {service: {name: limits, port: 80}, domain: d, descriptors: [{entries: [{type: path}]}]}";
    let limits = service("limits", "[{port: 80, appProtocol: grpc}]");
    let catalog = catalog(&[shop(1), limits, policy("a", sections)].concat(), None);
    for (dialect, wanted) in [(Dialect::Pillion, (2, 1)), (Dialect::Envoy, (2, 1)), (Dialect::Grpc, (1, 0))] {
        let listener = listener(&catalog, &inbound("10.0.0.1:15008"), dialect);
        let chain = &listener.filter_chains[0];
        let Some(filter::ConfigType::TypedConfig(any)) = &chain.filters[0].config_type else { panic!("{chain:?}") };
        let manager: HttpConnectionManager = unpack(type_url::HCM, any).unwrap();
        let Some(http_connection_manager::RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else {
            panic!("{chain:?}")
        };
        assert_eq!((manager.http_filters.len(), routes.virtual_hosts[0].rate_limits.len()), wanted, "{dialect:?}");
    }
}

#[test]
fn tls_routes_are_filter_chains_by_server_name() {
    let with = |hostname: &str| {
        [
            service("a", "[{port: 443, appProtocol: https}]"),
            service("b", "[{port: 443}]"),
            route_object(
                "TLSRoute",
                "r",
                "name: a",
                &format!(
                    "[{{backendRefs: [{{name: a, port: 443}}, {{name: b, port: 443, weight: 3}}]}}], hostnames: [{hostname}]"
                ),
            ),
            route_object("TLSRoute", "s", "name: a", "[{backendRefs: [{name: gone, port: 443}]}]"),
        ]
        .concat()
    };
    let before = catalog(&with("x.example"), None);
    let found = listener(&before, "a.shop:443", Dialect::Pillion);
    assert!(found.api_listener.is_none() && found.default_filter_chain.is_some());
    let chains: Vec<_> = found
        .filter_chains
        .iter()
        .map(|chain| {
            let rule = chain.filter_chain_match.as_ref().unwrap();
            assert_eq!(rule.transport_protocol, "tls");
            let Some(filter::ConfigType::TypedConfig(any)) = &chain.filters[0].config_type else { panic!("{chain:?}") };
            let proxy: TcpProxy = unpack(type_url::TCP_PROXY, any).unwrap();
            (chain.name.as_str(), rule.server_names.clone(), proxy.cluster_specifier.unwrap())
        })
        .collect();
    assert_eq!(chains.len(), 2);
    assert_eq!((chains[0].0, chains[0].1.as_slice()), ("TLSRoute/shop/r", &["x.example".to_owned()][..]));
    let tcp_proxy::ClusterSpecifier::WeightedClusters(weighted) = &chains[0].2 else { panic!("{chains:?}") };
    let weights: Vec<_> = weighted.clusters.iter().map(|cluster| (cluster.name.as_str(), cluster.weight)).collect();
    assert_eq!(weights, [("a.shop:443", 1), ("b.shop:443", 3)]);
    assert!(chains[1].1.is_empty());
    assert_eq!(chains[1].2, tcp_proxy::ClusterSpecifier::Cluster("pillion-invalid-backend".into()));
    let after = catalog(&with("y.example"), Some(&before));
    let version = |catalog: &Catalog| find(catalog, Kind::Listener, "a.shop:443", Dialect::Pillion).version().clone();
    assert_ne!(version(&before), version(&after));
}

#[test]
fn envoy_may_ask_for_everything() {
    let catalog = catalog(&shop(1), None);
    let envoy = viewer(Dialect::Envoy);
    assert_eq!(catalog.wildcard(Kind::Cluster, &envoy), ["a.shop:80", "b.shop:80", "t.shop:7000"]);
    assert_eq!(catalog.wildcard(Kind::Listener, &envoy), ["pillion/outbound"]);
    assert!(catalog.wildcard(Kind::Cluster, &viewer(Dialect::Pillion)).is_empty());
    let outbound = listener(&catalog, "pillion/outbound", Dialect::Envoy);
    assert!(outbound.address.is_some());
    let routes = routes(&catalog, "pillion/outbound", Dialect::Envoy);
    let domains = &routes.virtual_hosts[0].domains;
    for domain in ["a", "a:80", "a.shop", "a.shop:80", "a.shop.svc.cluster.local:80"] {
        assert!(domains.iter().any(|found| found == domain), "{domain}: {domains:?}");
    }
    assert_eq!(routes.virtual_hosts.len(), 2, "the TCP port has no requests");
    let mut all: Vec<&String> = routes.virtual_hosts.iter().flat_map(|host| &host.domains).collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "Envoy refuses a domain that is there twice");
}

#[test]
fn versions_change_with_content_only() {
    let before = catalog(&shop(1), None);
    let after = catalog(&shop(2), Some(&before));
    let again = catalog(&shop(1), None);
    let version = |catalog: &Catalog, kind, name| find(catalog, kind, name, Dialect::Pillion).version().to_string();
    for (kind, name, changes) in [
        (Kind::Route, "a.shop:80", true),
        (Kind::Cluster, "a.shop:80", false),
        (Kind::Endpoints, "a.shop:80", false),
        (Kind::Listener, "a.shop:80", false),
        (Kind::Route, "b.shop:80", false),
    ] {
        let (old, new) = (version(&before, kind, name), version(&after, kind, name));
        assert_eq!(old != new, changes, "{kind:?} {name}");
        assert_eq!(old, version(&again, kind, name), "the same in every process");
    }
}

fn policy(target: &str, sections: &str) -> String {
    format!(
        "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: p, namespace: shop}}\n\
         spec: {{targetRefs: [{{kind: Service, name: {target}}}], {sections}}}\n---\n"
    )
}

const ABORT: &str = "faults: {abort: {httpStatus: 503, percent: 1}}";

#[test]
fn what_routes_do_is_said_to_each_client_as_far_as_it_takes_it() {
    let cors = "[{filters: [{type: CORS, cors: {allowOrigins: ['*']}}], backendRefs: [{name: b, port: 80}]}]";
    let services = [service("a", "[{port: 80, appProtocol: http}]"), service("b", "[{port: 80}]")].concat();
    let routes_of = |text: &str, dialect| {
        let catalog = catalog(text, None);
        let manager = listener(&catalog, "a.shop:80", dialect).api_listener.unwrap().api_listener.unwrap();
        let manager: HttpConnectionManager = unpack(type_url::HCM, &manager).unwrap();
        let filters: Vec<String> = manager.http_filters.into_iter().map(|filter| filter.name).collect();
        let mut said: Vec<String> = routes(&catalog, "a.shop:80", dialect).virtual_hosts[0].routes[0]
            .typed_per_filter_config
            .keys()
            .cloned()
            .collect();
        said.sort();
        (filters, said)
    };
    let (cors_filter, fault_filter) = ("envoy.filters.http.cors", "envoy.filters.http.fault");
    let (session_filter, router) = ("envoy.filters.http.stateful_session", "envoy.filters.http.router");
    let plain = [services.clone(), route_object("HTTPRoute", "r", "name: a", cors)].concat();
    let harmed = [plain.clone(), policy("a", ABORT)].concat();
    for dialect in [Dialect::Pillion, Dialect::Envoy] {
        let (filters, said) = routes_of(&plain, dialect);
        assert_eq!(
            filters,
            [cors_filter, fault_filter, session_filter, router],
            "whatever the routes say: {dialect:?}"
        );
        assert_eq!(said, [cors_filter]);
        assert_eq!(routes_of(&harmed, dialect).1, [cors_filter, fault_filter]);
    }
    assert_eq!(routes_of(&plain, Dialect::Grpc), (vec![router.to_owned()], vec![]));
    let (filters, said) = routes_of(&harmed, Dialect::Grpc);
    assert_eq!((filters, said), (vec![fault_filter.to_owned(), router.to_owned()], vec![fault_filter.to_owned()]));
    let kept = |kind: &str| [plain.clone(), policy("a", &format!("sessionPersistence: {{type: {kind}}}"))].concat();
    for kind in ["Cookie", "Header"] {
        assert_eq!(routes_of(&kept(kind), Dialect::Envoy).1, [cors_filter, session_filter]);
    }
    assert_eq!(routes_of(&kept("Header"), Dialect::Grpc), (vec![router.to_owned()], vec![]), "it has no such");
    let (filters, said) = routes_of(&kept("Cookie"), Dialect::Grpc);
    assert_eq!((filters, said), (vec![session_filter.to_owned(), router.to_owned()], vec![session_filter.to_owned()]));
}

#[test]
fn an_edited_policy_is_another_version_of_what_it_concerns() {
    let versions = |sections: &str| {
        let policy = if sections.is_empty() { String::new() } else { policy("a", sections) };
        let catalog = catalog(&[shop(1), policy].concat(), None);
        [Kind::Route, Kind::Cluster, Kind::Endpoints]
            .map(|kind| find(&catalog, kind, "a.shop:80", Dialect::Pillion).version().to_string())
    };
    let (none, faults, timeout) = (versions(""), versions(ABORT), versions("timeouts: {connect: 1s}"));
    assert_ne!(none[0], faults[0]);
    assert_ne!(none[1], timeout[1]);
    assert!(none[2] == faults[2] && none[2] == timeout[2]);
}

#[test]
fn a_changed_policy_is_a_changed_resource() {
    let policy = |sections: &str| catalog(&[policy("b", sections), shop(1)].concat(), None);
    let version = |catalog: &Catalog, kind, dialect| {
        let name = if dialect == Dialect::Envoy && kind == Kind::Route { "pillion/outbound" } else { "b.shop:80" };
        find(catalog, kind, name, dialect).version().to_string()
    };
    for (one, other, kind) in [
        ("timeouts: {request: 1s}", "timeouts: {request: 2s}", Kind::Route),
        ("timeouts: {connect: 1s}", "timeouts: {connect: 2s}", Kind::Cluster),
        ("retries: {budget: {percent: 1}}", "retries: {budget: {percent: 2}}", Kind::Cluster),
    ] {
        let (one, other) = (policy(one), policy(other));
        for dialect in [Dialect::Pillion, Dialect::Grpc, Dialect::Envoy] {
            assert_ne!(version(&one, kind, dialect), version(&other, kind, dialect), "{kind:?} {dialect:?}");
        }
    }
}

#[test]
fn a_name_elsewhere_is_asked_for_by_the_client_itself_as_it_can() {
    use pillion_wire::xds::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
    let text = |annotations: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: api, namespace: shop, annotations: {{{annotations}}}}}\n\
             spec: {{type: ExternalName, externalName: api.example.com, ports: [{{port: 80, targetPort: 8080}}]}}\n"
        )
    };
    let catalog = |annotations| {
        let (mesh, findings) = Mesh::compile(&objects(&text(annotations)), None);
        assert!(findings.is_empty(), "{findings:?}");
        Catalog::new(mesh, "cluster.local".parse().unwrap(), None)
    };
    let (strict, logical) = (catalog(""), catalog("pillion.dev/dns: logical"));
    for (catalog, dialect, kind) in [
        (&strict, Dialect::Pillion, DiscoveryType::StrictDns),
        (&strict, Dialect::Envoy, DiscoveryType::StrictDns),
        (&strict, Dialect::Grpc, DiscoveryType::LogicalDns),
        (&logical, Dialect::Pillion, DiscoveryType::LogicalDns),
        (&logical, Dialect::Envoy, DiscoveryType::LogicalDns),
        (&logical, Dialect::Grpc, DiscoveryType::LogicalDns),
    ] {
        let found = cluster(catalog, "api.shop:80", dialect);
        assert_eq!(found.cluster_discovery_type, Some(ClusterDiscoveryType::Type(kind.into())), "{dialect:?}");
        assert_eq!((found.eds_cluster_config, found.transport_socket), (None, None));
        let assignment = found.load_assignment.unwrap();
        let [locality] = assignment.endpoints.as_slice() else { panic!("{assignment:?}") };
        assert!(format!("{:?}", locality.lb_endpoints).contains("api.example.com"), "{locality:?}");
        assert!(format!("{:?}", locality.lb_endpoints).contains("8080"), "{locality:?}");
    }
    let version = |catalog| find(catalog, Kind::Cluster, "api.shop:80", Dialect::Envoy).version().clone();
    assert_ne!(version(&strict), version(&logical));
    assert_eq!(strict.mesh().host_addresses("api.shop", "other").map(<[_]>::len), Some(2), "virtual ones");
    let within =
        text("").replace("api.example.com", "b.shop.svc.cluster.local") + "---\n" + &service("b", "[{port: 80}]");
    let (_, findings) = Mesh::compile(&objects(&within), None);
    assert!(findings.iter().any(|it| it.reason.contains("past its policies") && !it.refused), "{findings:?}");
}
