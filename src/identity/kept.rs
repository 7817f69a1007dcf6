//! The certificate and its key, kept on disk: a restart while the control plane is away is not the end of a workload.

use std::io;
use std::time::SystemTime;

use pillion_wire::ca::CreateCertificateResponse;
use rcgen::KeyPair;

use super::Identity;
use super::credentials::{CredentialsError, parse_roots, read_roots};
use super::issue::{AnswerError, Issued, accept};
use crate::bootstrap::Bootstrap;
use crate::store::Store;

/// The file: the chain, then the key, PEM.
const NAME: &str = "certificate";

/// Why what was kept is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecallError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// It is not PEM.
    #[error("it is not PEM")]
    NotPem,
    /// Its key is none.
    #[error("its key is none: {0}")]
    Key(#[from] rcgen::Error),
    /// There are no roots to check it by.
    #[error(transparent)]
    Roots(#[from] CredentialsError),
    /// It has expired, is somebody else's, or no peer would accept it.
    #[error("{0}")]
    Answer(#[from] AnswerError),
}

/// Keeps an identity. Blocks.
///
/// # Errors
/// When it cannot be written; what was kept before still is.
pub(super) fn keep(store: &Store, issued: &Issued) -> io::Result<()> {
    store.write(NAME, issued.to_pem().as_bytes())
}

/// The identity that was kept, checked as if the CA had just sent it: expired, or of another workload or mesh, it is
/// refused. Blocks.
///
/// # Errors
/// [`RecallError`]. `None`: nothing was kept.
pub(super) fn recall(store: &Store, bootstrap: &Bootstrap) -> Result<Option<Identity>, RecallError> {
    let Some(bytes) = store.read(NAME)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_binary| RecallError::NotPem)?;
    let key_at = text.find("-----BEGIN PRIVATE KEY").ok_or(RecallError::NotPem)?;
    let (chain, key) = text.split_at(key_at);
    let key = KeyPair::from_pem(key)?;
    let roots = &bootstrap.control_plane.root;
    let roots = parse_roots(roots, &read_roots(roots)?)?;
    let answer = CreateCertificateResponse { cert_chain: vec![chain.to_owned()] };
    Ok(Some(accept(&bootstrap.id, &key, roots, &answer, SystemTime::now())?))
}
