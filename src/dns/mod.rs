//! DNS for the application: addresses of the mesh's names, everything else from the nameservers behind.
//!
//! ```text
//! udp, tcp ── resolver ─┬ names    can it be one of the mesh?  -> Directory (control plane)
//!                       ├ forward  the client's own message    -> Upstream (resolv.conf)
//!                       └ stale    what they said before, when none of them answers
//! ```
//! It changes nothing in what passes through: EDNS, DNSSEC and the case of names are between client and nameserver.
//!
//! And the addresses of clusters that are found by name, from the same nameservers:
//!
//! ```text
//! watch ─┬ lookup   one question, by hickory-resolver -> Upstream
//!        ├ refresh  what is believed, and how long (no I/O)
//!        └ hosts    addresses                       -> Endpoints (discovery)
//! ```

mod forward;
mod hosts;
mod lookup;
pub mod message;
mod names;
mod refresh;
mod resolver;
mod stale;
mod tcp;
mod udp;
mod upstream;
mod watch;

pub use lookup::{Found, Lookups};
pub use refresh::{Belief, Refresh, Standing};
pub use upstream::Upstream;
pub use watch::{Resolutions, watch};

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::snapshot::Directory;
use crate::telemetry::Metrics;
use resolver::Resolver;

/// Queries in datagrams that are under way at once.
const MAX_QUERIES: usize = 1024;
/// Open TCP connections.
const MAX_CONNECTIONS: usize = 128;

/// Serves DNS on bound sockets until `stop` completes. Belongs on the control runtime.
///
/// The sockets should be bound to one address each, not to all: an answer must come from the address that was asked.
/// Upstreams are asked from the network namespace of this process, wherever the sockets are.
///
/// # Errors
/// When a socket cannot be used.
///
/// # Cancel safety
/// Dropping the future ends everything, as `stop` does.
pub async fn serve(
    udp: Vec<std::net::UdpSocket>,
    tcp: Vec<std::net::TcpListener>,
    names: Directory,
    upstream: Upstream,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let own = udp.iter().map(std::net::UdpSocket::local_addr).chain(tcp.iter().map(std::net::TcpListener::local_addr));
    let own = own.collect::<io::Result<Vec<_>>>()?;
    if upstream.servers(&own, tokio::time::Instant::now()).is_empty() {
        tracing::warn!(?own, "no nameserver for names outside the mesh but ourselves; set dns-upstream");
    }
    let resolver = Arc::new(Resolver::new(names, upstream, own, metrics));
    let queries = Arc::new(Semaphore::new(MAX_QUERIES));
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = JoinSet::new();
    for socket in udp {
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        tasks.spawn(udp::serve(socket, Arc::clone(&resolver), Arc::clone(&queries)));
    }
    for listener in tcp {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tasks.spawn(tcp::serve(listener, Arc::clone(&resolver), Arc::clone(&connections)));
    }
    stop.await;
    Ok(())
}

#[cfg(test)]
mod tests;
