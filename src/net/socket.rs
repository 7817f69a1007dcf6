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

/// Binds `count` listening sockets to one address, so that each worker has an accept queue of its own.
///
/// Port 0 lets the kernel choose; all sockets get the same choice. The address is
/// first bound alone, so that a second program on the same port is an error, not a
/// silent half of the traffic.
///
/// # Errors
/// When the address is taken or not ours.
pub fn listen(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let probe = bound(address, false)?;
    let address = local_address(&probe)?;
    if count <= 1 {
        probe.listen(BACKLOG)?;
        return Ok(vec![probe.into()]);
    }
    drop(probe);
    (0..count)
        .map(|_| {
            let socket = bound(address, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?; // Connections in TIME_WAIT do not block a restart.
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
