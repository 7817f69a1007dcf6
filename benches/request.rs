//! The walk of a request: direct, through one sidecar, and through a pair with mutual TLS between them.
//!
//! Everything runs in this process, the application included, each on a thread of
//! its own; the figures are for comparing changes of the walk, not products.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot be set up has nothing to say"
)]

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pillion_proxy::config::{
    AppProtocol, Balancing, Cluster as ClusterConfig, Endpoint, Endpoints, InboundPort as PortConfig, RouteMatch,
};
use pillion_proxy::drain::Drain;
use pillion_proxy::filter::Active;
use pillion_proxy::identity::Identity;
use pillion_proxy::proxy::{Entry, Memory, Shared, Worker, listener};
use pillion_proxy::slot::Slot;
use pillion_proxy::snapshot::{
    Action, Cluster, Directory, Inbound, InboundPort, Lookup, Outbound, Route, Routes, Split, Target, TlsSplits,
    VirtualHost,
};
use pillion_proxy::telemetry::{AccessLog, Metrics, Telemetry};
use pillion_proxy::tls::{TlsClient, TlsServer};
use pillion_proxy::upstream::Upstream;
use pillion_proxy::{bootstrap, net};
use pillion_wire::mesh::MeshEndpoint;
use pillion_wire::spiffe::SpiffeId;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

criterion_group!(benches, requests);
criterion_main!(benches);

fn requests(criterion: &mut Criterion) {
    let application = application();
    let identities = Identities::new();
    let plain = Endpoint::new(application);
    let one = sidecar(identities.issue("client"), Some(plain), None);
    let server = identities.issue("server");
    let id = server.id.clone();
    let mesh = sidecar(server, None, Some(application)).mesh;
    let behind = Endpoint {
        mesh: Some(MeshEndpoint { port: mesh.port(), identity: id }),
        ..Endpoint::new(SocketAddr::new(mesh.ip(), 80))
    };
    let pair = sidecar(identities.issue("client"), Some(behind), None);

    let mut group = criterion.benchmark_group("http1_get_1KiB");
    for (name, address) in [("direct", application), ("one_sidecar", one.outbound), ("pair_mtls", pair.outbound)] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut sender = runtime.block_on(async {
            let stream = net::dial(address).await.expect("it listens");
            let (sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a fresh connection");
            tokio::spawn(connection);
            sender
        });
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    sender.ready().await.expect("it is kept");
                    let request = Request::get("/").header("host", "app.bench").body(Empty::<Bytes>::new());
                    let response = sender.send_request(request.expect("valid")).await.expect("an answer");
                    assert_eq!(response.status(), 200);
                    response.into_body().collect().await.expect("a whole body").to_bytes().len()
                })
            });
        });
    }
    group.finish();
}

