//! Route configurations.

use std::collections::HashSet;
use std::num::NonZeroU32;

use http::{HeaderValue, StatusCode};
use pillion_wire::resilience::Fallback;
use pillion_wire::xds::core::data_source;
use pillion_wire::xds::route::route::Action as PbAction;
use pillion_wire::xds::route::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use pillion_wire::xds::route::weighted_cluster::RandomValueSpecifier as Random;
use pillion_wire::xds::route::{self as pb, weighted_cluster};

use super::at::{At, Reason, Refusal, origins, pass_over, refuse, same_name};
use super::changes::header_changes;
use super::{changes, filters, hash, matching, session, subsets, treatment};
use crate::config::{
    Action, HeaderChanges, Lasts, Override, Route, RouteConfig, RouteFilters, Split, Treatment, VirtualHost,
    WeightedCluster,
};

/// A configuration that was asked for by name.
pub(super) fn named(at: &At<'_>, name: &str, config: pb::RouteConfiguration) -> Result<RouteConfig, Refusal> {
    same_name(&at.field("name"), name, config.name.clone())?;
    configuration(at, config)
}

/// A configuration, named or inline.
pub(super) fn configuration(at: &At<'_>, mut config: pb::RouteConfiguration) -> Result<RouteConfig, Refusal> {
    refuse!(at, config;
        vhds, internal_only_headers, cluster_specifier_plugins, request_mirror_policies, vhost_header,
        ignore_path_parameters_in_path_matching);
    pass_over!(at, config;
        validate_clusters, max_direct_response_body_size_bytes,
        ignore_port_in_host_matching, metadata);
    let own = header_changes!(at, config)?;
    let per_filter = &at.field("typed_per_filter_config");
    let around = Around {
        headers: &[&own],
        specific_wins: config.most_specific_header_mutations_wins,
        overrides: filters::overrides(per_filter, config.typed_per_filter_config, &[])?,
        retries: treatment::Retries::default(),
    };
    let hosts = &at.field("virtual_hosts");
    let mut domains = HashSet::new();
    let mut virtual_hosts = Vec::with_capacity(config.virtual_hosts.len());
    for (index, host) in config.virtual_hosts.into_iter().enumerate() {
        let at = &hosts.index(index);
        let host = virtual_host(at, host, &around)?;
        for (index, domain) in host.domains.iter().enumerate() {
            if !domains.insert(domain.clone()) {
                return Err(at.field("domains").index(index).invalid("stands in the configuration twice"));
            }
        }
        virtual_hosts.push(host);
    }
    Ok(RouteConfig { name: config.name, virtual_hosts })
}

/// What a route stands in.
struct Around<'a> {
    /// From the most general to the most specific.
    headers: &'a [&'a HeaderChanges],
    specific_wins: bool,
    overrides: Vec<(String, Override)>,
    retries: treatment::Retries,
}

