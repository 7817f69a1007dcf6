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
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

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
    pub(crate) proof: Proof,
}

/// What proves who we are. One of them at a time: an outdated token must not spoil a good certificate.
pub(crate) enum Proof {
    /// In the handshake.
    Certificate(Arc<CertifiedKey>),
    /// In each call.
    Token(String),
}

impl Credentials {
    /// The certificate while there is a valid one, else the join token.
    ///
    /// Every other attempt after a failure is made with the token, if it can be read:
    /// a control plane that was set up anew does not know the certificates of its predecessor.
    pub(crate) fn load(
        bootstrap: &Bootstrap,
        identity: Option<&Identity>,
        failures: u32,
    ) -> Result<Self, CredentialsError> {
        let files = &bootstrap.control_plane;
        let identity = identity.filter(|identity| identity.not_after > SystemTime::now());
        let roots = match (read_roots(&files.root).and_then(|text| parse_roots(&files.root, &text)), identity) {
            (Ok(roots), _) => roots,
            (Err(_unusable), Some(identity)) => Arc::clone(&identity.roots),
            (Err(error), None) => return Err(error),
        };
        let proof = match identity.map(|identity| Proof::Certificate(Arc::clone(&identity.key))) {
            Some(certificate) if failures.is_multiple_of(2) => certificate,
            Some(certificate) => read_token(&files.join_token).map_or(certificate, Proof::Token),
            None => Proof::Token(read_token(&files.join_token)?),
        };
        Ok(Self { roots, proof })
    }
}

impl Proof {
    /// For the handshake.
    pub(crate) fn certificate(&self) -> Option<Arc<CertifiedKey>> {
        match self {
            Self::Certificate(key) => Some(Arc::clone(key)),
            Self::Token(_) => None,
        }
    }

    /// Says in `metadata` what the handshake does not.
    pub(crate) fn authorize(&self, metadata: &mut MetadataMap) -> Result<(), InvalidMetadataValue> {
        if let Self::Token(token) = self {
            metadata.insert("authorization", bearer(token)?);
        }
        Ok(())
    }
}

/// `Bearer <token>`, never shown in logs.
fn bearer(token: &str) -> Result<MetadataValue<Ascii>, InvalidMetadataValue> {
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
