//! A small HTTP/1.1 client over plain TCP: for health pages, metrics, the demo's load, and the shop's calls to the
//! sidecar beside them.
//!
//! It keeps idle connections and gives back to the caller whatever it gets. It never sends a request twice: one that
//! an idle connection refused unsent travels on a new one.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// The longest answer that is read.
const LONGEST_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Idle connections kept.
const IDLE_CONNECTIONS: usize = 64;

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: StatusCode,
    /// The reason code, when a proxy of the mesh made this answer.
    pub(crate) reason: Option<String>,
    /// The whole body.
    pub(crate) body: Bytes,
}

impl Reply {
    /// Whether the status is 2xx.
    pub(crate) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, std::io::Error),
    /// The connection failed.
    #[error("no answer from {0}: {1}")]
    Exchange(SocketAddr, hyper::Error),
    /// The body failed, or is too long.
    #[error("half an answer from {0}: {1}")]
    Body(SocketAddr, Box<dyn std::error::Error + Send + Sync>),
    /// The deadline passed.
    #[error("no answer from {0} within {1:?}")]
    Late(SocketAddr, Duration),
    /// The request itself is not one.
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
}

/// One request on a connection of its own.
///
/// # Errors
/// See [`ClientError`].
pub(crate) async fn get(to: SocketAddr, path: &str, deadline: Duration) -> Result<Reply, ClientError> {
    Client::new(to, deadline).get(&to.to_string(), path).await
}

/// A client of one address.
#[derive(Debug)]
pub(crate) struct Client {
    to: SocketAddr,
    deadline: Duration,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Client {
    /// A client of this address, whose requests end within the deadline, body included.
    pub(crate) const fn new(to: SocketAddr, deadline: Duration) -> Self {
        Self { to, deadline, idle: Mutex::new(Vec::new()) }
    }

    /// Sends `GET path` with this `Host`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) async fn get(&self, host: &str, path: &str) -> Result<Reply, ClientError> {
        let request = Request::get(path).header(HOST, host).body(Full::default())?;
        let exchange = Box::pin(self.exchange(request));
        timeout(self.deadline, exchange).await.unwrap_or(Err(ClientError::Late(self.to, self.deadline)))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Reply, ClientError> {
        let (mut sender, response) = self.send(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LONGEST_BODY_BYTES).collect().await;
        let body = body.map_err(|error| ClientError::Body(self.to, error))?.to_bytes();
        if sender.ready().await.is_ok() {
            self.keep(sender);
        }
        let reason = head.headers.get(pillion_wire::mesh::REASON_HEADER);
        let reason = reason.and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Reply { status: head.status, reason, body })
    }

    async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Sent, ClientError> {
        while let Some(mut sender) = self.take_idle() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((sender, response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(ClientError::Exchange(self.to, error.into_error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await;
        response.map(|response| (sender, response)).map_err(|error| ClientError::Exchange(self.to, error))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let stream = TcpStream::connect(self.to).await.map_err(|error| ClientError::Connect(self.to, error))?;
        // Small requests; waiting to fill a segment would only add latency.
        stream.set_nodelay(true).map_err(|error| ClientError::Connect(self.to, error))?;
        let shake = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shake.map_err(|error| ClientError::Exchange(self.to, error))?;
        // Ends when its sender is dropped or the peer closes; an error is the request's error, reported there.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(sender);
        }
    }
}

/// A connection in use, and the head of its answer.
type Sent = (SendRequest<Full<Bytes>>, hyper::Response<hyper::body::Incoming>);
