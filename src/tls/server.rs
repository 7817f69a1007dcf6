//! TLS that we terminate: on the mesh port, and on front ports for callers outside the mesh.
//!
//! Sessions are never resumed, so that each connection is checked against the
//! roots of today; pooled connections make handshakes rare anyway.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;

use super::verify::ClientVerifier;
use crate::identity::Identity;
use crate::slot::Slot;

/// Server configurations of the current identity, remade when it changes.
#[derive(Debug)]
pub struct TlsServer {
    identity: Arc<Slot<Option<Identity>>>,
    built: Mutex<Option<Built>>,
}

#[derive(Debug)]
struct Built {
    identity: Arc<Option<Identity>>,
    mesh: Arc<ServerConfig>,
    front: Arc<ServerConfig>,
}

impl TlsServer {
    /// Follows `identity`.
    pub fn new(identity: Arc<Slot<Option<Identity>>>) -> Self {
        Self { identity, built: Mutex::new(None) }
    }

    /// For the mesh port: TLS 1.3, HTTP/2 only. `None` while there is no identity.
    pub fn mesh(&self) -> Option<Arc<ServerConfig>> {
        self.current(|built| Arc::clone(&built.mesh))
    }

    /// For front ports: the same checks; HTTP/2, HTTP/1.1, or no ALPN for opaque TCP.
    pub fn front(&self) -> Option<Arc<ServerConfig>> {
        self.current(|built| Arc::clone(&built.front))
    }

    fn current<T>(&self, pick: impl FnOnce(&Built) -> T) -> Option<T> {
        let identity = self.identity.load_full();
        let mut built = self.built.lock();
        if !built.as_ref().is_some_and(|built| Arc::ptr_eq(&built.identity, &identity)) {
            *built = build(identity);
        }
        built.as_ref().map(pick)
    }
}

fn build(identity: Arc<Option<Identity>>) -> Option<Built> {
    let known = identity.as_ref().as_ref()?;
    let mesh = Arc::new(config(known, &[b"h2"])?);
    let front = Arc::new(config(known, &[b"h2", b"http/1.1"])?);
    Some(Built { identity, mesh, front })
}

fn config(identity: &Identity, alpn: &[&[u8]]) -> Option<ServerConfig> {
    let provider = super::provider();
    let trust_domain = identity.id.trust_domain().clone();
    let verifier = ClientVerifier::new(trust_domain, Arc::clone(&identity.roots), Arc::clone(&provider))
        .inspect_err(|error| tracing::error!(%error, "no TLS: the mesh's roots cannot be used"))
        .ok()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .inspect_err(|error| tracing::error!(%error, "no TLS 1.3 in this build"))
        .ok()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key.as_ref().clone())));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.send_tls13_tickets = 0;
    Some(config)
}
