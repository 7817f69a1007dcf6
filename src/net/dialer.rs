//! Outgoing connections, by the way that they take: over the network, or to our own application.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::{Namespace, dial, tune};

/// Rules let connections with this mark alone (`SO_MARK`).
const MARK: u32 = 1337;

/// Which way a connection is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Via {
    /// As any program dials.
    #[default]
    Network,
    /// To our own application, where that runs.
    Application {
        /// The address that the application is to see as its caller's. `None`: ours.
        source: Option<IpAddr>,
    },
}

/// Makes connections. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Dialer {
    /// Where the application runs; `None`: where we do.
    pub namespace: Option<Namespace>,
}

impl Dialer {
    /// Connects to `address`. No delay, keep-alive on. The caller sets the deadline.
    ///
    /// # Errors
    /// As `connect(2)`; also when a foreign source address is not permitted (`CAP_NET_ADMIN`).
    ///
    /// # Cancel safety
    /// The connection that is being made is closed.
    pub async fn dial(&self, address: SocketAddr, via: Via) -> io::Result<TcpStream> {
        let source = match (via, &self.namespace) {
            (Via::Network, _) | (Via::Application { source: None }, None) => return dial(address).await,
            (Via::Application { source }, _) => source,
        };
        let socket = match &self.namespace {
            Some(namespace) => namespace.run(move || marked(address)).await?,
            None => marked(address)?,
        };
        if let Some(source) = source {
            socket.set_ip_transparent_v4(true)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
        tune(&stream)?;
        Ok(stream)
    }
}

/// A socket whose connections no rule sends back to us.
fn marked(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_mark(MARK)?;
    Ok(socket)
}
