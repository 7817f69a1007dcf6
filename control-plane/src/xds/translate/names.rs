//! Clusters of Services that stand for a name elsewhere: the client asks for its addresses itself.

use std::time::Duration;

use pillion_wire::xds::{
    UInt32Value,
    cluster::{Cluster, cluster},
    core::{Address, SocketAddress, address, socket_address},
    endpoint::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint},
};

use super::duration;
use crate::{
    core::external::{ExternalPort, Family, Resolution},
    xds::dialect::Dialect,
};

/// How long an answer holds that has no TTL. Envoy's default.
const REFRESH: Duration = Duration::from_secs(5);
/// The first wait after a failure, and the longest.
const FAILURE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// By how much an answer holds longer, at most: a caching nameserver makes it end everywhere at the same moment.
const JITTER: Duration = Duration::from_secs(1);

/// Makes `cluster` one that finds its hosts by name. gRPC knows logical ones only (gRFC A37).
#[expect(deprecated, reason = "what takes their place, `envoy.clusters.dns`, only newer Envoys know")]
pub(super) fn apply(cluster: &mut Cluster, external: &ExternalPort, dialect: Dialect) {
    let resolution = if dialect == Dialect::Grpc { Resolution::Logical } else { external.host.resolution };
    let kind = match resolution {
        Resolution::Strict => cluster::DiscoveryType::StrictDns,
        Resolution::Logical => cluster::DiscoveryType::LogicalDns,
    };
    let family = match external.host.family() {
        Family::Auto => cluster::DnsLookupFamily::Auto,
        Family::V4Only => cluster::DnsLookupFamily::V4Only,
        Family::V6Only => cluster::DnsLookupFamily::V6Only,
        Family::V4Preferred => cluster::DnsLookupFamily::V4Preferred,
        Family::All => cluster::DnsLookupFamily::All,
    };
    cluster.cluster_discovery_type = Some(cluster::ClusterDiscoveryType::Type(kind.into()));
    cluster.eds_cluster_config = None;
    cluster.dns_lookup_family = family.into();
    cluster.respect_dns_ttl = true;
    cluster.dns_refresh_rate = Some(duration(REFRESH));
    cluster.dns_failure_refresh_rate = Some(cluster::RefreshRate {
        base_interval: Some(duration(FAILURE.0)),
        max_interval: Some(duration(FAILURE.1)),
    });
    cluster.dns_jitter = Some(duration(JITTER));
    cluster.load_assignment = Some(assignment(&cluster.name, external));
}

fn assignment(cluster: &str, external: &ExternalPort) -> ClusterLoadAssignment {
    let address = Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: external.host.name.clone(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(external.port.into())),
            ..SocketAddress::default()
        })),
    };
    let endpoint = Endpoint { address: Some(address), ..Endpoint::default() };
    let weight = Some(UInt32Value { value: 1 });
    let lb_endpoint = LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        load_balancing_weight: weight,
        ..LbEndpoint::default()
    };
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![lb_endpoint],
            // Where localities are weighted, one without a weight gets nothing.
            load_balancing_weight: weight,
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}
