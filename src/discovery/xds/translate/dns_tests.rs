//! Clusters that are found by name, as they come and as they are refused.

use std::time::Duration;

use pillion_wire::mesh::MeshEndpoint;
use pillion_wire::xds::apple_resolver::AppleDnsResolverConfig;
use pillion_wire::xds::cares_resolver::CaresDnsResolverConfig;
use pillion_wire::xds::cluster::{Cluster, cluster};
use pillion_wire::xds::core::{
    Address, DnsResolverOptions, Metadata, SocketAddress, TypedExtensionConfig, address, socket_address,
};
use pillion_wire::xds::dns_cluster::{DnsCluster, dns_cluster};
use pillion_wire::xds::endpoint::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint};
use pillion_wire::xds::getaddrinfo_resolver::GetAddrInfoDnsResolverConfig;
use pillion_wire::xds::{Duration as PbDuration, Struct, UInt32Value, Value, pack, type_url, value};
use prost::Message;

use super::resource;
use crate::config::{self, Dns, DnsHost, DnsKind, LookupFamily};
use crate::discovery::{Config, Kind};

fn host(name: &str, port: u32) -> LbEndpoint {
    let socket = SocketAddress {
        address: name.into(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(port)),
        ..SocketAddress::default()
    };
    let address = Some(Address { address: Some(address::Address::SocketAddress(socket)) });
    let endpoint = Endpoint { address, ..Endpoint::default() };
    LbEndpoint { host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() }
}

fn assignment(hosts: Vec<LbEndpoint>) -> Option<ClusterLoadAssignment> {
    let endpoints = vec![LocalityLbEndpoints { lb_endpoints: hosts, ..LocalityLbEndpoints::default() }];
    Some(ClusterLoadAssignment { cluster_name: "c".into(), endpoints, ..ClusterLoadAssignment::default() })
}

fn dns(kind: cluster::DiscoveryType) -> Cluster {
    Cluster {
        name: "c".into(),
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(kind.into())),
        load_assignment: assignment(vec![host("api.example.com", 443)]),
        ..Cluster::default()
    }
}

fn extension(told: &DnsCluster) -> Cluster {
    let custom = cluster::CustomClusterType {
        name: "envoy.clusters.dns".into(),
        typed_config: Some(pack(type_url::DNS_CLUSTER, told)),
    };
    Cluster {
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::ClusterType(custom)),
        ..dns(cluster::DiscoveryType::StrictDns)
    }
}

fn translated(message: &Cluster) -> Result<config::Cluster, String> {
    match resource(Kind::Cluster, "c", &pack(type_url::CLUSTER, message)) {
        Ok(Config::Cluster(cluster)) => Ok(cluster),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.to_string()),
    }
}

fn names(message: &Cluster) -> Dns {
    let cluster = translated(message).expect("accepted");
    let dns = cluster.dns.expect("by name");
    assert_eq!(cluster.endpoints, dns.key());
    Dns::clone(&dns)
}

fn seconds(seconds: i64) -> Option<PbDuration> {
    Some(PbDuration { seconds, nanos: 0 })
}

#[test]
fn what_is_not_said_is_as_envoy_has_it() {
    let strict = names(&dns(cluster::DiscoveryType::StrictDns));
    assert_eq!((strict.kind, strict.family), (DnsKind::Strict, LookupFamily::Auto));
    assert_eq!((strict.refresh, strict.respect_ttl), (Duration::from_secs(5), false));
    assert_eq!(strict.failure, (Duration::from_secs(5), Duration::from_secs(50)));
    assert_eq!(strict.jitter, Duration::ZERO);
    let [endpoint] = strict.localities[0].endpoints.as_slice() else { panic!("{strict:?}") };
    assert_eq!((&endpoint.host, endpoint.port), (&DnsHost::Name("api.example.com".into()), 443));
    assert_eq!(names(&dns(cluster::DiscoveryType::LogicalDns)).kind, DnsKind::Logical);
    let extended = names(&extension(&DnsCluster::default()));
    assert_eq!(extended, strict);
}

