//! Listeners: what a destination accepts, and what our own workload serves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pillion_wire::extension;
use pillion_wire::load_shedding::{CRITICALITY_METADATA, LoadShedding};
use pillion_wire::mesh::Application;
use pillion_wire::name::{Destination, host_name};
use pillion_wire::rate_limit::{Algorithm, MOST_KEYS, MOST_LOGGED, RATE_LIMITS_METADATA, RateLimit, RateLimits};
use pillion_wire::xds::core::Metadata;
use pillion_wire::xds::listener::{Filter, FilterChain, Listener, filter};
use pillion_wire::xds::tcp_proxy::tcp_proxy::ClusterSpecifier;
use pillion_wire::xds::tcp_proxy::{TcpProxy, tcp_proxy};
use pillion_wire::xds::type_url;

use super::at::{
    At, Reason, Refusal, duration, ip_address, origins, pass_over, port_number, refuse, same_name, socket_address,
    unpack,
};
use super::{hash, hcm, route, tls};
use crate::config::{
    Access, AppProtocol, HostListener, InboundListener, InboundPort, Lasts, OutboundListener, Split, TlsChain,
};

/// `api_listener` for HTTP, `filter_chains` for TLS that is passed through, `default_filter_chain` for opaque TCP.
pub(super) fn outbound(
    at: &At<'_>,
    name: &str,
    destination: Destination,
    listener: Listener,
) -> Result<OutboundListener, Refusal> {
    same_name(&at.field("name"), name, listener.name.clone())?;
    refuse_extras(at, &listener)?;
    refuse!(at, listener; additional_addresses);
    pass_over!(at, listener; address);
    let (http, filters) = match listener.api_listener {
        Some(api) => {
            let at = &at.field("api_listener");
            let at = &at.field("api_listener");
            let manager = unpack(at, type_url::HCM, &at.required(api.api_listener)?)?;
            let (source, filters) = hcm::outbound(at, manager)?;
            (Some(source), filters)
        }
        None => (None, Vec::new()),
    };
    let tcp =
        listener.default_filter_chain.map(|chain| opaque(&at.field("default_filter_chain"), chain)).transpose()?;
    let tls = tls_chains(&at.field("filter_chains"), listener.filter_chains)?;
    if http.is_none() && tcp.is_none() && tls.is_empty() {
        return Err(at.field("api_listener").refuse(Reason::Missing));
    }
    let origins = origins(at, listener.metadata.as_ref())?;
    Ok(OutboundListener { destination, http, filters, tcp, tls, origins })
}

/// One filter chain for each set of server names. As in Envoy, no name may lead to two of them.
fn tls_chains(at: &At<'_>, chains: Vec<FilterChain>) -> Result<Vec<TlsChain>, Refusal> {
    let mut seen = BTreeSet::new();
    let mut compiled = Vec::with_capacity(chains.len());
    for (index, mut chain) in chains.into_iter().enumerate() {
        let at = &at.index(index);
        let rule_at = &at.field("filter_chain_match");
        let rule = rule_at.required(chain.filter_chain_match.take())?;
        refuse!(rule_at, rule;
            destination_port, prefix_ranges, address_suffix, suffix_len, direct_source_prefix_ranges, source_type,
            source_prefix_ranges, source_ports, application_protocols);
        if rule.transport_protocol != "tls" {
            return Err(rule_at.field("transport_protocol").invalid("has to be \"tls\""));
        }
        let names = &rule_at.field("server_names");
        let mut server_names = Vec::with_capacity(rule.server_names.len());
        for (index, name) in rule.server_names.into_iter().enumerate() {
            server_names.push(server_name(&names.index(index), &name)?);
        }
        let is_new = match server_names.as_slice() {
            [] => seen.insert(String::new()),
            several => several.iter().all(|name| seen.insert(name.clone())),
        };
        if !is_new {
            return Err(names.invalid("matches the same connections as another filter chain"));
        }
        compiled.push(TlsChain { server_names, split: opaque(at, chain)? });
    }
    Ok(compiled)
}

/// A DNS name, or `*.` and one.
fn server_name(at: &At<'_>, name: &str) -> Result<String, Refusal> {
    let (wildcard, rest) = name.strip_prefix("*.").map_or(("", name), |rest| ("*.", rest));
    match host_name(rest) {
        Ok(host) if rest.eq_ignore_ascii_case(&host) => Ok(format!("{wildcard}{host}")),
        _ => Err(at.invalid("is neither a DNS name nor \"*.\" and one")),
    }
}

