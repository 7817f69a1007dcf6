//! A control plane as a child process, and a client of it.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "test support, of which each test uses a part"
)]

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use pillion_control_plane::ca::join_token;
use pillion_wire::{
    ca::{CreateCertificateRequest, client::IstioCertificateServiceClient},
    mesh::NodeInfo,
    xds::discovery::{AggregatedDiscoveryServiceClient, DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    codegen::{Service, http::Uri},
    transport::{Channel, Endpoint},
};

const MINUTE: Duration = Duration::from_secs(60);
/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running control plane, killed when dropped.
pub struct ControlPlane {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub dir: tempfile::TempDir,
    pub child: Child,
}

impl ControlPlane {
    pub fn start(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        std::fs::create_dir(&config).unwrap();
        for (name, text) in files {
            std::fs::write(config.join(name), text).unwrap();
        }
        let (child, listen, admin) = launch(dir.path(), "127.0.0.1:0");
        Self { listen, admin, dir, child }
    }

    /// Starts again on the same port with the same state.
    pub fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let (child, listen, admin) = launch(self.dir.path(), &self.listen.to_string());
        (self.child, self.listen, self.admin) = (child, listen, admin);
    }

    pub fn config(&self, name: &str) -> PathBuf {
        self.dir.path().join("config").join(name)
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn token(&self, namespace: &str, account: &str) -> String {
        join_token::mint(&self.state(), namespace, account, MINUTE).unwrap()
    }

    pub fn root(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.state().join("root.pem")).unwrap()
    }

    /// A connection, with or without a client certificate.
    pub async fn channel(&self, identity: Option<&Identity>) -> Channel {
        let connector = Connector { address: self.listen, config: Arc::new(client_config(self.root(), identity)) };
        Endpoint::from_static("https://localhost").connect_with_connector(connector).await.unwrap()
    }

    /// A certificate for an account.
    pub async fn certify(&self, namespace: &str, account: &str) -> Identity {
        let token = self.token(namespace, account);
        let key = KeyPair::generate().unwrap();
        let chain = self.ask(&token, csr(&key), 3600).await.unwrap();
        Identity::new(&chain, &key)
    }

    /// Asks for a certificate.
    pub async fn ask(&self, token: &str, csr: String, seconds: i64) -> Result<Vec<String>, Status> {
        let mut client = IstioCertificateServiceClient::new(self.channel(None).await);
        let request = with_token(
            Request::new(CreateCertificateRequest { csr, validity_duration: seconds, metadata: None }),
            token,
        );
        Ok(client.create_certificate(request).await?.into_inner().cert_chain)
    }

    /// A page of the admin port.
    pub async fn page(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// The value of a metric, 0 when it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = self.page("/metrics").await;
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default()
    }

    pub fn stop(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(dir: &Path, listen: &str) -> (Child, SocketAddr, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pillion-control-plane"))
        .arg("--config")
        .arg(dir.join("config"))
        .arg("--state")
        .arg(dir.join("state"))
        .args(["--listen", listen, "--admin", "127.0.0.1:0", "--log", "debug,h2=off"])
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(dir.join("log")).unwrap())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    let ready: serde_json::Value =
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{}", std::fs::read_to_string(dir.join("log")).unwrap()));
    assert_eq!(ready["event"], "ready");
    let address = |key: &str| ready[key].as_str().unwrap().parse().unwrap();
    (child, address("listen"), address("admin"))
}

/// A client certificate and its key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    pub fn new(chain: &[String], key: &KeyPair) -> Self {
        let presented = &chain[..chain.len() - 1];
        Self {
            chain: presented.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).collect(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }
}

pub fn csr(key: &KeyPair) -> String {
    csr_with(key, |_| {})
}

pub fn csr_with(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    change(&mut params);
    params.serialize_request(key).unwrap().pem().unwrap()
}

pub fn with_token<T>(mut request: Request<T>, token: &str) -> Request<T> {
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

pub fn client_config(root: CertificateDer<'static>, identity: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[derive(Clone)]
struct Connector {
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send + 'static>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, config } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            let name = "localhost".try_into().unwrap();
            Ok(TokioIo::new(TlsConnector::from(config).connect(name, stream).await?))
        })
    }
}

/// A delta stream.
pub struct Delta {
    pub requests: mpsc::Sender<DeltaDiscoveryRequest>,
    pub responses: Streaming<DeltaDiscoveryResponse>,
}

impl Delta {
    pub async fn open(channel: Channel, token: Option<&str>, node: &NodeInfo) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(64);
        let mut request = Request::new(ReceiverStream::new(receiver));
        if let Some(token) = token {
            request = with_token(request, token);
        }
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 << 20);
        let first = DeltaDiscoveryRequest {
            node: Some(node.to_node()),
            type_url: pillion_wire::xds::type_url::ROUTE.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(first).await.unwrap();
        let responses = client.delta_aggregated_resources(request).await?.into_inner();
        Ok(Self { requests, responses })
    }

    pub async fn subscribe(&self, type_url: &str, names: &[&str]) {
        self.requests
            .send(DeltaDiscoveryRequest {
                type_url: type_url.to_owned(),
                resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
                ..DeltaDiscoveryRequest::default()
            })
            .await
            .unwrap();
    }

    pub async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let response = timeout(PATIENCE, self.responses.message()).await.expect("a response in time")?;
        Ok(response.expect("the stream goes on"))
    }

    /// Whether nothing comes for a moment.
    pub async fn is_quiet(&mut self, moment: Duration) -> bool {
        timeout(moment, self.responses.message()).await.is_err()
    }
}

pub fn node(namespace: &str, workload: &str, account: &str) -> NodeInfo {
    NodeInfo {
        workload: workload.to_owned(),
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        zone: String::new(),
        version: "test".to_owned(),
    }
}

/// Two services, three workloads and a route.
pub const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: { name: orders, namespace: shop }
spec: { selector: { app: orders }, ports: [ { name: http, port: 80, targetPort: http } ] }
---
apiVersion: v1
kind: Service
metadata: { name: payment, namespace: shop }
spec: { selector: { app: payment }, ports: [ { port: 80, targetPort: http } ] }
---
apiVersion: v1
kind: Service
metadata: { name: ledger, namespace: shop }
spec: { selector: { app: ledger }, ports: [ { port: 7000, targetPort: tcp, appProtocol: tcp } ] }
---
apiVersion: pillion.dev/v1alpha1
kind: Workload
metadata: { name: orders-1, namespace: shop, labels: { app: orders } }
spec:
  address: 127.0.0.1
  serviceAccount: orders
  mesh: { port: 25008 }
  ports: [ { name: http, port: 28080, application: '127.0.0.1:8080', protocol: http } ]
---
apiVersion: pillion.dev/v1alpha1
kind: Workload
metadata: { name: payment-1, namespace: shop, labels: { app: payment } }
spec:
  address: 127.0.0.1
  serviceAccount: payment
  mesh: { port: 25009 }
  ports: [ { name: http, port: 28081, application: '127.0.0.1:8081', access: permissive } ]
---
apiVersion: pillion.dev/v1alpha1
kind: Workload
metadata: { name: ledger-1, namespace: shop, labels: { app: ledger } }
spec:
  address: 127.0.0.1
  ports: [ { name: tcp, port: 7001 } ]
";

/// A route that splits orders between itself and payment.
pub fn split(weight: u32) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: split, namespace: shop }}
spec:
  parentRefs: [ {{ group: '', kind: Service, name: orders }} ]
  rules:
  - backendRefs:
    - {{ name: orders, port: 80, weight: {weight} }}
    - {{ name: payment, port: 80, weight: 10 }}
"
    )
}