#[test]
#[expect(deprecated, reason = "the fields that control planes fill")]
fn what_is_said_is_taken_over_from_both_places() {
    let rate = |base, max| cluster::RefreshRate { base_interval: seconds(base), max_interval: seconds(max) };
    let old = Cluster {
        dns_lookup_family: cluster::DnsLookupFamily::V4Preferred.into(),
        dns_refresh_rate: seconds(7),
        dns_failure_refresh_rate: Some(rate(2, 20)),
        dns_jitter: seconds(3),
        respect_dns_ttl: true,
        load_assignment: assignment(vec![host("A.example.com.", 80), host("192.0.2.1", 81), host("_x.a", 82)]),
        ..dns(cluster::DiscoveryType::StrictDns)
    };
    let found = names(&old);
    assert_eq!((found.family, found.refresh), (LookupFamily::V4Preferred, Duration::from_secs(7)));
    assert_eq!((found.failure.0, found.failure.1), (Duration::from_secs(2), Duration::from_secs(20)));
    assert_eq!((found.jitter, found.respect_ttl), (Duration::from_secs(3), true));
    let hosts: Vec<&DnsHost> = found.localities[0].endpoints.iter().map(|endpoint| &endpoint.host).collect();
    let expected =
        [DnsHost::Name("a.example.com".into()), DnsHost::Address([192, 0, 2, 1].into()), DnsHost::Name("_x.a".into())];
    assert_eq!(hosts, expected.iter().collect::<Vec<_>>());
    let new = extension(&DnsCluster {
        dns_refresh_rate: seconds(7),
        dns_failure_refresh_rate: Some(dns_cluster::RefreshRate {
            base_interval: seconds(2),
            max_interval: seconds(20),
        }),
        respect_dns_ttl: true,
        dns_jitter: seconds(3),
        dns_lookup_family: pillion_wire::xds::common_dns::DnsLookupFamily::V4Preferred.into(),
        ..DnsCluster::default()
    });
    assert_eq!(names(&Cluster { load_assignment: old.load_assignment.clone(), ..new }), found);
    let single = DnsCluster { all_addresses_in_single_endpoint: true, ..DnsCluster::default() };
    assert_eq!(names(&extension(&single)).kind, DnsKind::Logical);
    assert_ne!(names(&extension(&single)).key(), found.key(), "what differs has another key");
}

fn asked_by<M: Message>(url: &str, config: &M) -> Option<TypedExtensionConfig> {
    Some(TypedExtensionConfig { name: "x".into(), typed_config: Some(pack(url, config)) })
}

#[test]
fn what_istiod_says_of_every_cluster_is_taken() {
    let fields = |list: &[(&str, &str)]| {
        let value = |text: &str| Value { kind: Some(value::Kind::StringValue(text.into())) };
        Struct { fields: list.iter().map(|(key, text)| ((*key).into(), value(text))).collect() }
    };
    let mut host = host("api.example.com", 443);
    let filter_metadata = [
        ("istio".into(), fields(&[("workload", "api;shop;api;latest;Kubernetes")])),
        ("envoy.lb".into(), fields(&[("version", "v2")])),
    ];
    host.metadata = Some(Metadata { filter_metadata: filter_metadata.into(), ..Metadata::default() });
    let cares = CaresDnsResolverConfig { udp_max_queries: Some(UInt32Value { value: 100 }), ..Default::default() };
    for resolver in [
        asked_by(type_url::CARES_RESOLVER, &cares),
        asked_by(type_url::GETADDRINFO_RESOLVER, &GetAddrInfoDnsResolverConfig::default()),
        asked_by(type_url::APPLE_RESOLVER, &AppleDnsResolverConfig::default()),
    ] {
        for kind in [cluster::DiscoveryType::StrictDns, cluster::DiscoveryType::LogicalDns] {
            let load_assignment = assignment(vec![host.clone()]);
            let typed_dns_resolver_config = resolver.clone();
            let found = names(&Cluster { load_assignment, typed_dns_resolver_config, ..dns(kind) });
            let labels = found.localities[0].endpoints[0].labels.clone().expect("labels");
            assert_eq!(*labels, [("version".to_owned(), "\"v2\"".to_owned())].into());
        }
        let told = DnsCluster { typed_dns_resolver_config: resolver, ..DnsCluster::default() };
        assert_eq!(names(&extension(&told)), names(&dns(cluster::DiscoveryType::StrictDns)));
    }
}

#[test]
fn resolvers_of_their_own_and_identities_are_refused() {
    let options = DnsResolverOptions { use_tcp_for_dns_lookups: true, ..Default::default() };
    let over_tcp = CaresDnsResolverConfig { dns_resolver_options: Some(options), ..Default::default() };
    let others = CaresDnsResolverConfig { resolvers: vec![Address::default()], ..Default::default() };
    for (config, wanted) in [
        (others, "resolvers: is not supported"),
        (over_tcp, "dns_resolver_options.use_tcp_for_dns_lookups: is not supported"),
    ] {
        let typed_dns_resolver_config = asked_by(type_url::CARES_RESOLVER, &config);
        let old = Cluster {
            typed_dns_resolver_config: typed_dns_resolver_config.clone(),
            ..dns(cluster::DiscoveryType::StrictDns)
        };
        let new = extension(&DnsCluster { typed_dns_resolver_config, ..DnsCluster::default() });
        let path = format!("typed_dns_resolver_config.typed_config.{wanted}");
        assert_eq!(translated(&old).expect_err(wanted), path);
        assert_eq!(translated(&new).expect_err(wanted), format!("cluster_type.typed_config.{path}"));
    }
    let mesh = MeshEndpoint { port: 15008, identity: "spiffe://cluster.local/ns/a/sa/b".parse().expect("an id") };
    let host = LbEndpoint { metadata: Some(mesh.to_metadata()), ..host("a", 1) };
    let message = Cluster { load_assignment: assignment(vec![host]), ..dns(cluster::DiscoveryType::StrictDns) };
    let wanted = "load_assignment.endpoints[0].lb_endpoints[0].metadata: is not supported";
    assert_eq!(translated(&message).expect_err(wanted), wanted);
}

