//! HTTP/1.1 as a client, and what can go wrong with a request at either version.

use std::error::Error as _;
use std::io;

use http::{Request, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::Body;
use crate::net::Transport;

/// Room to read into, in bytes, which a connection keeps; the head of a response has to fit.
const MAX_BUFFER: usize = 128 << 10;

/// Sends requests on an HTTP/1.1 connection, one after the other.
#[derive(Debug)]
pub struct Http1(http1::SendRequest<Body>);

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
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

impl SendError {
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

/// A request without response.
#[derive(Debug)]
pub struct Unsent {
    /// Why.
    pub error: SendError,
    /// The request's body, when nothing of the request was sent.
    pub body: Option<Body>,
}

impl<E: Into<SendError>> From<E> for Unsent {
    fn from(error: E) -> Self {
        Self { error: error.into(), body: None }
    }
}

/// Starts HTTP/1.1 on a connection. Its driver ends with it.
///
/// # Errors
/// When the connection is gone.
pub async fn connect_http1(transport: Transport) -> Result<Http1, SendError> {
    let (sender, connection) =
        http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(transport)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream HTTP/1.1 connection ended");
        }
    });
    Ok(Http1(sender))
}

impl Http1 {
    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// With the body, when nothing was sent.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Body>, Unsent> {
        match self.0.try_send_request(request).await {
            Ok(response) => Ok(response.map(Body::from)),
            Err(mut failed) => {
                let body = failed.take_message().map(Request::into_body);
                Err(Unsent { error: failed.into_error().into(), body })
            }
        }
    }

    /// The next request can be sent at once.
    pub fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    /// The connection has ended.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until the next request can be sent. False: the connection has ended.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn ready(&mut self) -> bool {
        self.0.ready().await.is_ok()
    }
}
