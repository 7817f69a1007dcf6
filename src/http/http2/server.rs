//! HTTP/2 as a server, with the limits and deadlines that hyper leaves to us.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{MissedTickBehavior, timeout};

use super::{CONNECTION_WINDOW, PING_EVERY, PING_TIMEOUT, SEND_BUFFER, STREAM_WINDOW};
use crate::drain::Drain;
use crate::http::tunnel::Streams;
use crate::http::{BoxError, ServerSettings};
use crate::net::{Phase, Transport};

/// See [`crate::http::serve`].
pub(in crate::http) async fn serve<F, Fut, B>(
    transport: Transport,
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
    let connection = builder(settings).serve_connection(TokioIo::new(transport), service);
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

fn builder(settings: &ServerSettings) -> http2::Builder<Streams> {
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
