//! The control plane's own certificate: signed by its own intermediate, renewed
//! at half its life, swapped without closing a connection.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use pillion_wire::spiffe::{TrustDomain, control_plane_id};
use rcgen::KeyPair;
use rustls::{
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tracing::{error, info};

use super::{
    authority::Authority,
    sign::{ServerNames, SignError},
};
use crate::shutdown::Shutdown;

/// Lifetime of the certificate.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// When to try again after a renewal that failed.
const RETRY: Duration = Duration::from_secs(60);

/// The newest certificate, for the TLS server.
#[derive(Debug)]
pub struct Serving {
    current: ArcSwap<CertifiedKey>,
    authority: Authority,
    trust_domain: TrustDomain,
    names: ServerNames,
    provider: Arc<CryptoProvider>,
}

/// The control plane cannot make itself a certificate.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// Signing failed.
    #[error("own certificate: {0}")]
    Sign(#[from] SignError),
    /// No key could be made.
    #[error("own key: {0}")]
    Key(#[from] rcgen::Error),
    /// The key cannot be used.
    #[error("own key: {0}")]
    Tls(#[from] rustls::Error),
}

impl Serving {
    /// Makes the first certificate, valid for the usual names and `address`.
    ///
    /// # Errors
    ///
    /// When signing fails.
    pub fn new(
        authority: Authority,
        trust_domain: TrustDomain,
        address: IpAddr,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, ServingError> {
        let mut addresses = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
        if !address.is_unspecified() && !addresses.contains(&address) {
            addresses.push(address);
        }
        let names = ServerNames {
            dns: vec!["localhost".to_owned(), "pillion-control-plane.pillion-system.svc".to_owned()],
            addresses,
        };
        let first = issue(&authority, &trust_domain, &names, &provider)?;
        Ok(Self { current: ArcSwap::from_pointee(first), authority, trust_domain, names, provider })
    }

    /// Renews for ever, until asked to stop.
    pub async fn renew(self: Arc<Self>, shutdown: Shutdown) {
        let mut wait = LIFETIME / 2;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.requested() => return,
            }
            wait = match issue(&self.authority, &self.trust_domain, &self.names, &self.provider) {
                Ok(key) => {
                    self.current.store(Arc::new(key));
                    info!("renewed the control plane's own certificate");
                    LIFETIME / 2
                }
                Err(error) => {
                    error!(%error, "cannot renew the control plane's own certificate");
                    RETRY
                }
            };
        }
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn issue(
    authority: &Authority,
    trust_domain: &TrustDomain,
    names: &ServerNames,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, ServingError> {
    let key = KeyPair::generate()?;
    let identity = control_plane_id(trust_domain);
    let leaf = authority.signer().sign(&identity, &key, LIFETIME, names)?;
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = provider.key_provider.load_private_key(der)?;
    Ok(CertifiedKey::new(vec![leaf, authority.intermediate().clone()], signing))
}
