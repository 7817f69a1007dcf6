//! Route configurations.

use std::collections::HashSet;
use std::num::NonZeroU32;

use http::StatusCode;
use pillion_wire::xds::core::data_source;
use pillion_wire::xds::route as pb;
use pillion_wire::xds::route::route::Action as PbAction;
use pillion_wire::xds::route::route_action::ClusterSpecifier;

use super::at::{At, Reason, Refusal, pass_over, refuse, same_name};
use super::{matching, treatment};
use crate::config::{Action, Route, RouteConfig, Split, Treatment, VirtualHost, WeightedCluster};

/// A configuration that was asked for by name.
pub(super) fn named(at: &At<'_>, name: &str, config: pb::RouteConfiguration) -> Result<RouteConfig, Refusal> {
    same_name(&at.field("name"), name, config.name.clone())?;
    configuration(at, config)
}

/// A configuration, named or inline.
pub(super) fn configuration(at: &At<'_>, config: pb::RouteConfiguration) -> Result<RouteConfig, Refusal> {
    refuse!(at, config;
        vhds, internal_only_headers, response_headers_to_add, response_headers_to_remove, request_headers_to_add,
        request_headers_to_remove, cluster_specifier_plugins, request_mirror_policies, vhost_header,
        ignore_path_parameters_in_path_matching, typed_per_filter_config);
    pass_over!(at, config;
        most_specific_header_mutations_wins, validate_clusters, max_direct_response_body_size_bytes,
        ignore_port_in_host_matching, metadata);
    let hosts = &at.field("virtual_hosts");
    let mut domains = HashSet::new();
    let mut virtual_hosts = Vec::with_capacity(config.virtual_hosts.len());
    for (index, host) in config.virtual_hosts.into_iter().enumerate() {
        let at = &hosts.index(index);
        let host = virtual_host(at, host)?;
        for (index, domain) in host.domains.iter().enumerate() {
            if !domains.insert(domain.clone()) {
                return Err(at.field("domains").index(index).invalid("stands in the configuration twice"));
            }
        }
        virtual_hosts.push(host);
    }
    Ok(RouteConfig { name: config.name, virtual_hosts })
}

fn virtual_host(at: &At<'_>, host: pb::VirtualHost) -> Result<VirtualHost, Refusal> {
    refuse!(at, host;
        matcher, require_tls, rate_limits, request_headers_to_add, request_headers_to_remove, cors,
        response_headers_to_add, response_headers_to_remove, typed_per_filter_config,
        retry_policy_typed_config, hedge_policy, request_mirror_policies, include_request_attempt_count,
        include_attempt_count_in_response, per_request_buffer_limit_bytes, request_body_buffer_limit);
    pass_over!(at, host; virtual_clusters, include_is_timeout_retry_header, metadata);
    let names = &at.field("domains");
    let mut domains = Vec::with_capacity(host.domains.len());
    for (index, domain) in host.domains.into_iter().enumerate() {
        domains.push(domain_pattern(&names.index(index), &domain)?);
    }
    if domains.is_empty() {
        return Err(names.refuse(Reason::Missing));
    }
    let retries = match &host.retry_policy {
        Some(policy) => treatment::retries(&at.field("retry_policy"), policy)?,
        None => treatment::Retries::default(),
    };
    let places = &at.field("routes");
    let mut routes = Vec::with_capacity(host.routes.len());
    for (index, entry) in host.routes.into_iter().enumerate() {
        routes.push(route(&places.index(index), entry, &retries)?);
    }
    Ok(VirtualHost { name: host.name, domains, routes })
}

/// `*` stands alone, first or last (Envoy `VirtualHost.domains`).
fn domain_pattern(at: &At<'_>, domain: &str) -> Result<String, Refusal> {
    let inner = domain.strip_prefix('*').or_else(|| domain.strip_suffix('*')).unwrap_or(domain);
    if domain.is_empty() || inner.contains('*') {
        return Err(at.invalid("is no domain, with \"*\" alone, in front or at the end"));
    }
    Ok(domain.to_ascii_lowercase())
}

