//! A control plane for tests: real sockets, mutual TLS, any gRPC services; can be killed and started again.

#![allow(clippy::expect_used, reason = "test support")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use pillion_wire::spiffe::SpiffeId;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;

use super::provider;
use super::test_pki::{Authority, params};
use super::verify::spiffe_id_of;

/// The id that sidecars expect.
pub(crate) const CONTROL_PLANE: &str = "spiffe://cluster.local/ns/pillion-system/sa/pillion-control-plane";

/// Who connected: by certificate, if there was one.
pub(crate) type Peers = Arc<Mutex<Vec<Option<SpiffeId>>>>;

/// A running server. Dropping it closes its port and all of its connections.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) peers: Peers,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Serves `routes` at `address`, with a certificate for `id` from `authority`.
    pub(crate) async fn start(address: SocketAddr, authority: &Authority, id: &str, routes: Routes) -> Self {
        let listener = bind(address).await;
        let address = listener.local_addr().expect("bound");
        let acceptor = TlsAcceptor::from(Arc::new(config(authority, id)));
        let peers = Peers::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, acceptor, routes, Arc::clone(&peers)));
        Self { address, peers, _tasks: tasks }
    }
}

/// A server that was just killed may hold its port for another moment.
async fn bind(address: SocketAddr) -> TcpListener {
    for _ in 0..1000 {
        if let Ok(listener) = TcpListener::bind(address).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    TcpListener::bind(address).await.expect("free port")
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, routes: Routes, peers: Peers) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, acceptor.clone(), routes.clone(), Arc::clone(&peers)));
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, routes: Routes, peers: Peers) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let peer = stream.get_ref().1.peer_certificates().and_then(|chain| spiffe_id_of(chain.first()?).ok());
    peers.lock().expect("not poisoned").push(peer);
    let service = TowerToHyperService::new(routes);
    let _ended = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn config(authority: &Authority, id: &str) -> ServerConfig {
    let (leaf, key) = authority.sign(&params(&[id]));
    let chain = std::iter::once(leaf).chain(authority.intermediates()).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()));
    let clients = WebPkiClientVerifier::builder_with_provider(authority.roots(), provider())
        .allow_unauthenticated()
        .build()
        .expect("there is a root");
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("supported")
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .expect("key fits");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
