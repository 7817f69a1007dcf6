//! TLS to servers outside the mesh that have a name: they are believed as any client of the Internet would.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::provider;

/// Where distributions keep the certificates that they believe.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum PublicError {
    /// The file cannot be read.
    #[error("cannot read the certificates in {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is none.
    #[error("no certificate authority is known: give a PEM file (--otlp-ca)")]
    NoRoots,
    /// Our own settings do not fit together.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Believes the certificate authorities in `file` (PEM), or those of the system.
///
/// # Errors
/// [`PublicError`].
pub fn public_client(file: Option<&Path>) -> Result<Arc<ClientConfig>, PublicError> {
    let path = match file {
        Some(path) => path,
        None => SYSTEM.iter().map(Path::new).find(|path| path.exists()).ok_or(PublicError::NoRoots)?,
    };
    let text = std::fs::read(path).map_err(|source| PublicError::Unreadable { path: path.to_owned(), source })?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).filter_map(Result::ok));
    if roots.is_empty() {
        return Err(PublicError::NoRoots);
    }
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
