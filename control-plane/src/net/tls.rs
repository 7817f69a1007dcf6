//! TLS of the control plane's port: our certificate, and the client's if it has one.

use std::sync::Arc;

use pillion_wire::spiffe::SpiffeId;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version,
};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::ca::{authority::Authority, serving::Serving};

/// The TLS server cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A root cannot be used.
    #[error("root certificate: {0}")]
    Root(#[from] rustls::Error),
    /// The verifier cannot be made.
    #[error("client verifier: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The cryptography that is used everywhere.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// TLS 1.3 for sidecars, and 1.2 because Envoy's clients start there.
///
/// Sessions are not resumed: a resumed session would not look at the client's
/// certificate again.
///
/// # Errors
///
/// When the roots cannot be used.
pub fn server_config(
    authority: &Authority,
    serving: Arc<Serving>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root.clone())?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_fragment_size = None;
    Ok(config)
}

/// The identity in a verified certificate: its only URI.
#[must_use]
pub fn identity(certificate: &CertificateDer<'_>) -> Option<SpiffeId> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let mut names = certificate.valid_uri_names();
    let name = names.next()?;
    if names.next().is_some() {
        return None;
    }
    name.parse().ok()
}