/// Answers everything with 1 KiB.
fn application() -> SocketAddr {
    on_a_thread(|ready| async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        ready.send(listener.local_addr().expect("bound")).expect("somebody waits");
        let body = Bytes::from(vec![b'x'; 1024]);
        loop {
            let (stream, _) = listener.accept().await.expect("loopback");
            stream.set_nodelay(true).expect("a socket");
            let body = body.clone();
            let service = service_fn(move |_request| {
                let body = body.clone();
                async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}

#[derive(Clone, Copy)]
struct Ports {
    outbound: SocketAddr,
    mesh: SocketAddr,
}

/// A sidecar with fixed configuration: `app.bench:80` leads to `endpoint`, and its own application is `application`.
fn sidecar(identity: Identity, endpoint: Option<Endpoint>, application: Option<SocketAddr>) -> Ports {
    on_a_thread(move |ready| async move {
        let outbound_socket =
            net::listen("127.0.0.1:0".parse().expect("literal"), 1, net::Reach::Own).expect("loopback");
        let mesh_socket = net::listen("127.0.0.1:0".parse().expect("literal"), 1, net::Reach::Own).expect("loopback");
        let ports = Ports {
            outbound: outbound_socket[0].local_addr().expect("bound"),
            mesh: mesh_socket[0].local_addr().expect("bound"),
        };
        let identity = Arc::new(Slot::new(Some(identity)));
        let metrics = Arc::new(Metrics::new());
        let (demand, _demanded) = mpsc::channel(1);
        let settings = ["x", "--workload", "bench", "--control-plane", "127.0.0.1:1", "--control-plane-root", "none"];
        let settings = settings.into_iter().chain(["--join-token-file", "none", "--access-log", "off"]);
        let settings = bootstrap::load(settings.map(OsString::from)).expect("valid settings");
        let shared = Arc::new(Shared {
            settings: Arc::new(settings),
            directory: Directory::new(Arc::new(Slot::new(outbound(endpoint))), demand),
            inbound: Arc::new(Slot::new(Some(inbound(application)))),
            tls: TlsServer::new(Arc::clone(&identity)),
            telemetry: Telemetry::new(
                Arc::clone(&metrics),
                AccessLog::start(bootstrap::AccessLog::Off, metrics.access_log_dropped()),
            ),
            faults: Active::default(),
            mirrors: Active::default(),
            joined: Arc::default(),
            detected: Memory::default(),
            resolutions: Arc::default(),
            drain: Drain::default(),
            identity: Arc::clone(&identity),
        });
        let worker = Arc::new(Worker::new(shared, Arc::new(TlsClient::new(identity)), net::Dialer::default()));
        for (entry, mut sockets) in [(Entry::OutboundHttp, outbound_socket), (Entry::Mesh, mesh_socket)] {
            let listener = tokio::net::TcpListener::from_std(sockets.remove(0)).expect("a listening socket");
            let permits = Arc::new(Semaphore::new(100));
            let stop = CancellationToken::new();
            tokio::spawn(listener::serve(Arc::clone(&worker), listener, entry, permits, stop));
        }
        ready.send(ports).ok().expect("somebody waits");
        std::future::pending::<()>().await;
    })
}

fn outbound(endpoint: Option<Endpoint>) -> Outbound {
    let Some(endpoint) = endpoint else { return Outbound::default() };
    let upstream = Arc::new(Upstream::new("app.bench:80"));
    let endpoints = Endpoints::new("app.bench:80", vec![endpoint]);
    upstream.update(&endpoints, Balancing::default());
    let config = ClusterConfig::new("app.bench:80");
    let split = Split::new([(NonZeroU32::MIN, Arc::new(Cluster { config, upstream }))]).expect("a cluster");
    let route = Route {
        name: "bench".into(),
        matches: RouteMatch::default(),
        paths: "/*".into(),
        action: Action::Forward(split),
        filters: None,
        fallback: None,
        treatment: None,
        chosen: Default::default(),
    };
    let host = VirtualHost { domains: vec!["*".to_owned()], routes: vec![route] };
    let destination: pillion_wire::name::Destination = "app.bench:80".parse().expect("literal");
    let routes = Routes { name: "app.bench:80".to_owned(), virtual_hosts: vec![host] };
    let target = Target::new(destination.clone(), Some(routes), None, TlsSplits::default());
    let targets = HashMap::from([(destination, Lookup::Known(Arc::new(target)))]);
    Outbound { targets, ..Outbound::default() }
}

fn inbound(application: Option<SocketAddr>) -> Inbound {
    let Some(address) = application else { return Inbound::default() };
    let config = PortConfig::new(80, address, AppProtocol::Http1);
    Inbound { ports: BTreeMap::from([(80, Arc::new(InboundPort::new(config, &[address])))]) }
}

/// Runs `serve` on a thread with a runtime of its own, and waits for what it says first.
fn on_a_thread<T, F, Fut>(serve: F) -> T
where
    T: Send + 'static,
    F: FnOnce(oneshot::Sender<T>) -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(serve(sender));
    });
    receiver.blocking_recv().expect("the thread starts")
}

/// A root made for this run.
struct Identities {
    root: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Identities {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root");
        Self { root, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, account: &str) -> Identity {
        let id: SpiffeId = format!("spiffe://cluster.local/ns/bench/sa/{account}").parse().expect("literal");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().expect("ASCII"))];
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = pillion_proxy::tls::provider();
        let private = provider.key_provider.load_private_key(private).expect("a usable key");
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone()).expect("a root");
        Identity {
            id,
            key: Arc::new(CertifiedKey::new(vec![leaf.der().clone()], private)),
            roots: Arc::new(roots),
            not_before: SystemTime::now(),
            not_after: SystemTime::now() + Duration::from_secs(3600),
        }
    }
}
