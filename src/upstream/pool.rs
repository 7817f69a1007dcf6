//! Kept connections, one pool per worker: a connection never leaves the thread that made it.
//!
//! HTTP/1.1 connections carry one request at a time and wait in a list, the most
//! recently used first. HTTP/2 connections are shared; when the first is full up to
//! the peer's stream limit another is opened, one at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::connect::{connect, repeat};
use super::{Host, HostKey};
use crate::error::ProxyError;
use crate::http::{Http1, Http2, connect_http1, connect_http2};
use crate::net::{Dialer, Transport, Via};
use crate::tls::TlsClient;

/// The pool of one worker.
#[derive(Debug)]
pub struct Pool {
    tls: Arc<TlsClient>,
    dialer: Dialer,
    peers: Mutex<HashMap<PeerKey, Arc<Peer>>>,
}

/// Connections to sidecars are shared by all ports behind them; others are not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PeerKey {
    address: std::net::SocketAddr,
    identity: Option<pillion_wire::spiffe::SpiffeId>,
    via: Via,
}

#[derive(Debug, Default)]
struct Peer {
    http1: Mutex<Vec<Idle>>,
    http2: Mutex<Vec<Arc<Shared>>>,
    opening: tokio::sync::Mutex<Option<(Instant, ProxyError)>>,
}

#[derive(Debug)]
struct Idle {
    sender: Http1,
    since: Instant,
}

#[derive(Debug)]
struct Shared {
    connection: Http2,
    streams: AtomicUsize,
    last_used: Mutex<Instant>,
}

/// An HTTP/1.1 connection taken from the pool, or new.
#[derive(Debug)]
pub struct Lease1 {
    /// Sends the request.
    pub sender: Http1,
    /// It has carried a request before, so the host may just have closed it.
    pub reused: bool,
    peer: Arc<Peer>,
}

/// A place on an HTTP/2 connection; given back when dropped.
#[derive(Debug)]
pub struct Lease2 {
    connection: Arc<Shared>,
    /// It has carried a request before.
    pub reused: bool,
}

impl Pool {
    /// An empty pool.
    pub fn new(tls: Arc<TlsClient>, dialer: Dialer) -> Self {
        Self { tls, dialer, peers: Mutex::new(HashMap::new()) }
    }

    /// A new connection outside the pool, for opaque TCP.
    ///
    /// # Errors
    /// Nothing has been sent when this fails.
    pub async fn dial(&self, host: &Host, deadline: Duration) -> Result<Transport, ProxyError> {
        connect(&self.dialer, &self.tls, host.key(), deadline).await
    }

    /// An HTTP/1.1 connection: a kept one when `fresh` is false and there is one.
    ///
    /// # Errors
    /// Nothing has been sent when this fails.
    ///
    /// # Cancel safety
    /// A connection that was being made is dropped.
    pub async fn http1(&self, host: &Host, fresh: bool, deadline: Duration) -> Result<Lease1, ProxyError> {
        let peer = self.peer(host.key());
        if let Some(sender) = peer.kept().filter(|_| !fresh) {
            return Ok(Lease1 { sender, reused: true, peer });
        }
        let transport = connect(&self.dialer, &self.tls, host.key(), deadline).await?;
        let sender = connect_http1(transport).await.map_err(|error| broken(host.key(), &error))?;
        Ok(Lease1 { sender, reused: false, peer })
    }

    /// A place on an HTTP/2 connection.
    ///
    /// # Errors
    /// Nothing has been sent when this fails.
    ///
    /// # Cancel safety
    /// A connection that was being made is dropped; the next in line makes one.
    pub async fn http2(&self, host: &Host, deadline: Duration) -> Result<Lease2, ProxyError> {
        let peer = self.peer(host.key());
        if let Some(lease) = peer.share() {
            return Ok(lease);
        }
        let began = Instant::now();
        let open = async {
            let mut last_failure = peer.opening.lock().await;
            if let Some(lease) = peer.share() {
                return Ok(lease); // Somebody opened one while we waited.
            }
            if let Some((at, error)) = last_failure.as_ref()
                && *at > began
            {
                return Err(repeat(error)); // They tried for us too.
            }
            match self.open(host.key(), deadline).await {
                Ok(connection) => Ok(peer.add(connection)),
                Err(error) => {
                    *last_failure = Some((Instant::now(), repeat(&error)));
                    Err(error)
                }
            }
        };
        timeout(deadline, open).await.unwrap_or_else(|_late| Err(ProxyError::ConnectTimeout(host.key().dial())))
    }

