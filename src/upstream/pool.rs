//! Kept connections, one pool per worker: a connection never leaves the thread that made it.
//!
//! HTTP/1.1 connections carry one request at a time and wait in a list, the most
//! recently used first. HTTP/2 connections are shared; when the first is full up to
//! the peer's stream limit another is opened, one at a time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use parking_lot::Mutex;
use pillion_wire::spiffe::SpiffeId;
use tokio::time::{Instant, timeout};

use super::connect::{connect, repeat};
use super::{Host, HostKey};
use crate::config::{Age, Keep};
use crate::error::ProxyError;
use crate::http::{Body, Http1, Http2, HttpError, Unsent, connect_http1, connect_http2};
use crate::net::{Dialer, Transport, Via};
use crate::tls::TlsClient;

/// The pool of one worker.
#[derive(Debug)]
pub struct Pool {
    tls: Arc<TlsClient>,
    dialer: Dialer,
    /// By what is dialled. Connections to sidecars are shared by all ports behind them; others are not.
    peers: Mutex<HashMap<Dialled, Vec<Arc<Peer>>>>,
}

/// Where a connection leads, and how; by its name where that is what matters.
type Dialled = (SocketAddr, Via, Option<Arc<str>>);

/// Who is expected to answer there (`None`: anybody), and the connections to them.
#[derive(Debug)]
struct Peer {
    identity: Option<SpiffeId>,
    /// How long the cluster that was used last lets connections rest; in milliseconds, 0 when it does not say.
    rest: AtomicU64,
    http1: Mutex<Vec<Idle>>,
    http2: Mutex<Vec<Arc<Shared>>>,
    opening: tokio::sync::Mutex<Option<(Instant, ProxyError)>>,
}

#[derive(Debug)]
struct Idle {
    sender: Http1,
    since: Instant,
    birth: Birth,
}

/// When a connection was made, and its luck: what it gets of its age's jitter, 0 to 1.
#[derive(Clone, Copy, Debug)]
struct Birth(Instant, f32);

#[derive(Debug)]
struct Shared {
    connection: Http2,
    last_used: Mutex<Instant>,
    birth: Birth,
}

/// An HTTP/1.1 connection taken from the pool, or new.
#[derive(Debug)]
pub struct Lease1 {
    sender: Http1,
    /// It has carried a request before, so the host may just have closed it.
    pub reused: bool,
    peer: Arc<Peer>,
    birth: Birth,
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
        connect(&self.dialer, &self.tls, host, deadline).await
    }

    /// An HTTP/1.1 connection: a kept one when `fresh` is false and there is one.
    ///
    /// # Errors
    /// Nothing has been sent when this fails.
    ///
    /// # Cancel safety
    /// A connection that was being made is dropped.
    pub async fn http1(&self, host: &Host, fresh: bool, deadline: Duration, keep: Keep) -> Result<Lease1, ProxyError> {
        let peer = self.peer(host.key());
        peer.may_rest(keep.rest);
        if let Some((sender, birth)) = peer.kept(keep.age).filter(|_| !fresh) {
            return Ok(Lease1 { sender, reused: true, peer, birth });
        }
        Box::pin(self.open_http1(host, peer, deadline)).await // Rare, and large.
    }

    async fn open_http1(&self, host: &Host, peer: Arc<Peer>, deadline: Duration) -> Result<Lease1, ProxyError> {
        let transport = connect(&self.dialer, &self.tls, host, deadline).await?;
        let sender = connect_http1(transport).await.map_err(|error| broken(host, &error))?;
        Ok(Lease1 { sender, reused: false, peer, birth: Birth::now() })
    }

    /// A place on an HTTP/2 connection.
    ///
    /// # Errors
    /// Nothing has been sent when this fails.
    ///
    /// # Cancel safety
    /// A connection that was being made is dropped; the next in line makes one.
    pub async fn http2(&self, host: &Host, deadline: Duration, keep: Keep) -> Result<Lease2, ProxyError> {
        let peer = self.peer(host.key());
        peer.may_rest(keep.rest);
        if let Some(lease) = peer.share(keep.age) {
            return Ok(lease);
        }
        Box::pin(self.open_http2(host, peer, deadline, keep.age)).await // Rare, and large.
    }

    async fn open_http2(
        &self,
        host: &Host,
        peer: Arc<Peer>,
        deadline: Duration,
        age: Option<Age>,
    ) -> Result<Lease2, ProxyError> {
        let began = Instant::now();
        let open = async {
            let mut last_failure = peer.opening.lock().await;
            if let Some(lease) = peer.share(age) {
                return Ok(lease); // Somebody opened one while we waited.
            }
            if let Some((at, error)) = last_failure.as_ref()
                && *at > began
            {
                return Err(repeat(error)); // They tried for us too.
            }
            match self.open(host, deadline).await {
                Ok(connection) => Ok(peer.add(connection)),
                Err(error) => {
                    *last_failure = Some((Instant::now(), repeat(&error)));
                    Err(error)
                }
            }
        };
        timeout(deadline, open).await.unwrap_or_else(|_late| Err(ProxyError::ConnectTimeout(host.dial())))
    }

    async fn open(&self, host: &Host, deadline: Duration) -> Result<Http2, ProxyError> {
        let transport = connect(&self.dialer, &self.tls, host, deadline).await?;
        connect_http2(transport).await.map_err(|error| broken(host, &error))
    }

    /// Closes connections that nothing has used for `idle`, and forgets peers without any.
    pub fn sweep(&self, now: Instant, idle: Duration) {
        let is_used = |peer: &Arc<Peer>| {
            let idle = peer.rest().map_or(idle, |rest| rest.min(idle));
            let mut http1 = peer.http1.lock();
            http1.retain(|kept| !kept.sender.is_closed() && now < kept.since + idle);
            let mut http2 = peer.http2.lock();
            http2.retain(|shared| {
                let used = shared.connection.streams() > 0 || now < *shared.last_used.lock() + idle;
                used && !shared.connection.is_closed()
            });
            !http1.is_empty() || !http2.is_empty() || Arc::strong_count(peer) > 1
        };
        self.peers.lock().retain(|_, peers| {
            peers.retain(is_used);
            !peers.is_empty()
        });
    }

    fn peer(&self, host: &HostKey) -> Arc<Peer> {
        let identity = host.mesh.as_ref().map(|mesh| &mesh.identity);
        let mut all = self.peers.lock();
        let peers = all.entry((host.dial(), host.via, host.name.clone())).or_default();
        if let Some(peer) = peers.iter().find(|peer| peer.identity.as_ref() == identity) {
            return Arc::clone(peer);
        }
        let peer = Arc::new(Peer::new(identity.cloned()));
        peers.push(Arc::clone(&peer));
        peer
    }
}