fn route(at: &At<'_>, route: pb::Route, retries: &treatment::Retries) -> Result<Route, Refusal> {
    refuse!(at, route;
        typed_per_filter_config, request_headers_to_add, request_headers_to_remove, response_headers_to_add,
        response_headers_to_remove);
    pass_over!(at, route; decorator, tracing, stat_prefix);
    let mut treatment = Treatment::default();
    let rule = &at.field("match");
    let matches = matching::rule(rule, rule.required(route.r#match)?)?;
    let action = match at.field("action").required(route.action)? {
        PbAction::Route(action) => {
            let at = &at.field("route");
            treatment = treatment::treatment(at, &action, retries)?;
            Action::Forward(forward(at, action)?)
        }
        PbAction::DirectResponse(action) => direct_response(&at.field("direct_response"), action)?,
        PbAction::Redirect(_) => return Err(at.field("redirect").refuse(Reason::Unsupported)),
        PbAction::FilterAction(_) => return Err(at.field("filter_action").refuse(Reason::Unsupported)),
        PbAction::NonForwardingAction(_) => return Err(at.field("non_forwarding_action").refuse(Reason::Unsupported)),
    };
    treatment.detached = treatment::detached(&at.field("metadata"), route.metadata.as_ref())?;
    #[expect(deprecated, reason = "Envoy's older field of the same meaning")]
    let older = route.per_request_buffer_limit_bytes.map(|limit| u64::from(limit.value));
    let limit = route.request_body_buffer_limit.map(|limit| limit.value).or(older);
    if let (Some(retry), Some(limit)) = (&mut treatment.retry, limit) {
        retry.body_limit = usize::try_from(limit).unwrap_or(usize::MAX);
    }
    Ok(Route { name: route.name, matches, action, treatment })
}

fn direct_response(at: &At<'_>, response: pb::DirectResponseAction) -> Result<Action, Refusal> {
    refuse!(at, response; body_format);
    let status = u16::try_from(response.status).ok().filter(|status| (200..600).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.ok_or_else(|| at.field("status").invalid("is no final HTTP status"))?;
    let at = &at.field("body");
    let body = match response.body.and_then(|body| body.specifier) {
        None => String::new(),
        Some(data_source::Specifier::InlineString(text)) => text,
        Some(data_source::Specifier::InlineBytes(bytes)) => {
            String::from_utf8(bytes).map_err(|_cause| at.field("inline_bytes").invalid("is not UTF-8"))?
        }
        Some(_) => return Err(at.refuse(Reason::Unsupported)),
    };
    Ok(Action::DirectResponse { status, body })
}

fn forward(at: &At<'_>, action: pb::RouteAction) -> Result<Split, Refusal> {
    refuse!(at, action;
        metadata_match, prefix_rewrite, regex_rewrite, path_rewrite_policy, path_rewrite, append_x_forwarded_host,
        flush_timeout, early_data_policy, retry_policy_typed_config,
        request_mirror_policies, rate_limits, include_vh_rate_limits, hash_policy, cors, max_grpc_timeout,
        grpc_timeout_offset, internal_redirect_policy, internal_redirect_action, hedge_policy,
        host_rewrite_specifier);
    pass_over!(at, action; cluster_not_found_response_code, priority, upgrade_configs);
    match at.field("cluster").required(action.cluster_specifier)? {
        ClusterSpecifier::Cluster(name) => Ok(Split::one(&at.field("cluster").filled(name)?)),
        ClusterSpecifier::WeightedClusters(weighted) => weighted_clusters(&at.field("weighted_clusters"), weighted),
        ClusterSpecifier::ClusterHeader(_) => Err(at.field("cluster_header").refuse(Reason::Unsupported)),
        _ => Err(at.field("cluster_specifier_plugin").refuse(Reason::Unsupported)),
    }
}

fn weighted_clusters(at: &At<'_>, weighted: pb::WeightedCluster) -> Result<Split, Refusal> {
    refuse!(at, weighted; random_value_specifier);
    pass_over!(at, weighted; runtime_key_prefix);
    let places = &at.field("clusters");
    let mut clusters = Vec::with_capacity(weighted.clusters.len());
    for (index, cluster) in weighted.clusters.into_iter().enumerate() {
        let at = &places.index(index);
        refuse!(at, cluster;
            cluster_header, metadata_match, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, typed_per_filter_config, host_rewrite_specifier);
        let weight = cluster.weight.map_or(0, |weight| weight.value);
        clusters.push((at.field("name").filled(cluster.name)?, weight));
    }
    split(places, clusters)
}

/// Clusters with their weights, without those that get nothing.
pub(super) fn split(at: &At<'_>, clusters: Vec<(String, u32)>) -> Result<Split, Refusal> {
    let total: u64 = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if total == 0 || total > u64::from(u32::MAX) {
        return Err(at.invalid("have weights that add up to 0, or to more than 4294967295"));
    }
    let weighed = |(name, weight)| NonZeroU32::new(weight).map(|weight| WeightedCluster { name, weight });
    Ok(Split { clusters: clusters.into_iter().filter_map(weighed).collect() })
}