/// One filter chain for each port of the workload, two when it also takes connections from outside the mesh.
pub(super) fn inbound(
    at: &At<'_>,
    name: &str,
    address: SocketAddr,
    listener: Listener,
) -> Result<InboundListener, Refusal> {
    same_name(&at.field("name"), name, listener.name.clone())?;
    refuse_extras(at, &listener)?;
    refuse!(at, listener; api_listener, default_filter_chain, additional_addresses);
    let bound = &at.field("address");
    if listener.address.is_some() && socket_address(bound, listener.address)? != address {
        return Err(bound.invalid("is not the address in the listener's name"));
    }
    let chains = &at.field("filter_chains");
    let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
    let mut plaintext = Vec::new();
    for (index, chain) in listener.filter_chains.into_iter().enumerate() {
        let at = &chains.index(index);
        let (port, access) = inbound_port(at, chain)?;
        match access {
            Access::Permissive => plaintext.push((index, port)),
            Access::Strict if ports.insert(port.port, port).is_some() => {
                return Err(at.field("filter_chain_match").invalid("matches the same port as another filter chain"));
            }
            Access::Strict => {}
        }
    }
    for (index, port) in plaintext {
        match ports.get_mut(&port.port) {
            Some(secure) if *secure == port => secure.access = Access::Permissive,
            _ => return Err(chains.index(index).invalid("takes plaintext, but has no equal beside it that takes TLS")),
        }
    }
    Ok(InboundListener { ports })
}

/// Addresses and nothing else, all with port 0: it is never bound.
pub(super) fn host(at: &At<'_>, name: &str, host: String, listener: Listener) -> Result<HostListener, Refusal> {
    same_name(&at.field("name"), name, listener.name.clone())?;
    refuse_extras(at, &listener)?;
    refuse!(at, listener; api_listener, filter_chains, default_filter_chain);
    let mut addresses: Vec<IpAddr> = Vec::new();
    let first = listener.address.map(|address| ip_address(&at.field("address"), address)).transpose()?;
    addresses.extend(first);
    let more = at.field("additional_addresses");
    for (index, additional) in listener.additional_addresses.into_iter().enumerate() {
        let at = &more.index(index);
        refuse!(at, additional; socket_options);
        pass_over!(at, additional; tcp_keepalive);
        let at = &at.field("address");
        addresses.push(ip_address(at, at.required(additional.address)?)?);
    }
    let mut seen = BTreeSet::new();
    addresses.retain(|address| seen.insert(*address));
    Ok(HostListener { name: host, addresses })
}

fn refuse_extras(at: &At<'_>, listener: &Listener) -> Result<(), Refusal> {
    refuse!(at, listener;
        filter_chain_matcher, fcds_config, use_original_dst, listener_filters,
        udp_listener_config, listener_specifier, access_log, socket_options, transparent, deprecated_v1);
    pass_over!(at, listener;
        stat_prefix, stats_matcher, per_connection_buffer_limit_bytes, drain_type, traffic_direction,
        enable_reuse_port, tcp_backlog_size, listener_filters_timeout, connection_balance_config, freebind,
        continue_on_listener_filters_timeout, tcp_fast_open_queue_length, bind_to_port, enable_mptcp, tcp_keepalive,
        ignore_global_conn_limit, bypass_overload_manager, max_connections_to_accept_per_socket_event,
        per_connection_buffer_high_watermark_timeout);
    Ok(())
}

/// The port that a chain is for, and whether the chain is the one for TLS or the one for plaintext.
fn inbound_port(at: &At<'_>, chain: FilterChain) -> Result<(InboundPort, Access), Refusal> {
    let matches = at.field("filter_chain_match");
    let rule = matches.required(chain.filter_chain_match)?;
    refuse!(matches, rule;
        prefix_ranges, address_suffix, suffix_len, direct_source_prefix_ranges, source_type, source_prefix_ranges,
        source_ports, server_names, application_protocols);
    refuse!(at, chain; use_proxy_proto);
    pass_over!(at, chain; transport_socket_connect_timeout);
    let number = matches.field("destination_port");
    let port = port_number(&number, number.required(rule.destination_port)?.value)?;
    let socket = &at.field("transport_socket");
    let metadata = &at.field("metadata");
    let extra = metadata.required(chain.metadata)?;
    let application = Application::from_metadata(&extra).map_err(|error| metadata.refuse(error))?;
    let rate_limits = rate_limits(metadata, &extra)?;
    let application = metadata.required(application)?;
    let access = match (rule.transport_protocol.as_str(), chain.transport_socket) {
        ("" | "tls", Some(config)) => tls::mutual(socket, config).map(|()| Access::Strict)?,
        ("tls", None) if application.tls => Access::Permissive,
        ("raw_buffer", None) if !application.tls => Access::Permissive,
        ("" | "tls", None) => return Err(socket.refuse(Reason::Missing)),
        ("raw_buffer", Some(_)) => return Err(socket.invalid("is set, although the chain is for plaintext")),
        _ => return Err(matches.field("transport_protocol").refuse(Reason::Unsupported)),
    };
    let filters = &at.field("filters");
    let said = application_filter(filters, chain.filters)?;
    let protocol = match said.protocol {
        AppProtocol::Tcp if application.tls => AppProtocol::Tls,
        _ if application.tls => return Err(filters.invalid("are for plaintext, but the application speaks TLS")),
        protocol => protocol,
    };
    let load_shedding = match said.gradient {
        Some(gradient) => {
            let criticality = extension::get(&extra, CRITICALITY_METADATA).map_err(|error| metadata.refuse(error))?;
            Some(LoadShedding { gradient, criticality: criticality.unwrap_or_default() })
        }
        None => None,
    };
    let port = InboundPort {
        origins: origins(at, Some(&extra))?,
        port,
        application: application.address,
        protocol,
        access: Access::Strict,
        rate_limits,
        age: said.age,
        global: said.global.map(Arc::new),
        load_shedding,
    };
    Ok((port, access))
}

