//! Where was an accepted connection going, before a rule of the kernel sent it to us?

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::SockRef;
use tokio::net::TcpStream;

/// The address that the client dialled, if it was not the listening socket at port `listening`.
///
/// REDIRECT: `SO_ORIGINAL_DST`, or `IP6T_SO_ORIGINAL_DST` (`linux/netfilter_ipv4.h`), from the kernel's table of
/// translated connections. TPROXY translates nothing: the connection's own local address is what was dialled.
///
/// # Errors
/// When the connection is gone already.
pub fn original_destination(stream: &TcpStream, listening: u16) -> io::Result<Option<SocketAddr>> {
    let local = canonical(stream.local_addr()?);
    let socket = SockRef::from(stream);
    let translated = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    // Without an entry in the table (ENOENT), or without the table itself (ENOPROTOOPT), nothing was translated.
    let dialled = translated.ok().and_then(|address| address.as_socket()).map_or(local, canonical);
    Ok((dialled != local || local.port() != listening).then_some(dialled))
}

/// IPv4 as IPv4, also on a socket for both families; without scope, which the address of a destination has no room for.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Is `address` one of this machine (of this network namespace), loopback and "any" included?
pub fn is_local(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified() || is_assigned(address)
}

/// Is `address` one that others can know this machine (this network namespace) by: given to an interface, not loopback?
pub fn is_reachable(address: IpAddr) -> bool {
    let address = address.to_canonical();
    !address.is_loopback() && !address.is_unspecified() && is_assigned(address)
}

/// The kernel calls an address of its own from that same address. To bind to it proves nothing: multicast addresses may be
/// bound to, and every address where `ip_nonlocal_bind` is on.
fn is_assigned(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = || {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?; // Sends nothing.
        socket.local_addr()
    };
    source().is_ok_and(|source| source.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_in_any_spelling_is_local_and_out_of_others_reach() {
        for text in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "::ffff:0.0.0.0"] {
            let address: IpAddr = text.parse().expect("literal");
            assert!(is_local(address), "{text}");
            assert!(!is_reachable(address), "{text}");
        }
        for text in ["224.0.0.1", "255.255.255.255", "192.0.2.1", "ff02::1", "2001:db8::1"] {
            let address: IpAddr = text.parse().expect("literal");
            assert!(!is_local(address) && !is_reachable(address), "{text}");
        }
    }
}