fn virtual_host(at: &At<'_>, mut host: pb::VirtualHost, around: &Around<'_>) -> Result<VirtualHost, Refusal> {
    refuse!(at, host;
        matcher, require_tls, rate_limits, cors, retry_policy_typed_config, hedge_policy, request_mirror_policies, include_request_attempt_count,
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
    let own = header_changes!(at, host)?;
    let headers: Vec<&HeaderChanges> = around.headers.iter().copied().chain([&own]).collect();
    let per_filter = &at.field("typed_per_filter_config");
    let retries = match &host.retry_policy {
        Some(policy) => treatment::retries(&at.field("retry_policy"), policy)?,
        None => treatment::Retries::default(),
    };
    let around = Around {
        headers: &headers,
        specific_wins: around.specific_wins,
        overrides: filters::overrides(per_filter, host.typed_per_filter_config, &around.overrides)?,
        retries,
    };
    let places = &at.field("routes");
    let mut routes = Vec::with_capacity(host.routes.len());
    for (index, entry) in host.routes.into_iter().enumerate() {
        routes.push(route(&places.index(index), entry, &around)?);
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

fn route(at: &At<'_>, mut route: pb::Route, around: &Around<'_>) -> Result<Route, Refusal> {
    pass_over!(at, route; decorator, tracing, stat_prefix);
    let fallback = route.metadata.as_ref().map(Fallback::from_metadata).transpose();
    let fallback = fallback.map_err(|error| at.field("metadata").refuse(error))?.flatten();
    let mut treatment = Treatment::default();
    let rule = &at.field("match");
    let matches = matching::rule(rule, rule.required(route.r#match.take())?)?;
    let own = header_changes!(at, route)?;
    let headers: Vec<&HeaderChanges> = around.headers.iter().copied().chain([&own]).collect();
    let per_filter = &at.field("typed_per_filter_config");
    let mut filters = RouteFilters {
        overrides: filters::overrides(per_filter, route.typed_per_filter_config, &around.overrides)?,
        ..RouteFilters::default()
    };
    session::limit(&at.field("metadata"), route.metadata.as_ref(), &mut filters.overrides)?;
    let action = match at.field("action").required(route.action)? {
        PbAction::Route(mut action) => {
            let at = &at.field("route");
            let (prefix, regex) = (std::mem::take(&mut action.prefix_rewrite), action.regex_rewrite.take());
            filters.path = changes::path_rewrite(at, prefix, regex, &matches.path)?;
            let mirrors = std::mem::take(&mut action.request_mirror_policies);
            filters.mirrors = changes::mirrors(&at.field("request_mirror_policies"), mirrors)?;
            treatment = treatment::treatment(at, &action, &around.retries)?;
            Action::Forward(forward(at, action, &headers, around.specific_wins)?)
        }
        PbAction::DirectResponse(action) => direct_response(&at.field("direct_response"), action)?,
        PbAction::Redirect(action) => {
            Action::Redirect(changes::redirect(&at.field("redirect"), action, &matches.path)?)
        }
        PbAction::FilterAction(_) => return Err(at.field("filter_action").refuse(Reason::Unsupported)),
        PbAction::NonForwardingAction(_) => return Err(at.field("non_forwarding_action").refuse(Reason::Unsupported)),
    };
    if !matches!(action, Action::Forward(_)) {
        filters.answers = changes::joined(HeaderChanges::default(), &headers, around.specific_wins).response;
    }
    treatment.detached = treatment::detached(&at.field("metadata"), route.metadata.as_ref())?;
    #[expect(deprecated, reason = "Envoy's older field of the same meaning")]
    let older = route.per_request_buffer_limit_bytes.map(|limit| u64::from(limit.value));
    let limit = route.request_body_buffer_limit.map(|limit| limit.value).or(older);
    if let (Some(retry), Some(limit)) = (&mut treatment.retry, limit) {
        retry.body_limit = usize::try_from(limit).unwrap_or(usize::MAX);
    }
    let origins = origins(at, route.metadata.as_ref())?;
    Ok(Route { origins, name: route.name, matches, action, filters, fallback, treatment })
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

/// The clusters, each with all changes of heads that concern its requests.
fn forward(
    at: &At<'_>,
    action: pb::RouteAction,
    headers: &[&HeaderChanges],
    specific_wins: bool,
) -> Result<Split, Refusal> {
    refuse!(at, action;
        path_rewrite_policy, path_rewrite, append_x_forwarded_host,
        flush_timeout, early_data_policy, retry_policy_typed_config,
        rate_limits, include_vh_rate_limits, cors, max_grpc_timeout,
        grpc_timeout_offset, internal_redirect_policy, internal_redirect_action, hedge_policy);
    pass_over!(at, action; cluster_not_found_response_code, priority, upgrade_configs);
    let rewritten = match action.host_rewrite_specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            Some(changes::authority(&at.field("host_rewrite_literal"), &host)?)
        }
        Some(_) => return Err(at.field("host_rewrite_specifier").refuse(Reason::Unsupported)),
    };
    let criteria = action.metadata_match.as_ref().map(subsets::labels).unwrap_or_default();
    let hash = hash::of_requests(&at.field("hash_policy"), action.hash_policy)?;
    let mut split = match at.field("cluster").required(action.cluster_specifier)? {
        ClusterSpecifier::Cluster(name) => Split::one(&at.field("cluster").filled(name)?),
        ClusterSpecifier::WeightedClusters(weighted) => {
            let at = &at.field("weighted_clusters");
            let split = weighted_clusters(at, weighted, rewritten.as_ref(), headers, specific_wins)?;
            let mut split = Split { hash, ..split };
            for cluster in &mut split.clusters {
                let own = std::mem::replace(&mut cluster.criteria, criteria.clone());
                cluster.criteria.extend(own); // As in Envoy: what is said of the cluster goes before what is said of the route.
            }
            return Ok(split);
        }
        ClusterSpecifier::ClusterHeader(_) => return Err(at.field("cluster_header").refuse(Reason::Unsupported)),
        _ => return Err(at.field("cluster_specifier_plugin").refuse(Reason::Unsupported)),
    };
    for cluster in &mut split.clusters {
        cluster.headers = changes::joined(HeaderChanges::default(), headers, specific_wins);
        cluster.authority.clone_from(&rewritten);
        cluster.criteria.clone_from(&criteria);
    }
    split.hash = hash;
    Ok(split)
}

fn weighted_clusters(
    at: &At<'_>,
    weighted: pb::WeightedCluster,
    rewritten: Option<&HeaderValue>,
    headers: &[&HeaderChanges],
    specific_wins: bool,
) -> Result<Split, Refusal> {
    let by_hash = match &weighted.random_value_specifier {
        None => false,
        Some(Random::UseHashPolicy(by_hash)) => by_hash.value,
        Some(Random::HeaderName(_)) => return Err(at.field("header_name").refuse(Reason::Unsupported)),
    };
    pass_over!(at, weighted; runtime_key_prefix);
    let places = &at.field("clusters");
    let mut total = 0;
    let mut clusters = Vec::with_capacity(weighted.clusters.len());
    for (index, mut cluster) in weighted.clusters.into_iter().enumerate() {
        let at = &places.index(index);
        refuse!(at, cluster; cluster_header, typed_per_filter_config);
        let criteria = cluster.metadata_match.as_ref().map(subsets::labels).unwrap_or_default();
        let own = header_changes!(at, cluster)?;
        let own_host = match &cluster.host_rewrite_specifier {
            None => None,
            Some(weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)) => {
                Some(changes::authority(&at.field("host_rewrite_literal"), host)?)
            }
        };
        let authority = rewritten.cloned().or(own_host); // In this order, as in Envoy.
        let weight = cluster.weight.map_or(0, |weight| weight.value);
        total += u64::from(weight);
        let name = at.field("name").filled(cluster.name)?;
        let headers = changes::joined(own, headers, specific_wins);
        clusters.extend(NonZeroU32::new(weight).map(|weight| WeightedCluster {
            name,
            weight,
            headers,
            authority,
            criteria,
        }));
    }
    check_total(places, total)?;
    Ok(Split { clusters, hash: Vec::new(), by_hash, lasts: Lasts::default() })
}

/// Clusters with their weights, without those that get nothing.
pub(super) fn split(at: &At<'_>, clusters: Vec<(String, u32)>) -> Result<Split, Refusal> {
    check_total(at, clusters.iter().map(|(_, weight)| u64::from(*weight)).sum())?;
    let weighed = |(name, weight)| NonZeroU32::new(weight).map(|weight| WeightedCluster::new(name, weight));
    Ok(Split {
        clusters: clusters.into_iter().filter_map(weighed).collect(),
        hash: Vec::new(),
        by_hash: false,
        lasts: Lasts::default(),
    })
}

fn check_total(at: &At<'_>, total: u64) -> Result<(), Refusal> {
    if total == 0 || total > u64::from(u32::MAX) {
        return Err(at.invalid("have weights that add up to 0, or to more than 4294967295"));
    }
    Ok(())
}
