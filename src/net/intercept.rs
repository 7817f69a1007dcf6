//! Where was an accepted connection going, before a rule of the kernel sent it to us?

use std::io;
use std::net::SocketAddr;

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

/// Is `address` one of this machine (of this network namespace)?
pub fn is_local(address: std::net::IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified() || std::net::UdpSocket::bind((address, 0)).is_ok()
}
