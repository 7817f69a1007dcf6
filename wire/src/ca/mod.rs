//! Asking the mesh's CA for a certificate.
//!
//! The messages and the method of `istio.v1.auth.IstioCertificateService`
//! ([`ca.proto`] of Istio's security API, package `istio.v1.auth`), so that
//! ztunnel, Istio agents and istiod can stand on either side. Written by hand,
//! in the shape that a code generator would give them: the file is a page long
//! and building needs no `protoc`.
//!
//! Who is calling is said by the connection (a client certificate) or by the
//! `authorization` metadata (a token), never by the message; the CSR matters
//! only for its public key.
//!
//! [`ca.proto`]: https://github.com/istio/api/blob/master/security/v1alpha1/ca.proto

pub mod client;
pub mod server;

use crate::xds::Struct;

/// Full name of the service (`package istio.v1.auth`).
pub const SERVICE_NAME: &str = "istio.v1.auth.IstioCertificateService";

/// Path of its only method.
pub const CREATE_CERTIFICATE_PATH: &str =
    "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Longest CSR that the CA looks at, in bytes of PEM. A CSR for RSA 4096 has
/// under 2 KiB; the rest is room for longer algorithms.
pub const MAX_CSR_BYTES: usize = 16 * 1024;

/// A request to sign a public key for the caller
/// (`istio.v1.auth.IstioCertificateRequest`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateCertificateRequest {
    /// The PKCS #10 request (RFC 2986) in PEM, at most [`MAX_CSR_BYTES`].
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Lifetime wanted, in seconds; the CA may shorten it.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Whatever a particular CA wants to know besides. Ours reads none of it.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

impl prost::Name for CreateCertificateRequest {
    const NAME: &'static str = "IstioCertificateRequest";
    const PACKAGE: &'static str = "istio.v1.auth";
}

/// A certificate and what vouches for it
/// (`istio.v1.auth.IstioCertificateResponse`).
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct CreateCertificateResponse {
    /// PEM: the leaf, then its intermediates, the root last. All but
    /// the last are presented to peers; the last is the trust anchor.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

impl prost::Name for CreateCertificateResponse {
    const NAME: &'static str = "IstioCertificateResponse";
    const PACKAGE: &'static str = "istio.v1.auth";
}
