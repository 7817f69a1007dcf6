//! Accepts connections and serves gRPC on them, until asked to stop.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;
use tracing::{debug, warn};

use super::{preface::AfterPreface, tls};
use crate::{caller::Peer, metrics::Metrics, shutdown::Shutdown};

/// How long the TLS handshake and the preface after it may take, each.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many connections may be open. More wait in the accept queue.
const MAX_CONNECTIONS: usize = 10_000;
/// How many calls one connection may have at a time: a stream, a certificate, a few to spare.
const MAX_CALLS: u32 = 100;
/// A connection that does not answer a ping for this long is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long connections get to end after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);
/// How long to wait after accepting failed, which it does when files run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The control plane's port.
pub struct Port {
    /// The bound socket.
    pub listener: TcpListener,
    /// TLS.
    pub acceptor: TlsAcceptor,
    /// The services.
    pub routes: Routes,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Ends it.
    pub shutdown: Shutdown,
}

impl Port {
    /// Serves until asked to stop, then lets connections end.
    pub async fn serve(self) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let served = Arc::new(Served {
            acceptor: self.acceptor,
            routes: self.routes.prepare(),
            metrics: self.metrics,
            shutdown: self.shutdown.clone(),
        });
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &permits) => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                () = self.shutdown.requested() => break,
            };
            match accepted {
                Ok((stream, address, permit)) => {
                    let served = Arc::clone(&served);
                    connections.spawn(async move {
                        served.connection(stream, address).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        let _ = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
        connections.abort_all();
    }
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, permit))
}

/// What every connection needs.
struct Served {
    acceptor: TlsAcceptor,
    routes: Routes,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
}

impl Served {
    async fn connection(&self, stream: TcpStream, address: SocketAddr) {
        // Small messages both ways: nothing is gained by waiting for more.
        let _ = stream.set_nodelay(true);
        let Ok(handshake) = timeout(HANDSHAKE, self.acceptor.accept(stream)).await else {
            return self.metrics.connection("handshake_timeout");
        };
        let stream = match handshake {
            Ok(stream) => stream,
            Err(error) => {
                debug!(%address, %error, "TLS handshake failed");
                return self.metrics.connection("handshake_failed");
            }
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let identity = certificates.and_then(<[_]>::first).and_then(tls::identity);
        let peer = Peer { address, identity };
        let stream = match timeout(HANDSHAKE, AfterPreface::read(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) => return self.metrics.connection("not_http2"),
            Err(_) => return self.metrics.connection("preface_timeout"),
        };
        self.metrics.connection("served");
        self.metrics.open_connections().inc();
        self.requests(stream, peer).await;
        self.metrics.open_connections().dec();
    }

    async fn requests<S>(&self, stream: S, peer: Peer)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let address = peer.address;
        let routes = TowerToHyperService::new(self.routes.clone());
        let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            hyper::service::Service::call(&routes, request.map(tonic::body::Body::new))
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CALLS)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.shutdown.requested() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            debug!(%address, %error, "connection ended");
        }
    }
}
