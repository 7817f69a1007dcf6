//! TLS for both sides of the mesh: TLS 1.3 only, both ends authenticated by SPIFFE id.
//!
//! The crypto provider is chosen here and nowhere else.

mod client;
pub mod control;
mod public;
mod server;
pub mod verify;

pub use client::TlsClient;
pub use public::{PublicError, public_client};
pub use server::TlsServer;

#[cfg(test)]
pub(crate) mod test_control;
#[cfg(test)]
pub(crate) mod test_pki;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The one crypto provider: aws-lc-rs, X25519MLKEM768 first.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
