//! TLS that we originate: to the sidecar of a known identity, and to nobody else.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pillion_wire::spiffe::SpiffeId;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;

use super::verify::ServerVerifier;
use crate::identity::Identity;
use crate::slot::Slot;

/// Client configurations by peer, remade when our identity or the roots change.
#[derive(Debug)]
pub struct TlsClient {
    identity: Arc<Slot<Option<Identity>>>,
    built: Mutex<Built>,
}

#[derive(Debug, Default)]
struct Built {
    identity: Arc<Option<Identity>>,
    by_peer: HashMap<SpiffeId, Arc<ClientConfig>>,
}

impl TlsClient {
    /// Follows `identity`.
    pub fn new(identity: Arc<Slot<Option<Identity>>>) -> Self {
        Self { identity, built: Mutex::new(Built::default()) }
    }

    /// A configuration that accepts only `peer`. `None` while there is no identity.
    pub fn to(&self, peer: &SpiffeId) -> Option<Arc<ClientConfig>> {
        let identity = self.identity.load_full();
        let mut built = self.built.lock();
        if !Arc::ptr_eq(&built.identity, &identity) {
            *built = Built { identity: Arc::clone(&identity), by_peer: HashMap::new() };
        }
        if let Some(config) = built.by_peer.get(peer) {
            return Some(Arc::clone(config));
        }
        let config = Arc::new(config(identity.as_ref().as_ref()?, peer)?);
        built.by_peer.insert(peer.clone(), Arc::clone(&config));
        Some(config)
    }
}

fn config(identity: &Identity, peer: &SpiffeId) -> Option<ClientConfig> {
    let provider = super::provider();
    let verifier = ServerVerifier::new(peer.clone(), Arc::clone(&identity.roots), Arc::clone(&provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .inspect_err(|error| tracing::error!(%error, "no TLS 1.3 in this build"))
        .ok()?
        .dangerous() // Our verifier checks the chain and the SPIFFE id; there is no DNS name to check.
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key.as_ref().clone())));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Some(config)
}
