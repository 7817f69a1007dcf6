//! Outgoing connections, by the way that they take: over the network, or to our own application.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::{Namespace, dial, is_local, tune};

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
    /// Where we take connections of the application, as far as [`Via::Network`] can lead there.
    pub own_ports: Arc<[SocketAddr]>,
    /// The same of [`Via::Application`].
    pub own_ports_there: Arc<[SocketAddr]>,
}

impl Dialer {
    /// Does `address` lead to a port of ours where the application's traffic begins, so that it would go round for ever?
    pub fn is_loop(&self, address: SocketAddr, via: Via) -> bool {
        let own = match via {
            Via::Network => &self.own_ports,
            Via::Application { .. } => &self.own_ports_there,
        };
        own.iter().any(|own| leads_to(address, *own))
    }

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

/// Does who dials `address` on this machine reach a socket that listens at `listening`?
fn leads_to(address: SocketAddr, listening: SocketAddr) -> bool {
    if address.port() != listening.port() {
        return false;
    }
    let ip = match address.ip().to_canonical() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let own = listening.ip().to_canonical();
    own == ip || (own.is_unspecified() && (own.is_ipv6() || ip.is_ipv4()) && is_local(ip))
}

/// A socket whose connections no rule sends back to us.
fn marked(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_mark(MARK)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_a_socket_in_every_spelling() {
        for (address, listening, expected) in [
            ("127.0.0.1:15001", "127.0.0.1:15001", true),
            ("127.0.0.1:15002", "127.0.0.1:15001", false),
            ("127.0.0.2:15001", "127.0.0.1:15001", false),
            ("[::ffff:127.0.0.1]:15001", "127.0.0.1:15001", true),
            ("0.0.0.0:15001", "127.0.0.1:15001", true),
            ("[::]:15001", "[::1]:15001", true),
            ("[::]:15001", "127.0.0.1:15001", false),
            ("127.0.0.2:15001", "0.0.0.0:15001", true),
            ("127.0.0.2:15001", "[::]:15001", true),
            ("[::1]:15001", "0.0.0.0:15001", false),
            ("192.0.2.1:15001", "0.0.0.0:15001", false),
        ] {
            let parsed = |text: &str| text.parse().expect("literal");
            assert_eq!(leads_to(parsed(address), parsed(listening)), expected, "{address} {listening}");
        }
    }

    #[test]
    fn where_the_application_runs_elsewhere_its_addresses_are_not_ours() {
        let [own, there]: [SocketAddr; 2] = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().expect("literal"));
        let dialer = Dialer { namespace: None, own_ports: [own].into(), own_ports_there: [there].into() };
        for (address, via, expected) in [
            (own, Via::Network, true),
            (there, Via::Network, false),
            (own, Via::Application { source: None }, false),
            (there, Via::Application { source: None }, true),
        ] {
            assert_eq!(dialer.is_loop(address, via), expected, "{address} {via:?}");
        }
    }
}
