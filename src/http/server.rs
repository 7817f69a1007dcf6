//! The accepting end of an HTTP connection, with the limits and deadlines that hyper leaves to us.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{MissedTickBehavior, timeout};

use super::BoxError;
use super::http2::{CONNECTION_WINDOW, PING_EVERY, PING_TIMEOUT, SEND_BUFFER, STREAM_WINDOW};
use super::tunnel::Streams;
use crate::drain::Drain;
use crate::net::{HeadTimeout, Phase, Transport};

/// What one client may cost.
#[derive(Clone, Copy, Debug)]
pub struct ServerSettings {
    /// Longest time from the first byte of a request head to its last.
    pub head_timeout: Duration,
    /// A connection on which nothing happens for this long is closed.
    pub idle_timeout: Duration,
    /// Requests at once on an HTTP/2 connection.
    pub max_streams: u32,
    /// Size of a request head, in bytes; more is answered 431.
    pub max_header_bytes: u32,
    /// Fields in a request head.
    pub max_headers: usize,
}

/// Serves one connection until either side ends it. When `drain` begins, requests under way are
/// finished and the client is told to go elsewhere (GOAWAY, `Connection: close`).
///
/// # Errors
/// When the client breaks the protocol, is too slow, or cuts the connection.
pub async fn serve<F, Fut, B>(
    transport: Transport,
    is_http2: bool,
    settings: &ServerSettings,
    phase: &Phase,
    drain: &Drain,
    handle: F,
) -> hyper::Result<()>
where
    F: Fn(Request<Incoming>) -> Fut,
    Fut: Future<Output = Response<B>> + Send + 'static,
    B: Body<Error = BoxError> + Send + 'static,
    B::Data: Send,
{
    let service = service_fn(|request| {
        let answer = handle(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    if is_http2 {
        let connection = http2_builder(settings).serve_connection(TokioIo::new(transport), service);
        let mut connection = std::pin::pin!(connection);
        let mut idle = tokio::time::interval(settings.idle_timeout);
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = None;
        loop {
            tokio::select! {
                result = connection.as_mut() => return result,
                () = drain.stopping() => break,
                _ = idle.tick() => {
                    let quiet = phase.quiet_at();
                    if quiet.is_some() && quiet == seen {
                        connection.as_mut().graceful_shutdown();
                        return part(connection, phase, settings.head_timeout).await;
                    }
                    seen = quiet;
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        return connection.await;
    }
    let stream = HeadTimeout::new(transport, phase.clone(), settings.head_timeout, settings.idle_timeout);
    let connection = http1_builder(settings).serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        () = drain.stopping() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// Lets an idle peer end the connection, and ends it for one that does not.
async fn part(
    mut connection: Pin<&mut impl Future<Output = hyper::Result<()>>>,
    phase: &Phase,
    patience: Duration,
) -> hyper::Result<()> {
    loop {
        match timeout(patience, connection.as_mut()).await {
            Ok(result) => return result,
            Err(_elapsed) if phase.quiet_at().is_some() => return Ok(()),
            Err(_elapsed) => {} // A request came just before it was told.
        }
    }
}

fn http1_builder(settings: &ServerSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None) // HeadTimeout does it.
        .max_headers(settings.max_headers)
        .max_header_size(settings.max_header_bytes as usize)
        .max_buf_size((settings.max_header_bytes as usize).max(8 << 10) + (16 << 10));
    builder
}

fn http2_builder(settings: &ServerSettings) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams)
        .max_header_list_size(settings.max_header_bytes)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
