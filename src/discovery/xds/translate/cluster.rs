//! Clusters.

use std::sync::Arc;

use pillion_wire::xds::cluster as pb;
use pillion_wire::xds::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
use pillion_wire::xds::type_url;
use pillion_wire::xds::upstream_http::HttpProtocolOptions;
use pillion_wire::xds::upstream_http::http_protocol_options::UpstreamProtocolOptions;
use pillion_wire::xds::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;

use super::at::{At, Reason, Refusal, duration, from_ads, pass_over, refuse, same_name, unpack};
use super::{balancing, dns, health, resilience, subsets, tls, treatment};
use crate::config::{Age, CONNECT_TIMEOUT, Cluster, Dns, Keep, UpstreamProtocol};

/// A cluster whose hosts come over EDS, or are found by name.
pub(super) fn cluster(at: &At<'_>, name: &str, mut cluster: pb::Cluster) -> Result<Cluster, Refusal> {
    refuse_extras(at, &cluster)?;
    let lb = balancing::balancing(at, &cluster)?;
    let subsets = subsets::subsets(&at.field("lb_subset_config"), cluster.lb_subset_config.as_ref())?;
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
    let (mut protocol, mut keep) = (UpstreamProtocol::Http1, Keep::default());
    let options = &at.field("typed_extension_protocol_options");
    for (key, any) in cluster.typed_extension_protocol_options {
        if key != type_url::HTTP_PROTOCOL_OPTIONS_KEY {
            return Err(options.refuse(Reason::Unsupported));
        }
        let told: HttpProtocolOptions = unpack(options, type_url::HTTP_PROTOCOL_OPTIONS, &any)?;
        if let Some(common) = &told.common_http_protocol_options {
            keep = kept(&options.field("common_http_protocol_options"), common)?;
        }
        protocol = upstream_protocol(options, told)?;
    }
    let metadata = cluster.metadata.as_ref();
    let health = health::health(at, cluster.health_checks, metadata)?;
    if health.is_some() {
        refuse!(at, cluster; close_connections_on_host_health_failure);
        health::beside(at, cluster.outlier_detection.as_ref())?;
    }
    let resilience = resilience::resilience(at, cluster.circuit_breakers, cluster.outlier_detection, metadata)?;
    Ok(Cluster {
        name,
        endpoints: eds,
        connect_timeout,
        lb,
        subsets,
        protocol,
        resilience,
        health,
        retry_budget,
        keep,
        dns,
    })
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
        transport_socket_matches, transport_socket_matcher,
        max_requests_per_connection, upstream_http_protocol_options, common_http_protocol_options,
        http_protocol_options, http2_protocol_options, upstream_bind_config,
        protocol_selection, filters, upstream_config, preconnect_policy, connection_pool_per_downstream_connection,
        queuing_policies);
    pass_over!(at, cluster;
        alt_stat_name, stats_matcher, per_connection_buffer_limit_bytes, wait_for_warm_on_init,
        cleanup_interval, upstream_connection_options, close_connections_on_host_health_failure,
        ignore_health_on_host_removal, lrs_server, lrs_report_endpoint_metrics, track_cluster_stats);
    Ok(())
}

/// How long connections are kept. No time at all, which for resting means for ever (Envoy), we do not do.
fn kept(at: &At<'_>, common: &pillion_wire::xds::core::HttpProtocolOptions) -> Result<Keep, Refusal> {
    refuse!(at, common;
        max_headers_count, max_response_headers_kb, max_stream_duration, headers_with_underscores_action,
        max_requests_per_connection);
    let at_idle = &at.field("idle_timeout");
    let rest = common.idle_timeout.map(|given| duration(at_idle, given)).transpose()?;
    if rest.is_some_and(|rest| rest.is_zero()) {
        return Err(at_idle.refuse(Reason::Unsupported));
    }
    Ok(Keep { rest, age: age(at, common)? })
}

/// How old connections become.
pub(super) fn age(at: &At<'_>, common: &pillion_wire::xds::core::HttpProtocolOptions) -> Result<Option<Age>, Refusal> {
    let Some(given) = common.max_connection_duration else { return Ok(None) };
    let at_age = &at.field("max_connection_duration");
    let limit = duration(at_age, given)?;
    if limit.is_zero() {
        return Err(at_age.invalid("has to be longer than 0"));
    }
    let jitter = common.max_connection_duration_jitter.map_or(0.0, |percent| percent.value);
    if !(0.0..=100.0).contains(&jitter) {
        return Err(at.field("max_connection_duration_jitter").invalid("has to be 0 to 100"));
    }
    Ok(Some(Age { limit, jitter: jitter.round() as u8 }))
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
