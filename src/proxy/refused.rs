//! Connections that we ended: before they carried anything, or because their client broke the protocol.

use std::io;
use std::net::SocketAddr;

use crate::http::HttpError;
use crate::net::SlowHead;

/// Why we ended a connection: before it carried anything, or because its client broke the protocol. Names the counter.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("nothing was said in time")]
    Silent,
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the TLS handshake was not done when the sidecar stopped")]
    Stopping,
    #[error("this port speaks HTTP; something else came")]
    NotHttp,
    #[error("the TLS handshake failed: {1}")]
    Tls(&'static str, io::Error),
    #[error("the TLS handshake took too long")]
    TlsTimeout,
    #[error("this sidecar has no certificate yet")]
    NoIdentity,
    #[error("plaintext on the strict port {0}; call through a sidecar, or make the port permissive")]
    Plaintext(u16),
    #[error(
        "the application's own TLS from outside the mesh on the strict port {0}; call through a sidecar, or make the port permissive"
    )]
    ForeignTls(u16),
    #[error("port {0} is no longer served")]
    UnknownPort(u16),
    #[error(
        "{0} is one of the sidecar's own ports: carrying traffic there would be a loop; was it dialled on purpose, or \
         does a rule redirect what it should leave alone?"
    )]
    Loop(SocketAddr),
    #[error("{0}")]
    Destination(#[from] crate::error::ProxyError),
    #[error(transparent)]
    SlowHead(#[from] SlowHead),
    #[error("the request head is larger than allowed")]
    LargeHead,
    #[error("not valid HTTP: {0}")]
    BadHttp(String),
    #[error("more than one HTTP/2 client may cause: {0}")]
    Flood(String),
}

/// What the client did wrong, if it was that which ended the connection.
pub(super) fn broken_protocol(error: &HttpError) -> Option<Refused> {
    match error {
        HttpError::Http1(cause) if cause.is_parse_too_large() => Some(Refused::LargeHead),
        HttpError::Http1(cause) if cause.is_parse() => Some(Refused::BadHttp(error.detail())),
        HttpError::Http1(cause) => {
            let cause = std::error::Error::source(cause)?.downcast_ref::<io::Error>()?;
            Some(Refused::SlowHead(*cause.get_ref()?.downcast_ref::<SlowHead>()?))
        }
        HttpError::Http2(cause) if cause.is_library() => match cause.reason() {
            Some(h2::Reason::ENHANCE_YOUR_CALM) => Some(Refused::Flood(error.to_string())),
            _ => Some(Refused::BadHttp(error.to_string())),
        },
        HttpError::Http2(_) | HttpError::Io(_) | HttpError::Lost => None,
    }
}

impl Refused {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Broken(_) => "broken",
            Self::Stopping => "stopping",
            Self::NotHttp => "not_http",
            Self::Tls(code, _) => code,
            Self::TlsTimeout => "tls_timeout",
            Self::NoIdentity => "no_identity",
            Self::Plaintext(_) => "plaintext_refused",
            Self::ForeignTls(_) => "tls_refused",
            Self::UnknownPort(_) => "unknown_port",
            Self::Loop(_) => "loop",
            Self::Destination(error) => error.reason().code,
            Self::SlowHead(_) => "head_timeout",
            Self::LargeHead => "head_too_large",
            Self::BadHttp(_) => "bad_http",
            Self::Flood(_) => "http2_flood",
        }
    }
}

/// Failed handshakes by what an operator has to look at.
pub(super) fn tls_code(error: &io::Error) -> &'static str {
    use rustls::{CertificateError, Error};
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        Some(Error::NoCertificatesPresented) => "tls_no_certificate",
        Some(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "tls_expired"
        }
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => "tls_unknown_issuer",
        Some(Error::InvalidCertificate(CertificateError::Other(_))) => "tls_wrong_identity",
        Some(Error::InvalidCertificate(_)) => "tls_bad_certificate",
        Some(Error::AlertReceived(_)) => "tls_refused_by_peer",
        Some(Error::InvalidMessage(_)) => "tls_not_tls",
        Some(Error::PeerIncompatible(_)) => "tls_incompatible",
        _ => "tls_failed",
    }
}
