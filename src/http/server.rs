//! The accepting end of an HTTP connection.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::{Instant, sleep_until};

use super::{Body, BoxError, HttpError, Switch, http1, http2};
use crate::drain::Drain;
use crate::net::{Phase, Transport};

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
    /// At this age the client is told to go elsewhere, as when `drain` begins. `None`: however old.
    pub age: Option<Duration>,
}

/// Ends when an HTTP/2 client is to go elsewhere: we stop, or it is `at` (`None`: never) already.
pub(super) async fn retires(drain: &Drain, at: Option<Instant>) {
    let Some(at) = at else { return drain.stopping().await };
    // Boxed: most connections may grow as old as they like.
    let either = Box::pin(async {
        tokio::select! {
            () = drain.stopping() => {}
            () = sleep_until(at) => {}
        }
    });
    either.await;
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
) -> Result<(), HttpError>
where
    F: Fn(Request<Body>, Switch) -> Fut,
    Fut: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    if is_http2 {
        // Boxed, so that it does not take its room in connections of HTTP/1.
        return Box::pin(http2::serve(transport, settings, phase, drain, handle)).await;
    }
    http1::serve(transport, settings, phase, drain, handle).await
}
