//! What ends a connection before its time, at either end of it and in either version.

use std::error::Error as _;
use std::io;

/// Why a connection ended, or a request has no response.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// As hyper tells it.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// As h2 tells it.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// The connection broke while it was written to.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer has been silent, and does not answer a ping.
    #[error("the peer does not answer")]
    Lost,
}

impl HttpError {
    /// With its cause, for messages.
    pub fn detail(&self) -> String {
        match self.source() {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }

    /// The connection broke below HTTP.
    pub fn is_io(&self) -> bool {
        match self {
            Self::Http1(error) => error.source().is_some_and(|cause| cause.is::<io::Error>()),
            Self::Http2(error) => error.is_io(),
            Self::Io(_) | Self::Lost => true,
        }
    }
}