    async fn open(&self, host: &HostKey, deadline: Duration) -> Result<Http2, ProxyError> {
        let transport = connect(&self.dialer, &self.tls, host, deadline).await?;
        connect_http2(transport).await.map_err(|error| broken(host, &error))
    }

    /// Closes connections that nothing has used for `idle`, and forgets peers without any.
    pub fn sweep(&self, now: Instant, idle: Duration) {
        self.peers.lock().retain(|_, peer| {
            let mut http1 = peer.http1.lock();
            http1.retain(|kept| !kept.sender.is_closed() && now < kept.since + idle);
            let mut http2 = peer.http2.lock();
            http2.retain(|shared| {
                let used = shared.streams.load(Ordering::Relaxed) > 0 || now < *shared.last_used.lock() + idle;
                used && !shared.connection.sender.is_closed()
            });
            !http1.is_empty() || !http2.is_empty() || Arc::strong_count(peer) > 1
        });
    }

    fn peer(&self, host: &HostKey) -> Arc<Peer> {
        let identity = host.mesh.as_ref().map(|mesh| mesh.identity.clone());
        let key = PeerKey { address: host.dial(), identity, via: host.via };
        Arc::clone(self.peers.lock().entry(key).or_default())
    }
}

impl Peer {
    /// The HTTP/1.1 connection that was used last and still stands.
    fn kept(&self) -> Option<Http1> {
        let mut idle = self.http1.lock();
        std::iter::from_fn(|| idle.pop()).map(|kept| kept.sender).find(Http1::is_ready)
    }

    fn share(self: &Arc<Self>) -> Option<Lease2> {
        let mut connections = self.http2.lock();
        connections.retain(|shared| !shared.connection.sender.is_closed());
        connections.iter().find_map(|shared| Lease2::take(shared, true))
    }

    fn add(self: &Arc<Self>, connection: Http2) -> Lease2 {
        let shared =
            Arc::new(Shared { connection, streams: AtomicUsize::new(1), last_used: Mutex::new(Instant::now()) });
        self.http2.lock().push(Arc::clone(&shared));
        Lease2 { connection: shared, reused: false }
    }
}

impl Lease1 {
    /// Gives the connection back once its response has been read to the end. A broken one is dropped.
    pub fn give_back(self) {
        let Self { mut sender, peer, .. } = self;
        let keep = |sender| peer.http1.lock().push(Idle { sender, since: Instant::now() });
        if sender.is_ready() {
            return keep(sender);
        }
        if !sender.is_closed() {
            let peer = Arc::clone(&peer);
            tokio::spawn(async move {
                if sender.ready().await.is_ok() {
                    peer.http1.lock().push(Idle { sender, since: Instant::now() });
                }
            });
        }
    }
}

impl Lease2 {
    fn take(shared: &Arc<Shared>, reused: bool) -> Option<Self> {
        let streams = shared.streams.load(Ordering::Relaxed);
        (streams < shared.connection.max_streams()).then(|| {
            shared.streams.fetch_add(1, Ordering::Relaxed);
            Self { connection: Arc::clone(shared), reused }
        })
    }

    /// Sends the request.
    pub fn sender(&self) -> hyper::client::conn::http2::SendRequest<crate::http::Body> {
        self.connection.connection.sender.clone()
    }
}

impl Drop for Lease2 {
    fn drop(&mut self) {
        self.connection.streams.fetch_sub(1, Ordering::Relaxed);
        *self.connection.last_used.lock() = Instant::now();
    }
}

/// A connection that broke before it was of use: cut, as by a peer that refuses our certificate, or no HTTP.
fn broken(host: &HostKey, error: &hyper::Error) -> ProxyError {
    use std::error::Error as _;
    let (address, cause) = (host.dial(), error.source());
    let detail = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
    if cause.is_some_and(|cause| cause.is::<std::io::Error>()) {
        return ProxyError::UpstreamReset { address, detail };
    }
    ProxyError::UpstreamProtocol { address, detail }
}
