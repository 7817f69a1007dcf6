//! From the views of the mesh to xDS resources, one file per kind.
//!
//! Pure functions; what they leave out per dialect is said where it is left out.

mod balancing;
pub(super) mod cluster;
pub(super) mod endpoints;
mod filter;
pub(super) mod gateway;
mod global_rate_limit;
mod health;
pub(super) mod host;
pub(super) mod http_filters;
pub(super) mod inbound;
mod load_shedding;
mod names;
mod origin;
pub(super) mod outbound;
mod resilience;
pub(super) mod route;
pub(super) mod session;
pub(super) mod treatment;

use std::net::SocketAddr;
use std::time::Duration as Time;

use pillion_wire::xds::{
    Duration,
    core::{
        Address, AggregatedConfigSource, ApiVersion, ConfigSource, HttpProtocolOptions, SocketAddress, address,
        config_source, socket_address,
    },
    envoy_type::Percent,
};

pub(super) use pillion_wire::mesh::INVALID_BACKEND;

/// "Ask for it on this stream."
fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

fn socket_address(address: SocketAddr) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(address.port().into())),
            ..SocketAddress::default()
        })),
    }
}

/// How long HTTP connections rest and live; `None` when nothing is said of it. The age has as much jitter as gRPC's
/// `MAX_CONNECTION_AGE` (gRFC A9).
fn connections(idle: Option<Time>, age: Option<Time>) -> Option<HttpProtocolOptions> {
    (idle.is_some() || age.is_some()).then(|| HttpProtocolOptions {
        idle_timeout: idle.map(duration),
        max_connection_duration: age.map(duration),
        max_connection_duration_jitter: age.map(|_| Percent { value: 10.0 }),
        ..HttpProtocolOptions::default()
    })
}

fn duration(duration: std::time::Duration) -> Duration {
    Duration {
        seconds: duration.as_secs().try_into().unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().try_into().unwrap_or_default(),
    }
}
