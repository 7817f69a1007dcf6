//! `Listener` of a destination: what a caller does with traffic for it.

use pillion_wire::xds::{
    hcm::{HttpConnectionManager, HttpFilter, Rds, http_connection_manager},
    listener::{ApiListener, Filter, FilterChain, FilterChainMatch, Listener, filter},
    pack,
    tcp_proxy::{TcpProxy, tcp_proxy},
    type_url,
};

use super::{INVALID_BACKEND, ads, balancing, duration, http_filters, origin};
use crate::{
    core::view::{PortView, Share, TlsEntry},
    xds::dialect::Dialect,
};

/// The listener of `view` under the `name` that was asked for.
pub(crate) fn listener(view: &PortView, name: &str, dialect: Dialect) -> Listener {
    let mut metadata = None;
    origin::note(&mut metadata, &view.origins, dialect);
    Listener {
        name: name.to_owned(),
        metadata,
        api_listener: view
            .protocol
            .carries_http()
            .then(|| ApiListener { api_listener: Some(pack(type_url::HCM, &requests(view, dialect))) }),
        filter_chains: if dialect == Dialect::Grpc {
            Vec::new()
        } else {
            view.tls.iter().map(|entry| passthrough(entry, view)).collect()
        },
        default_filter_chain: (view.protocol.carries_tcp() && dialect != Dialect::Grpc).then(|| FilterChain {
            name: "tcp".to_owned(),
            filters: vec![tcp_filter(&streams(view))],
            ..FilterChain::default()
        }),
        ..Listener::default()
    }
}

/// TLS that the application itself speaks, by the name that it asks for.
fn passthrough(entry: &TlsEntry, view: &PortView) -> FilterChain {
    FilterChain {
        name: entry.name.clone(),
        filter_chain_match: Some(FilterChainMatch {
            transport_protocol: "tls".to_owned(),
            server_names: entry.server_names.clone(),
            ..FilterChainMatch::default()
        }),
        filters: vec![tcp_filter(&lasting(
            view,
            TcpProxy {
                stat_prefix: entry.name.clone(),
                cluster_specifier: Some(split(&entry.shares)),
                hash_policy: balancing::connection_hash(entry.shares.iter().flat_map(|share| &share.hash_on)),
                ..TcpProxy::default()
            },
        ))],
        ..FilterChain::default()
    }
}

/// A connection manager with these filters that asks for the routes of `route_name`.
pub(super) fn rds_manager(route_name: String, stat_prefix: String, filters: Vec<HttpFilter>) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix,
        route_specifier: Some(http_connection_manager::RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: route_name,
        })),
        http_filters: filters,
        ..HttpConnectionManager::default()
    }
}

/// A TCP proxy as a network filter.
pub(super) fn tcp_filter(proxy: &TcpProxy) -> Filter {
    Filter {
        name: "envoy.filters.network.tcp_proxy".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(type_url::TCP_PROXY, proxy))),
    }
}

fn requests(view: &PortView, dialect: Dialect) -> HttpConnectionManager {
    rds_manager(view.key.to_string(), view.key.to_string(), http_filters::outbound(Some(view), dialect))
}

fn streams(view: &PortView) -> TcpProxy {
    let specifier = match &view.tcp {
        Some(shares) => split(shares),
        None => tcp_proxy::ClusterSpecifier::Cluster(view.key.to_string()),
    };
    let own = view.policy.load_balancing.iter().flat_map(|section| &section.hash_on);
    let hash_policy = match &view.tcp {
        Some(shares) => balancing::connection_hash(shares.iter().flat_map(|share| &share.hash_on)),
        None => balancing::connection_hash(own),
    };
    let proxy = TcpProxy {
        stat_prefix: view.key.to_string(),
        cluster_specifier: Some(specifier),
        hash_policy,
        ..TcpProxy::default()
    };
    lasting(view, proxy)
}

/// `proxy` with the limits that connections of `view` have.
fn lasting(view: &PortView, proxy: TcpProxy) -> TcpProxy {
    let Some(timeouts) = &view.policy.timeouts else { return proxy };
    TcpProxy {
        idle_timeout: timeouts.stream_idle.map(duration),
        max_downstream_connection_duration: timeouts.max_duration.map(duration),
        ..proxy
    }
}

fn split(shares: &[Share]) -> tcp_proxy::ClusterSpecifier {
    let name = |share: &Share| share.target.as_ref().map_or_else(|| INVALID_BACKEND.to_owned(), ToString::to_string);
    match shares {
        [] => tcp_proxy::ClusterSpecifier::Cluster(INVALID_BACKEND.to_owned()),
        [only] => tcp_proxy::ClusterSpecifier::Cluster(name(only)),
        several => tcp_proxy::ClusterSpecifier::WeightedClusters(tcp_proxy::WeightedCluster {
            clusters: several
                .iter()
                .map(|share| tcp_proxy::weighted_cluster::ClusterWeight {
                    name: name(share),
                    weight: share.weight,
                    ..tcp_proxy::weighted_cluster::ClusterWeight::default()
                })
                .collect(),
        }),
    }
}
