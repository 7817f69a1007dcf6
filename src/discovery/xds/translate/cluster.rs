//! Clusters.

use std::sync::Arc;
use std::time::Duration;

use pillion_wire::xds::cluster as pb;
use pillion_wire::xds::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
use pillion_wire::xds::type_url;
use pillion_wire::xds::upstream_http::HttpProtocolOptions;
use pillion_wire::xds::upstream_http::http_protocol_options::UpstreamProtocolOptions;
use pillion_wire::xds::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;

use super::at::{At, Reason, Refusal, duration, from_ads, pass_over, refuse, same_name, unpack};
use super::{balancing, dns, resilience, tls, treatment};
use crate::config::{Cluster, Dns, UpstreamProtocol};

/// Envoy's default of `Cluster.connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster whose hosts come over EDS, or are found by name.
pub(super) fn cluster(at: &At<'_>, name: &str, mut cluster: pb::Cluster) -> Result<Cluster, Refusal> {
    refuse_extras(at, &cluster)?;
    let lb = balancing::balancing(at, &cluster)?;
    let retry_budget = treatment::budget(at, cluster.circuit_breakers.as_ref(), cluster.metadata.as_ref())?;
    let name = same_name(&at.field("name"), name, std::mem::take(&mut cluster.name))?;
    let (dns, eds) = match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) if *kind == DiscoveryType::Eds as i32 => {
            refuse!(at, cluster; load_assignment);
            (None, eds(at, &name, cluster.eds_cluster_config.take())?)
        }
        _ => {
            let dns = dns::dns(at, &mut cluster)?;
            let key = dns.key();
            (Some(Arc::new(dns)), key)
        }
    };
    if let Some(socket) = cluster.transport_socket {
        tls::plaintext(&at.field("transport_socket"), socket)?;
    }
    let timeout = &at.field("connect_timeout");
    let connect_timeout = match cluster.connect_timeout {
        Some(given) => duration(timeout, given)?,
        None => CONNECT_TIMEOUT,
    };
    if connect_timeout.is_zero() {
        return Err(timeout.invalid("has to be longer than 0"));
    }
    let (mut protocol, mut idle) = (UpstreamProtocol::Http1, None);
    let options = &at.field("typed_extension_protocol_options");
    for (key, any) in cluster.typed_extension_protocol_options {
        if key != type_url::HTTP_PROTOCOL_OPTIONS_KEY {
            return Err(options.refuse(Reason::Unsupported));
        }
        let told: HttpProtocolOptions = unpack(options, type_url::HTTP_PROTOCOL_OPTIONS, &any)?;
        idle = idle_timeout(&options.field("common_http_protocol_options"), &told)?;
        protocol = upstream_protocol(options, told)?;
    }
    let metadata = cluster.metadata.as_ref();
    let resilience = resilience::resilience(at, cluster.circuit_breakers, cluster.outlier_detection, metadata)?;
    Ok(Cluster { name, endpoints: eds, connect_timeout, lb, protocol, resilience, retry_budget, idle, dns })
}

/// Under which name the endpoints are asked for.
fn eds(at: &At<'_>, name: &str, config: Option<pb::cluster::EdsClusterConfig>) -> Result<String, Refusal> {
    let at = &at.field("eds_cluster_config");
    let source = at.required(config)?;
    from_ads(&at.field("eds_config"), source.eds_config.as_ref())?;
    let endpoints = if source.service_name.is_empty() { name.to_owned() } else { source.service_name };
    match Dns::is_key(&endpoints) {
        true => Err(at.field("service_name").invalid("begins as only names of our own do")),
        false => Ok(endpoints),
    }
}

fn refuse_extras(at: &At<'_>, cluster: &pb::Cluster) -> Result<(), Refusal> {
    refuse!(at, cluster;
        transport_socket_matches, transport_socket_matcher, health_checks,
        max_requests_per_connection, upstream_http_protocol_options, common_http_protocol_options,
        http_protocol_options, http2_protocol_options, upstream_bind_config, lb_subset_config,
        protocol_selection, filters, upstream_config, preconnect_policy, connection_pool_per_downstream_connection,
        queuing_policies);
    pass_over!(at, cluster;
        alt_stat_name, stats_matcher, per_connection_buffer_limit_bytes, wait_for_warm_on_init,
        cleanup_interval, upstream_connection_options, close_connections_on_host_health_failure,
        ignore_health_on_host_removal, lrs_server, lrs_report_endpoint_metrics, track_cluster_stats);
    Ok(())
}

/// How long a connection may rest. 0 means for ever (Envoy), which we do not do.
fn idle_timeout(at: &At<'_>, options: &HttpProtocolOptions) -> Result<Option<Duration>, Refusal> {
    let Some(common) = &options.common_http_protocol_options else { return Ok(None) };
    refuse!(at, common;
        max_connection_duration, max_headers_count, max_response_headers_kb, max_stream_duration,
        headers_with_underscores_action, max_requests_per_connection);
    let at = &at.field("idle_timeout");
    let idle = common.idle_timeout.map(|given| duration(at, given)).transpose()?;
    if idle.is_some_and(|idle| idle.is_zero()) {
        return Err(at.refuse(Reason::Unsupported));
    }
    Ok(idle)
}

fn upstream_protocol(at: &At<'_>, options: HttpProtocolOptions) -> Result<UpstreamProtocol, Refusal> {
    refuse!(at, options;
        http_filters, outlier_detection, request_mirror_policies, hash_policy,
        retry_policy);
    pass_over!(at, options; upstream_http_protocol_options, header_validation_config);
    match at.field("upstream_protocol_options").required(options.upstream_protocol_options)? {
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(_) => Ok(UpstreamProtocol::Downstream),
        UpstreamProtocolOptions::AutoConfig(_) => Err(at.field("auto_config").refuse(Reason::Unsupported)),
        UpstreamProtocolOptions::ExplicitHttpConfig(explicit) => {
            let at = &at.field("explicit_http_config");
            match at.required(explicit.protocol_config)? {
                ProtocolConfig::HttpProtocolOptions(_) => Ok(UpstreamProtocol::Http1),
                ProtocolConfig::Http2ProtocolOptions(_) => Ok(UpstreamProtocol::Http2),
                ProtocolConfig::Http3ProtocolOptions(_) => Err(at.refuse(Reason::Unsupported)),
            }
        }
    }
}
