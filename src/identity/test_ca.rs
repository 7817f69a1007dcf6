//! A CA for tests, over real sockets, and a sidecar's settings that lead to it.

#![allow(clippy::expect_used, reason = "test support")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pillion_wire::ca::server::{IstioCertificateService, IstioCertificateServiceServer};
use pillion_wire::ca::{CreateCertificateRequest, CreateCertificateResponse};
use rcgen::{PublicKeyData, SignatureAlgorithm};
use tempfile::TempDir;
use time::OffsetDateTime;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use crate::bootstrap::Bootstrap;
use crate::tls::test_control::{CONTROL_PLANE, Server};
use crate::tls::test_pki::{Authority, params};

pub(crate) const ORDERS: &str = "spiffe://cluster.local/ns/shop/sa/orders";

/// How the CA behaves, and what it saw. Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Ca {
    pub(crate) authority: Arc<Authority>,
    pub(crate) behaviour: Arc<Mutex<Behaviour>>,
    pub(crate) tokens: Arc<Mutex<Vec<Option<String>>>>,
}

pub(crate) struct Behaviour {
    pub(crate) id: &'static str,
    pub(crate) lifetime: time::Duration,
    /// Signs the key of somebody else.
    pub(crate) other_key: bool,
    pub(crate) refuse: bool,
}

/// Settings and the folder that they point into.
pub(crate) struct Sidecar {
    pub(crate) bootstrap: Arc<Bootstrap>,
    folder: TempDir,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let behaviour = Behaviour { id: ORDERS, lifetime: time::Duration::hours(1), other_key: false, refuse: false };
        Self {
            authority: Arc::new(Authority::new()),
            behaviour: Arc::new(Mutex::new(behaviour)),
            tokens: Arc::default(),
        }
    }

    pub(crate) fn routes(&self) -> Routes {
        Routes::new(IstioCertificateServiceServer::new(self.clone()))
    }

    pub(crate) async fn start(&self) -> Server {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Server::start(any_port, &self.authority, CONTROL_PLANE, self.routes()).await
    }

    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().expect("not poisoned"));
    }

    pub(crate) fn tokens(&self) -> Vec<Option<String>> {
        self.tokens.lock().expect("not poisoned").clone()
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Ca {
    async fn create_certificate(
        &self,
        request: Request<CreateCertificateRequest>,
    ) -> Result<Response<CreateCertificateResponse>, Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
        self.tokens.lock().expect("not poisoned").push(token);
        let behaviour = self.behaviour.lock().expect("not poisoned");
        if behaviour.refuse {
            return Err(Status::permission_denied("not today"));
        }
        let csr = request.into_inner().csr;
        let key = if behaviour.other_key { other_key() } else { key_of(&csr) };
        let mut leaf = params(&[behaviour.id]);
        leaf.not_after = OffsetDateTime::now_utc() + behaviour.lifetime;
        let mut cert_chain = vec![self.authority.sign_key(&leaf, &key)];
        cert_chain.extend(self.authority.chain_pem());
        Ok(Response::new(CreateCertificateResponse { cert_chain }))
    }
}

/// A P-256 key that we only know the public half of.
struct PublicKey(Vec<u8>);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn key_of(csr: &str) -> PublicKey {
    let (_, block) = x509_parser::pem::parse_x509_pem(csr.as_bytes()).expect("PEM");
    let (_, request) = X509CertificationRequest::from_der(&block.contents).expect("CSR");
    PublicKey(request.certification_request_info.subject_pki.subject_public_key.data.to_vec())
}

fn other_key() -> PublicKey {
    PublicKey(rcgen::KeyPair::generate().expect("key").public_key_raw().to_vec())
}

impl Sidecar {
    /// One that trusts `authority` and finds its control plane at `address`.
    pub(crate) fn new(authority: &Authority, address: SocketAddr, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (root, token) = (folder.path().join("root.pem"), folder.path().join("token"));
        std::fs::write(&root, authority.root_pem()).expect("writable");
        std::fs::write(&token, "pillion.v1.token\n").expect("writable");
        let mut args: Vec<std::ffi::OsString> =
            ["pillion-proxy", "--workload=orders-1", "--namespace=shop", "--service-account=orders"]
                .into_iter()
                .map(Into::into)
                .collect();
        args.push(format!("--control-plane={address}").into());
        args.extend([("--control-plane-root=", &root), ("--join-token-file=", &token)].map(|(flag, path)| {
            let mut arg = std::ffi::OsString::from(flag);
            arg.push(path);
            arg
        }));
        args.extend(more.iter().map(Into::into));
        let bootstrap = Arc::new(crate::bootstrap::load(args).expect("valid settings"));
        Self { bootstrap, folder }
    }

    pub(crate) fn root_file(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }
}
