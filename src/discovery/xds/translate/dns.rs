//! Clusters whose hosts are found by name: `STRICT_DNS`, `LOGICAL_DNS`, `envoy.clusters.dns`.

use std::net::IpAddr;
use std::time::Duration;

use pillion_wire::xds::cares_resolver::CaresDnsResolverConfig;
use pillion_wire::xds::cluster as pb;
use pillion_wire::xds::cluster::cluster::{
    ClusterDiscoveryType, CustomClusterType, DiscoveryType, DnsLookupFamily as OldFamily,
};
use pillion_wire::xds::common_dns::DnsLookupFamily;
use pillion_wire::xds::core::{SocketAddress, TypedExtensionConfig, address, socket_address};
use pillion_wire::xds::dns_cluster::DnsCluster;
use pillion_wire::xds::endpoint::LbEndpoint;
use pillion_wire::xds::endpoint::lb_endpoint::HostIdentifier;
use pillion_wire::xds::{Duration as PbDuration, type_url};

use super::at::{At, Reason, Refusal, duration, pass_over, port_number, refuse, unpack};
use super::endpoints::{Said, localities, overprovisioning, said};
use crate::config::{Dns, DnsEndpoint, DnsHost, DnsKind, LookupFamily};

/// Envoy's default of `dns_refresh_rate`.
const REFRESH: Duration = Duration::from_secs(5);
/// Envoy's least refresh rate.
const LEAST_REFRESH: Duration = Duration::from_millis(1);
/// Envoy: `max_interval` is ten times `base_interval` unless it is said.
const FAILURE_FACTOR: u32 = 10;
/// Waits are not longer than this: what comes after it is never.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The longest name (RFC 1035, section 2.3.4).
const LONGEST_NAME: usize = 253;

/// How names are asked for, wherever that is said.
struct Rates {
    family: LookupFamily,
    refresh: Option<PbDuration>,
    failure: Option<(Option<PbDuration>, Option<PbDuration>)>,
    jitter: Option<PbDuration>,
    respect_ttl: bool,
}

/// The names of a cluster, and how they are asked for. Takes out of it what it has read.
pub(super) fn dns(at: &At<'_>, cluster: &mut pb::Cluster) -> Result<Dns, Refusal> {
    match cluster.cluster_discovery_type.take() {
        Some(ClusterDiscoveryType::Type(given)) => {
            let kind = match DiscoveryType::try_from(given) {
                Ok(DiscoveryType::StrictDns) => DnsKind::Strict,
                Ok(DiscoveryType::LogicalDns) => DnsKind::Logical,
                _ => return Err(at.field("type").refuse(Reason::Unsupported)),
            };
            let rates = of_cluster(at, cluster)?;
            finish(at, at, cluster, kind, rates)
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            let custom_at = &at.field("cluster_type");
            let config_at = &custom_at.field("typed_config");
            let (kind, rates) = of_extension(config_at, custom)?;
            finish(at, config_at, cluster, kind, rates)
        }
        None => Err(at.field("type").refuse(Reason::Unsupported)),
    }
}

/// What both ways to say it have in common.
fn finish(
    at: &At<'_>,
    rates_at: &At<'_>,
    cluster: &mut pb::Cluster,
    kind: DnsKind,
    rates: Rates,
) -> Result<Dns, Refusal> {
    refuse!(at, cluster; eds_cluster_config);
    let refresh = wait(&rates_at.field("dns_refresh_rate"), rates.refresh, LEAST_REFRESH)?.unwrap_or(REFRESH);
    let failure = match rates.failure {
        None => (refresh, refresh.saturating_mul(FAILURE_FACTOR)),
        Some((base, max)) => {
            let at = &rates_at.field("dns_failure_refresh_rate");
            let base_at = &at.field("base_interval");
            let base = base_at.required(wait(base_at, base, LEAST_REFRESH)?)?;
            let max_at = &at.field("max_interval");
            let max = wait(max_at, max, LEAST_REFRESH)?.unwrap_or_else(|| base.saturating_mul(FAILURE_FACTOR));
            if max < base {
                return Err(max_at.invalid("is less than base_interval"));
            }
            (base, max)
        }
    };
    let jitter = wait(&rates_at.field("dns_jitter"), rates.jitter, Duration::ZERO)?.unwrap_or_default();
    let at = &at.field("load_assignment");
    let mut assignment = at.required(cluster.load_assignment.take())?;
    let overprovisioning = overprovisioning(at, assignment.policy.take())?;
    refuse!(at, assignment; named_endpoints);
    let localities = localities(at, assignment.endpoints, endpoint)?;
    let names = || localities.iter().flat_map(|locality| &locality.endpoints);
    if kind == DnsKind::Logical && (localities.len() != 1 || names().count() != 1) {
        return Err(at.field("endpoints").invalid("has to be one locality with one endpoint: LOGICAL_DNS is one host"));
    }
    let Rates { family, respect_ttl, .. } = rates;
    Ok(Dns { kind, family, refresh, failure, respect_ttl, jitter, localities, overprovisioning })
}

#[allow(deprecated, reason = "deprecated fields are refused, not used")]
fn of_cluster(at: &At<'_>, cluster: &pb::Cluster) -> Result<Rates, Refusal> {
    refuse!(at, cluster; dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config);
    resolver(&at.field("typed_dns_resolver_config"), cluster.typed_dns_resolver_config.as_ref())?;
    let family = match OldFamily::try_from(cluster.dns_lookup_family) {
        Ok(OldFamily::Auto) => LookupFamily::Auto,
        Ok(OldFamily::V4Only) => LookupFamily::V4Only,
        Ok(OldFamily::V6Only) => LookupFamily::V6Only,
        Ok(OldFamily::V4Preferred) => LookupFamily::V4Preferred,
        Ok(OldFamily::All) => LookupFamily::All,
        Err(_) => return Err(at.field("dns_lookup_family").refuse(Reason::Unsupported)),
    };
    Ok(Rates {
        family,
        refresh: cluster.dns_refresh_rate,
        failure: cluster.dns_failure_refresh_rate.map(|rate| (rate.base_interval, rate.max_interval)),
        jitter: cluster.dns_jitter,
        respect_ttl: cluster.respect_dns_ttl,
    })
}