#[test]
#[allow(deprecated, reason = "deprecated fields are refused, not used")]
fn what_would_mean_something_else_is_refused_with_the_path() {
    let changed = |change: &dyn Fn(&mut Cluster)| {
        let mut message = dns(cluster::DiscoveryType::LogicalDns);
        change(&mut message);
        message
    };
    let resolver = || Some(TypedExtensionConfig { name: "x".into(), ..TypedExtensionConfig::default() });
    let hosts = |hosts| changed(&|cluster| cluster.load_assignment = assignment(Vec::clone(&hosts)));
    let with_host = |change: &dyn Fn(&mut LbEndpoint)| {
        let mut host = host("a", 1);
        change(&mut host);
        hosts(vec![host])
    };
    let custom = |told: DnsCluster| extension(&told);
    for (message, wanted) in [
        (changed(&|cluster| cluster.load_assignment = None), "load_assignment: is missing"),
        (changed(&|cluster| cluster.use_tcp_for_dns_lookups = true), "use_tcp_for_dns_lookups: is not supported"),
        (changed(&|cluster| cluster.dns_resolvers = vec![Address::default()]), "dns_resolvers: is not supported"),
        (
            changed(&|cluster| cluster.typed_dns_resolver_config = resolver()),
            "typed_dns_resolver_config: is not supported",
        ),
        (
            changed(&|cluster| cluster.dns_refresh_rate = Some(PbDuration { seconds: 0, nanos: 999_999 })),
            "dns_refresh_rate: has to be at least 1 ms",
        ),
        (
            changed(&|cluster| cluster.dns_failure_refresh_rate = Some(cluster::RefreshRate::default())),
            "dns_failure_refresh_rate.base_interval: is missing",
        ),
        (
            changed(&|cluster| {
                let rate = cluster::RefreshRate { base_interval: seconds(2), max_interval: seconds(1) };
                cluster.dns_failure_refresh_rate = Some(rate);
            }),
            "dns_failure_refresh_rate.max_interval: is less than base_interval",
        ),
        (changed(&|cluster| cluster.dns_lookup_family = 9), "dns_lookup_family: is not supported"),
        (
            changed(&|cluster| cluster.eds_cluster_config = Some(Default::default())),
            "eds_cluster_config: is not supported",
        ),
        (
            hosts(vec![host("a", 1), host("b", 1)]),
            "load_assignment.endpoints: has to be one locality with one endpoint: LOGICAL_DNS is one host",
        ),
        (
            hosts(vec![host("a b", 1)]),
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: \
             is neither an IP address nor a name",
        ),
        (
            hosts(vec![host("a", 0)]),
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value: \
             is no port from 1 to 65535",
        ),
        (
            with_host(&|host| host.load_balancing_weight = Some(UInt32Value { value: 0 })),
            "load_assignment.endpoints[0].lb_endpoints[0].load_balancing_weight: has to be at least 1",
        ),
        (
            custom(DnsCluster { typed_dns_resolver_config: resolver(), ..DnsCluster::default() }),
            "cluster_type.typed_config.typed_dns_resolver_config: is not supported",
        ),
        (
            custom(DnsCluster { dns_refresh_rate: seconds(-1), ..DnsCluster::default() }),
            "cluster_type.typed_config.dns_refresh_rate: is no duration",
        ),
    ] {
        assert_eq!(translated(&message).expect_err(wanted), wanted);
    }
    let other =
        cluster::CustomClusterType { name: "x".into(), typed_config: Some(pack("x/y", &DnsCluster::default())) };
    let other = cluster::ClusterDiscoveryType::ClusterType(other);
    let message = changed(&|cluster| cluster.cluster_discovery_type = Some(other.clone()));
    assert_eq!(translated(&message).expect_err("another"), "cluster_type.typed_config: is not supported");
}
