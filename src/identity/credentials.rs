//! What proves who we are, and whom we trust, at the moment of a connection to the control plane.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::metadata::{Ascii, MetadataValue};

use super::Identity;
use crate::bootstrap::Bootstrap;

/// A join token is some hundred bytes; more is not one.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Why there is nothing to connect with.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The mesh's roots cannot be read.
    #[error("cannot read the roots in {}: {source}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not PEM.
    #[error("the roots in {} are not PEM: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// One of the certificates is none.
    #[error("a root in {} is no certificate: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The file holds no certificate.
    #[error("there is no root in {}", .0.display())]
    NoRoot(PathBuf),
    /// Neither a valid certificate nor a join token.
    #[error("cannot read the join token in {}: {source}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token's file holds something else.
    #[error("the file {} is empty or too large for a join token", .0.display())]
    NotAToken(PathBuf),
}

/// What a connection to the control plane is made with.
pub(crate) struct Credentials {
    pub(crate) roots: Arc<RootCertStore>,
    /// Our certificate, while it is valid.
    pub(crate) key: Option<Arc<CertifiedKey>>,
    /// Our join token; needed while there is no certificate.
    pub(crate) token: Option<String>,
}

impl Credentials {
    pub(crate) fn load(bootstrap: &Bootstrap, identity: Option<&Identity>) -> Result<Self, CredentialsError> {
        let identity = identity.filter(|identity| identity.not_after > SystemTime::now());
        let roots = match identity {
            Some(identity) => Arc::clone(&identity.roots),
            None => parse_roots(&bootstrap.control_plane.root, &read_roots(&bootstrap.control_plane.root)?)?,
        };
        let key = identity.map(|identity| Arc::clone(&identity.key));
        let token = match read_token(&bootstrap.control_plane.join_token) {
            Ok(token) => Some(token),
            Err(_not_needed) if key.is_some() => None,
            Err(error) => return Err(error),
        };
        Ok(Self { roots, key, token })
    }
}

/// `Bearer <token>`, never shown in logs.
pub(crate) fn bearer(token: &str) -> Result<MetadataValue<Ascii>, InvalidMetadataValue> {
    let mut value: MetadataValue<_> = format!("Bearer {token}").parse()?;
    value.set_sensitive(true);
    Ok(value)
}

/// The bytes of the file with the mesh's roots.
pub(super) fn read_roots(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    std::fs::read(path).map_err(|source| CredentialsError::Roots { path: path.to_owned(), source })
}

/// All certificates of a PEM file.
pub(super) fn parse_roots(path: &Path, text: &[u8]) -> Result<Arc<RootCertStore>, CredentialsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|source| CredentialsError::Pem { path: path.to_owned(), source })?;
        roots.add(certificate).map_err(|source| CredentialsError::Certificate { path: path.to_owned(), source })?;
    }
    if roots.is_empty() {
        return Err(CredentialsError::NoRoot(path.to_owned()));
    }
    Ok(Arc::new(roots))
}

fn read_token(path: &Path) -> Result<String, CredentialsError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| CredentialsError::Token { path: path.to_owned(), source })?;
    let token = text.trim();
    if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err(CredentialsError::NotAToken(path.to_owned()));
    }
    Ok(token.to_owned())
}
