//! HTTP/1.1 as a client, and what is left of a request without response at either version.

use http::{Request, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::{Body, HttpError};
use crate::net::Transport;

/// Room to read into, in bytes, which a connection keeps; the head of a response has to fit.
const MAX_BUFFER: usize = 128 << 10;

/// Sends requests on an HTTP/1.1 connection, one after the other.
#[derive(Debug)]
pub struct Http1(http1::SendRequest<Body>);

/// A request without response.
#[derive(Debug)]
pub struct Unsent {
    /// Why.
    pub error: HttpError,
    /// The request's body, when nothing of the request was sent.
    pub body: Option<Body>,
}

impl<E: Into<HttpError>> From<E> for Unsent {
    fn from(error: E) -> Self {
        Self { error: error.into(), body: None }
    }
}

/// Starts HTTP/1.1 on a connection. Its driver ends with it.
///
/// # Errors
/// When the connection is gone.
pub async fn connect_http1(transport: Transport) -> Result<Http1, HttpError> {
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
