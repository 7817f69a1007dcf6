//! `Listener` of a host name: the addresses that DNS answers, and nothing else.

use std::net::{IpAddr, SocketAddr};

use pillion_wire::xds::listener::{AdditionalAddress, Listener};

use super::socket_address;

/// The listener `name` with `addresses`. Port 0: nothing is bound to them.
pub(crate) fn listener(name: &str, addresses: &[IpAddr]) -> Listener {
    let mut addresses = addresses.iter().map(|address| socket_address(SocketAddr::new(*address, 0)));
    Listener {
        name: name.to_owned(),
        address: addresses.next(),
        additional_addresses: addresses
            .map(|address| AdditionalAddress { address: Some(address), ..AdditionalAddress::default() })
            .collect(),
        ..Listener::default()
    }
}