/// `envoy.clusters.dns`, which says by a field of its own whether all addresses are one host.
fn of_extension(at: &At<'_>, custom: CustomClusterType) -> Result<(DnsKind, Rates), Refusal> {
    let any = at.required(custom.typed_config)?;
    if any.type_url != type_url::DNS_CLUSTER {
        return Err(at.refuse(Reason::Unsupported));
    }
    let told: DnsCluster = unpack(at, type_url::DNS_CLUSTER, &any)?;
    refuse!(at, told; dns_min_refresh_rate);
    resolver(&at.field("typed_dns_resolver_config"), told.typed_dns_resolver_config.as_ref())?;
    let family = match DnsLookupFamily::try_from(told.dns_lookup_family) {
        Ok(DnsLookupFamily::Unspecified | DnsLookupFamily::Auto) => LookupFamily::Auto,
        Ok(DnsLookupFamily::V4Only) => LookupFamily::V4Only,
        Ok(DnsLookupFamily::V6Only) => LookupFamily::V6Only,
        Ok(DnsLookupFamily::V4Preferred) => LookupFamily::V4Preferred,
        Ok(DnsLookupFamily::All) => LookupFamily::All,
        Err(_) => return Err(at.field("dns_lookup_family").refuse(Reason::Unsupported)),
    };
    let kind = if told.all_addresses_in_single_endpoint { DnsKind::Logical } else { DnsKind::Strict };
    let rates = Rates {
        family,
        refresh: told.dns_refresh_rate,
        failure: told.dns_failure_refresh_rate.map(|rate| (rate.base_interval, rate.max_interval)),
        jitter: told.dns_jitter,
        respect_ttl: told.respect_dns_ttl,
    };
    Ok((kind, rates))
}

/// Whom to ask is ours to know; how a resolver goes about it is passed over. istiod says that of every cluster.
fn resolver(at: &At<'_>, given: Option<&TypedExtensionConfig>) -> Result<(), Refusal> {
    let Some(given) = given else { return Ok(()) };
    let config_at = &at.field("typed_config");
    match &given.typed_config {
        Some(any) if any.type_url == type_url::CARES_RESOLVER => {
            let cares: CaresDnsResolverConfig = unpack(config_at, type_url::CARES_RESOLVER, any)?;
            refuse!(config_at, cares; resolvers);
            if let Some(options) = &cares.dns_resolver_options {
                refuse!(config_at.field("dns_resolver_options"), options; use_tcp_for_dns_lookups);
            }
        }
        Some(any) if [type_url::GETADDRINFO_RESOLVER, type_url::APPLE_RESOLVER].contains(&any.type_url.as_str()) => {}
        _ => return Err(at.refuse(Reason::Unsupported)),
    }
    at.passed_over();
    Ok(())
}

/// At least `least`, and at most a year.
fn wait(at: &At<'_>, given: Option<PbDuration>, least: Duration) -> Result<Option<Duration>, Refusal> {
    let Some(given) = given else { return Ok(None) };
    let given = duration(at, given)?;
    if given < least {
        return Err(at.invalid("has to be at least 1 ms"));
    }
    Ok(Some(given.min(LONGEST)))
}

fn endpoint(at: &At<'_>, given: LbEndpoint) -> Result<DnsEndpoint, Refusal> {
    let Said { weight, health, mesh, labels } = said(at, &given)?;
    if mesh.is_some() {
        // Who stands behind a name that others answer for has no identity of the mesh.
        return Err(at.field("metadata").refuse(Reason::Unsupported));
    }
    let at = &at.field("endpoint");
    let Some(HostIdentifier::Endpoint(endpoint)) = given.host_identifier else {
        return Err(at.refuse(Reason::Missing));
    };
    refuse!(at, endpoint; additional_addresses);
    pass_over!(at, endpoint; hostname, health_check_config, observability_name);
    let at = &at.field("address");
    let Some(address::Address::SocketAddress(socket)) = at.required(endpoint.address)?.address else {
        return Err(at.refuse(Reason::Unsupported));
    };
    let at = &at.field("socket_address");
    refuse!(at, socket; protocol, resolver_name, network_namespace_filepath);
    pass_over!(at, socket; ipv4_compat);
    let SocketAddress { address, port_specifier, .. } = socket;
    let port_at = &at.field("port_value");
    let port = match port_at.required(port_specifier)? {
        socket_address::PortSpecifier::PortValue(port) => port_number(port_at, port)?,
        socket_address::PortSpecifier::NamedPort(_) => return Err(at.field("named_port").refuse(Reason::Unsupported)),
    };
    Ok(DnsEndpoint { host: host(&at.field("address"), &address)?, port, weight, health, labels })
}

fn host(at: &At<'_>, text: &str) -> Result<DnsHost, Refusal> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(DnsHost::Address(address));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    // Underscores are in names that DNS serves, whatever host names may be made of.
    let is_label = |label: &str| {
        let all = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        all && !label.is_empty() && label.len() <= 63
    };
    if name.len() > LONGEST_NAME || !name.split('.').all(is_label) {
        return Err(at.invalid("is neither an IP address nor a name"));
    }
    Ok(DnsHost::Name(name.to_ascii_lowercase().into()))
}
