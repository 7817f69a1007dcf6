//! Who we are: the certificate, its key and the roots we trust, replaced whole at each renewal.

pub mod credentials;
pub mod issue;
mod kept;
pub mod renew;

#[cfg(test)]
pub(crate) mod test_ca;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use pillion_wire::spiffe::SpiffeId;
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;

/// An issued identity. Published in a `Slot<Option<Identity>>`; `None` until the first certificate is there.
#[derive(Clone)]
pub struct Identity {
    /// The name that the certificate carries.
    pub id: SpiffeId,
    /// Certificate chain and private key.
    pub key: Arc<CertifiedKey>,
    /// The mesh's roots; several while they rotate.
    pub roots: Arc<RootCertStore>,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
}

/// Without the key, whatever its own `Debug` may show.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
