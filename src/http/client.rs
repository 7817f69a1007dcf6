//! The dialling end of an HTTP connection.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::oneshot;

use super::Body;
use super::http2::{CONNECTION_WINDOW, PING_EVERY, PING_TIMEOUT, SEND_BUFFER, STREAM_WINDOW};
use crate::net::Transport;

/// Sends requests on an HTTP/1.1 connection, one after the other.
pub type Http1 = http1::SendRequest<Body>;

/// Sends requests on an HTTP/2 connection, many at once.
#[derive(Clone, Debug)]
pub struct Http2 {
    /// hyper's sender.
    pub sender: http2::SendRequest<Body>,
    max_streams: Arc<AtomicUsize>,
}

/// Largest response head, in bytes.
const MAX_HEADER_BYTES: u32 = 64 << 10;
/// More requests than this on one connection queue behind one another; ztunnel's figure.
const MAX_STREAMS: usize = 100;
/// No SETTINGS have come yet: no stream may be opened.
const UNKNOWN: usize = 0;
/// How often a new connection is looked at until they have come.
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl Http2 {
    /// Requests that fit on this connection: the peer's limit, or ours.
    pub fn max_streams(&self) -> usize {
        self.max_streams.load(Ordering::Relaxed).min(MAX_STREAMS)
    }
}

/// Starts HTTP/1.1 on a connection. Its driver ends with it.
///
/// # Errors
/// When the connection is gone.
pub async fn connect_http1(transport: Transport) -> hyper::Result<Http1> {
    let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(transport)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream HTTP/1.1 connection ended");
        }
    });
    Ok(sender)
}

/// Starts HTTP/2 on a connection and waits until the peer has said how many streams it takes: to guess is to
/// exceed it, and some peers then close the whole connection. The driver ends with the connection.
///
/// # Errors
/// When the connection is gone.
pub async fn connect_http2(transport: Transport) -> hyper::Result<Http2> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_max_send_streams(UNKNOWN)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(transport))
        .await?;
    let max_streams = Arc::new(AtomicUsize::new(UNKNOWN));
    let shared = Arc::clone(&max_streams);
    let (known, when_known) = oneshot::channel();
    tokio::spawn(async move {
        let mut connection = std::pin::pin!(connection);
        let mut known = Some(known);
        // hyper reads SETTINGS in a task of its own, which tells nobody.
        let mut look = tokio::time::interval(LOOK_EVERY);
        let result = std::future::poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            // The peer's SETTINGS may have come, or changed.
            let limit = connection.current_max_send_streams();
            shared.store(limit, Ordering::Relaxed);
            if let Some(known) = known.take_if(|_| limit != UNKNOWN) {
                let _cancelled = known.send(Ok(()));
            }
            while known.is_some() && look.poll_tick(cx).is_ready() {}
            polled
        })
        .await;
        match (result, known) {
            (Err(error), Some(known)) => drop(known.send(Err(error))),
            (Err(error), None) => tracing::debug!(%error, "upstream HTTP/2 connection ended"),
            (Ok(()), _) => {}
        }
    });
    // Without a word it has ended in good order; the first request will find it closed.
    when_known.await.unwrap_or(Ok(()))?;
    Ok(Http2 { sender, max_streams })
}
