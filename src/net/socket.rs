//! Making sockets: one listening socket per worker on the same address, and outgoing connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// Dead peers are noticed after about this long without traffic (ztunnel's default).
const KEEPALIVE: Duration = Duration::from_secs(180);

/// What comes in by a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Connections to its own address. `[::]` takes those of IPv4 as well.
    #[default]
    Own,
    /// The same, but `[::]` is IPv6 alone: another socket takes IPv4, so that each knows its original destinations.
    OneFamily,
    /// As [`Self::OneFamily`], and what TPROXY sends here that was meant for other addresses (`IP_TRANSPARENT`).
    Transparent,
}

/// Binds `count` listening sockets to one address, so that each worker has an accept queue of its own.
///
/// Port 0 lets the kernel choose; all sockets get the same choice. The address is
/// first bound alone, so that a second program on the same port is an error, not a
/// silent half of the traffic.
///
/// # Errors
/// When the address is taken or not ours, or [`Reach::Transparent`] is not permitted (`CAP_NET_ADMIN`).
pub fn listen(address: SocketAddr, count: usize, reach: Reach) -> io::Result<Vec<std::net::TcpListener>> {
    let probe = bound(address, false, reach)?;
    let address = local_address(&probe)?;
    if count <= 1 {
        probe.listen(BACKLOG)?;
        return Ok(vec![probe.into()]);
    }
    drop(probe);
    (0..count)
        .map(|_| {
            let socket = bound(address, true, reach)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

fn bound(address: SocketAddr, shared: bool, reach: Reach) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?; // Connections in TIME_WAIT do not block a restart.
    if reach != Reach::Own && address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if reach == Reach::Transparent {
        socket.set_ip_transparent_v4(true)?; // Holds for IPv6 too: it is one flag of the socket.
    }
    if shared {
        socket.set_reuse_port(true)?;
    } else {
        // Without listening, SO_REUSEADDR alone would let two programs bind: so listen to find out.
        socket.bind(&address.into())?;
        socket.listen(1)?;
        return Ok(socket);
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an IP socket"))
}

/// Connects to `address`. No delay, keep-alive on. The caller sets the deadline.
///
/// # Errors
/// As `connect(2)`.
pub async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    tune(&stream)?;
    Ok(stream)
}

/// Settings of every TCP connection, accepted or dialled.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}

/// Makes closing `stream` reset the connection: the peer learns that the end was not a proper one.
pub fn reset_on_close(stream: &TcpStream) {
    // If it fails, the peer sees an orderly end, which is what it would have seen anyway.
    let _best_effort = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
