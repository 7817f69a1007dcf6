//! Inbound `Listener` of a workload: one filter chain per port, or two where
//! connections from outside the mesh are allowed: plaintext, or the TLS that the
//! application itself speaks.

use std::net::SocketAddr;

use pillion_wire::{
    extension,
    load_shedding::CRITICALITY_METADATA,
    mesh::Application,
    rate_limit::RATE_LIMITS_METADATA,
    xds::{
        BoolValue, UInt32Value,
        core::{TransportSocket, transport_socket},
        hcm::{HttpConnectionManager, http_connection_manager},
        listener::{Filter, FilterChain, FilterChainMatch, Listener, filter},
        pack,
        route::{NonForwardingAction, Route, RouteConfiguration, RouteMatch, VirtualHost, route, route_match},
        tcp_proxy::{TcpProxy, tcp_proxy},
        tls::{CommonTlsContext, DownstreamTlsContext},
        type_url,
    },
};

use super::{
    connections, global_rate_limit, http_filters, load_shedding, origin, outbound::tcp_filter, socket_address,
};
use crate::{
    core::{
        policy::GlobalRateLimit,
        protocol::Protocol,
        view::{InboundPort, WorkloadView},
        workload::Access,
    },
    xds::dialect::Dialect,
};

/// The cluster that means the application itself.
const APPLICATION: &str = "application";

/// The listener of `view` under the `name` that was asked for, which says that it is bound to `address`.
pub(crate) fn listener(view: &WorkloadView, name: &str, address: SocketAddr, dialect: Dialect) -> Listener {
    Listener {
        name: name.to_owned(),
        address: Some(socket_address(address)),
        filter_chains: view.ports.iter().flat_map(|port| chains(port, dialect)).collect(),
        ..Listener::default()
    }
}

fn chains(port: &InboundPort, dialect: Dialect) -> Vec<FilterChain> {
    let name = format!("{}-{}", port.protocol.name(), port.port);
    let matched = FilterChainMatch {
        destination_port: Some(UInt32Value { value: port.port.into() }),
        ..FilterChainMatch::default()
    };
    let application = Application { address: port.application, tls: port.protocol == Protocol::Tls };
    let mut metadata = application.to_metadata();
    if !port.rate_limits.limits.is_empty() {
        extension::put(&mut metadata, RATE_LIMITS_METADATA, &port.rate_limits);
    }
    if let Some(shedding) = port.load_shedding.as_ref().filter(|_| port.protocol.carries_http()) {
        extension::put(&mut metadata, CRITICALITY_METADATA, &shedding.criticality);
    }
    let mut metadata = Some(metadata);
    origin::note(&mut metadata, &port.origins, dialect);
    let secured = FilterChain {
        name: name.clone(),
        filter_chain_match: Some(matched.clone()),
        filters: vec![network_filter(port, dialect)],
        metadata,
        transport_socket: Some(mutual_tls()),
        ..FilterChain::default()
    };
    if port.access == Access::Strict {
        return vec![secured];
    }
    // What an application's own TLS is without a transport socket: passed through (Envoy, "TLS passthrough").
    let (suffix, transport_protocol) =
        if application.tls { ("passthrough", "tls") } else { ("plaintext", "raw_buffer") };
    let unsecured = FilterChain {
        name: format!("{name}-{suffix}"),
        filter_chain_match: Some(FilterChainMatch { transport_protocol: transport_protocol.to_owned(), ..matched }),
        transport_socket: None,
        ..secured.clone()
    };
    vec![secured, unsecured]
}

fn network_filter(port: &InboundPort, dialect: Dialect) -> Filter {
    use http_connection_manager::CodecType;
    let codec = match port.protocol {
        Protocol::Http => CodecType::Http1,
        Protocol::H2c | Protocol::Grpc => CodecType::Http2,
        Protocol::Auto => CodecType::Auto,
        Protocol::Tcp | Protocol::Tls => {
            return tcp_filter(&TcpProxy {
                stat_prefix: APPLICATION.to_owned(),
                cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(APPLICATION.to_owned())),
                ..TcpProxy::default()
            });
        }
    };
    // gRPC would refuse filters that it does not know (gRFC A39).
    let limit = port.global_rate_limit.as_deref().filter(|_| dialect != Dialect::Grpc);
    let shedding = port.load_shedding.as_ref().filter(|_| dialect != Dialect::Grpc).map(load_shedding::filter);
    let manager = HttpConnectionManager {
        stat_prefix: APPLICATION.to_owned(),
        codec_type: codec.into(),
        common_http_protocol_options: connections(None, port.connection_age),
        route_specifier: Some(http_connection_manager::RouteSpecifier::RouteConfig(everything_here(limit))),
        http_filters: limit
            .map(global_rate_limit::asking)
            .into_iter()
            .chain(shedding)
            .chain([http_filters::router()])
            .collect(),
        ..HttpConnectionManager::default()
    };
    Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(type_url::HCM, &manager))),
    }
}

/// Every request ends here (gRFC A36, `non_forwarding_action`).
fn everything_here(limit: Option<&GlobalRateLimit>) -> RouteConfiguration {
    RouteConfiguration {
        name: APPLICATION.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: APPLICATION.to_owned(),
            domains: vec!["*".to_owned()],
            rate_limits: limit.map(global_rate_limit::questions).unwrap_or_default(),
            routes: vec![Route {
                r#match: Some(RouteMatch {
                    path_specifier: Some(route_match::PathSpecifier::Prefix(String::new())),
                    ..RouteMatch::default()
                }),
                action: Some(route::Action::NonForwardingAction(NonForwardingAction {})),
                ..Route::default()
            }],
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}

fn mutual_tls() -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack(
            type_url::DOWNSTREAM_TLS,
            &DownstreamTlsContext {
                common_tls_context: Some(CommonTlsContext::default()),
                require_client_certificate: Some(BoolValue { value: true }),
                ..DownstreamTlsContext::default()
            },
        ))),
    }
}