fn rate_limits(at: &At<'_>, metadata: &Metadata) -> Result<RateLimits, Refusal> {
    let found: Option<RateLimits> = extension::get(metadata, RATE_LIMITS_METADATA).map_err(|error| at.refuse(error))?;
    let limits = found.unwrap_or_default();
    let logs_too_many =
        |limit: &RateLimit| limit.algorithm == Algorithm::SlidingWindowLog && limit.requests.get() > MOST_LOGGED;
    if limits.limits.iter().any(|limit| logs_too_many(limit) || limit.most_keys.get() > MOST_KEYS) {
        return Err(at.invalid("would have a rate limit remember too much"));
    }
    Ok(limits)
}

fn application_filter(at: &At<'_>, filters: Vec<Filter>) -> Result<hcm::Inbound, Refusal> {
    let (at, url, config) = only_filter(at, filters)?;
    let at = &at;
    match url {
        type_url::HCM => hcm::inbound(at, unpack(at, type_url::HCM, &config)?),
        _ => {
            tcp_split(at, unpack(at, type_url::TCP_PROXY, &config)?)?;
            Ok(hcm::Inbound::plain(AppProtocol::Tcp))
        }
    }
}

fn opaque(at: &At<'_>, chain: FilterChain) -> Result<Split, Refusal> {
    refuse!(at, chain; filter_chain_match, transport_socket, use_proxy_proto);
    pass_over!(at, chain; metadata, name, transport_socket_connect_timeout);
    let filters = at.field("filters");
    let (at, _url, config) = only_filter(&filters, chain.filters)?;
    tcp_split(&at, unpack(&at, type_url::TCP_PROXY, &config)?)
}

/// A chain has one network filter, the one that ends it.
fn only_filter<'a>(
    at: &'a At<'a>,
    filters: Vec<Filter>,
) -> Result<(At<'a>, &'static str, pillion_wire::xds::Any), Refusal> {
    let mut filters = filters.into_iter();
    let filter = at.required(filters.next())?;
    if filters.next().is_some() {
        return Err(at.index(1).refuse(Reason::Unsupported));
    }
    let at = at.index(0);
    let Some(filter::ConfigType::TypedConfig(config)) = filter.config_type else {
        return Err(at.refuse(Reason::Unsupported));
    };
    let known = [type_url::HCM, type_url::TCP_PROXY].into_iter().find(|&url| url == config.type_url);
    let url = known.ok_or_else(|| at.refuse(Reason::Unsupported))?;
    Ok((at, url, config))
}

fn tcp_split(at: &At<'_>, proxy: TcpProxy) -> Result<Split, Refusal> {
    refuse!(at, proxy;
        on_demand, metadata_match, downstream_idle_timeout, upstream_idle_timeout, access_log,
        max_connect_attempts, backoff_options, tunneling_config,
        max_downstream_connection_duration_jitter_percentage, proxy_protocol_tlvs, upstream_connect_mode);
    pass_over!(at, proxy;
        stat_prefix, access_log_options, max_early_data_bytes, check_drain_close, proxy_protocol_tlv_merge_policy);
    let hash = hash::of_connections(&at.field("hash_policy"), &proxy.hash_policy)?;
    let limit = |key, told: Option<_>| told.map(|told| duration(&at.field(key), told)).transpose();
    let lasts = Lasts {
        idle: limit("idle_timeout", proxy.idle_timeout)?.filter(|idle| !idle.is_zero()),
        most: limit("max_downstream_connection_duration", proxy.max_downstream_connection_duration)?,
    };
    match at.field("cluster").required(proxy.cluster_specifier)? {
        ClusterSpecifier::Cluster(name) => Ok(Split::one(&at.field("cluster").filled(name)?)),
        ClusterSpecifier::WeightedClusters(weighted) => {
            let at = &at.field("weighted_clusters");
            let at = &at.field("clusters");
            let mut clusters = Vec::with_capacity(weighted.clusters.len());
            for (index, cluster) in weighted.clusters.into_iter().enumerate() {
                let at = at.index(index);
                refuse!(at, cluster; metadata_match);
                let tcp_proxy::weighted_cluster::ClusterWeight { name, weight, .. } = cluster;
                clusters.push((at.field("name").filled(name)?, weight));
            }
            route::split(at, clusters)
        }
    }
    .map(|split| Split { hash, lasts, ..split })
}
