//! What Envoy asks for by wildcard: one outbound listener that knows every
//! Service by its host names.

use std::{collections::BTreeMap, net::SocketAddr};

use pillion_wire::{
    name::ServicePort,
    xds::{
        hcm::{HttpConnectionManager, http_connection_manager},
        listener::{Filter, FilterChain, Listener, filter},
        pack,
        route::RouteConfiguration,
        type_url,
    },
};

use super::{http_filters, outbound::rds_manager, route::virtual_host, socket_address};
use crate::{
    core::{mesh::Mesh, resolve::host_names},
    xds::dialect::Dialect,
};

/// Name of the listener and of its routes.
pub(crate) const NAME: &str = "pillion/outbound";

/// Node metadata that says where the listener is to be bound.
pub(crate) const ADDRESS_METADATA: &str = "outbound_address";

/// The outbound listener at `address`.
pub(crate) fn listener(address: SocketAddr) -> Listener {
    let manager = HttpConnectionManager {
        upgrade_configs: vec![http_connection_manager::UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..http_connection_manager::UpgradeConfig::default()
        }],
        ..rds_manager(NAME.to_owned(), "outbound".to_owned(), http_filters::outbound(None, Dialect::Envoy))
    };
    Listener {
        name: NAME.to_owned(),
        address: Some(socket_address(address)),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "envoy.filters.network.http_connection_manager".to_owned(),
                config_type: Some(filter::ConfigType::TypedConfig(pack(type_url::HCM, &manager))),
            }],
            ..FilterChain::default()
        }],
        ..Listener::default()
    }
}

/// All ports that carry HTTP, each under the host names that mean it to a caller
/// in `namespace`. A name without a port means the Service's lowest port.
pub(crate) fn routes(mesh: &Mesh, namespace: &str) -> RouteConfiguration {
    let mut lowest: BTreeMap<(&str, &str), u16> = BTreeMap::new();
    // Nobody calls a subset by name.
    let ports = || mesh.ports().filter(|(key, view)| view.protocol.carries_http() && key.subset.is_none());
    for (key, _) in ports() {
        lowest.entry((&key.namespace, &key.service)).or_insert(key.port);
    }
    RouteConfiguration {
        name: NAME.to_owned(),
        virtual_hosts: ports()
            .map(|(key, view)| {
                let is_lowest = lowest.get(&(key.namespace.as_str(), key.service.as_str())) == Some(&key.port);
                virtual_host(view, domains(key, namespace, is_lowest), Dialect::Envoy)
            })
            .collect(),
        ..RouteConfiguration::default()
    }
}

fn domains(key: &ServicePort, namespace: &str, without_port: bool) -> Vec<String> {
    let [short, qualified @ ..] = host_names(key);
    let own = (key.namespace == namespace).then_some(short);
    own.into_iter()
        .chain(qualified)
        .flat_map(|host| {
            let with_port = format!("{host}:{}", key.port);
            without_port.then_some(host).into_iter().chain([with_port])
        })
        .collect()
}