impl Peer {
    fn new(identity: Option<SpiffeId>) -> Self {
        Self {
            identity,
            rest: AtomicU64::new(0),
            http1: Mutex::default(),
            http2: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    fn may_rest(&self, rest: Option<Duration>) {
        let millis = rest.map_or(0, |rest| u64::try_from(rest.as_millis()).unwrap_or(u64::MAX));
        if self.rest.load(Ordering::Relaxed) != millis {
            self.rest.store(millis, Ordering::Relaxed);
        }
    }

    fn rest(&self) -> Option<Duration> {
        let millis = self.rest.load(Ordering::Relaxed);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// The HTTP/1.1 connection that was used last, still stands, has not rested for too long, and is not too old.
    fn kept(&self, age: Option<Age>) -> Option<(Http1, Birth)> {
        let is_fresh = |since: Instant| self.rest().is_none_or(|rest| since.elapsed() < rest);
        let mut idle = self.http1.lock();
        std::iter::from_fn(|| idle.pop())
            .filter(|kept| is_fresh(kept.since) && !kept.birth.is_over(age))
            .map(|kept| (kept.sender, kept.birth))
            .find(|(sender, _)| sender.is_ready())
    }

    fn share(self: &Arc<Self>, age: Option<Age>) -> Option<Lease2> {
        let mut connections = self.http2.lock();
        let has_rested = |shared: &Shared| {
            let rest = self.rest().filter(|_| shared.connection.streams() == 0);
            rest.is_some_and(|rest| shared.last_used.lock().elapsed() >= rest)
        };
        // One that is too old ends with the last request that it has.
        let is_of_use = |shared: &Shared| !shared.connection.is_closed() && !has_rested(shared);
        connections.retain(|shared| is_of_use(shared) && !shared.birth.is_over(age));
        connections.iter().find_map(|shared| Lease2::take(shared, true))
    }

    fn add(self: &Arc<Self>, connection: Http2) -> Lease2 {
        connection.enter(); // It may have been closed meanwhile: then the request says so.
        let shared = Arc::new(Shared { connection, last_used: Mutex::new(Instant::now()), birth: Birth::now() });
        self.http2.lock().push(Arc::clone(&shared));
        Lease2 { connection: shared, reused: false }
    }
}

impl Birth {
    fn now() -> Self {
        Self(Instant::now(), rand::random())
    }

    fn is_over(self, age: Option<Age>) -> bool {
        age.is_some_and(|age| self.0.elapsed() >= age.with(self.1))
    }
}

impl Lease1 {
    /// As [`Http1::send`].
    ///
    /// # Errors
    /// With the body, when nothing was sent.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Body>, Unsent> {
        self.sender.send(request).await
    }

    /// Gives the connection back once its response has been read to the end. A broken one is dropped.
    pub fn give_back(self) {
        let Self { mut sender, peer, birth, .. } = self;
        let keep = |sender| peer.http1.lock().push(Idle { sender, since: Instant::now(), birth });
        if sender.is_ready() {
            return keep(sender);
        }
        if !sender.is_closed() {
            let peer = Arc::clone(&peer);
            tokio::spawn(async move {
                if sender.ready().await {
                    peer.http1.lock().push(Idle { sender, since: Instant::now(), birth });
                }
            });
        }
    }
}

impl Lease2 {
    fn take(shared: &Arc<Shared>, reused: bool) -> Option<Self> {
        shared.connection.enter().then(|| Self { connection: Arc::clone(shared), reused })
    }

    /// The connection.
    pub fn connection(&self) -> &Http2 {
        &self.connection.connection
    }
}

impl Drop for Lease2 {
    fn drop(&mut self) {
        self.connection.connection.leave();
        if self.connection.connection.streams() == 0 {
            *self.connection.last_used.lock() = Instant::now();
        }
    }
}

/// A connection that broke before it was of use: cut, as by a peer that refuses our certificate, or no HTTP.
fn broken(host: &Host, error: &HttpError) -> ProxyError {
    let (address, detail) = (host.dial(), error.detail());
    if error.is_io() {
        ProxyError::UpstreamReset { address, detail }
    } else {
        ProxyError::UpstreamProtocol { address, detail }
    }
}
