//! HTTP/1.x as a server, with the limits and deadlines that hyper leaves to us.
//!
//! hyper's connection costs more than 20 KiB, buffers mostly. While a client has no request, only its stream is kept,
//! and a new hyper connection serves the next one.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Body, BoxError, HttpError, ServerSettings, Switch};
use crate::drain::Drain;
use crate::net::{HeadTimeout, Phase, Replay, Transport};

/// An accepted connection.
type Stream = HeadTimeout<Replay<Transport>>;

/// See [`super::serve`].
pub(super) async fn serve<F, Fut, B>(
    transport: Transport,
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
    let mut stream =
        HeadTimeout::new(Replay::new(transport), phase.clone(), settings.head_timeout, settings.idle_timeout);
    let until = settings.age.and_then(|age| Instant::now().checked_add(age));
    loop {
        // Boxed, so that what it needs is there only for as long as it serves.
        match Box::pin(serve_some(stream, settings, phase, drain, until, &handle)).await? {
            Some(resting) => stream = resting,
            None => return Ok(()),
        }
        let is_wanted = tokio::select! {
            biased;
            is_readable = stream.readable() => is_readable,
            () = drain.stopping() => false,
        };
        if !is_wanted {
            // Nobody is left to tell when the client is gone already.
            let _gone = stream.shutdown().await;
            return Ok(());
        }
    }
}

/// Serves requests until the connection ends (`None`), or comes to rest.
async fn serve_some<F, Fut, B>(
    stream: Stream,
    settings: &ServerSettings,
    phase: &Phase,
    drain: &Drain,
    until: Option<Instant>,
    handle: &F,
) -> Result<Option<Stream>, HttpError>
where
    F: Fn(Request<Body>, Switch) -> Fut,
    Fut: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    let switching = Mutex::new(None);
    let service = service_fn(|mut request: Request<Incoming>| {
        let switch = switch(&mut request, &switching);
        let answer = handle(request.map(Body::from), switch);
        async move {
            let mut answer = answer.await;
            if until.is_some_and(|until| until <= Instant::now()) && answer.status() != StatusCode::SWITCHING_PROTOCOLS
            {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close")); // It is old.
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = builder(settings).serve_connection(TokioIo::new(stream), service);
    let mut stopping = pin!(drain.stopping());
    let mut is_stopping = false;
    let ended = poll_fn(|cx| {
        loop {
            let mut polled = Pin::new(&mut connection).poll(cx);
            if polled.is_pending() && phase.is_over() {
                polled = Pin::new(&mut connection).poll(cx); // hyper reads when it has to, which may be never.
            }
            if let Poll::Ready(result) = polled {
                return Poll::Ready(Some(result));
            }
            if phase.is_at_rest() {
                return Poll::Ready(None);
            }
            if is_stopping || stopping.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            is_stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
    })
    .await;
    let Some(result) = ended else { return rest(connection).await };
    result?;
    if let Some(taker) = switching.lock().take() {
        let parts = connection.into_parts();
        let mut stream = parts.io.into_inner().into_inner();
        stream.unread(parts.read_buf);
        // Nobody waits for it when the answer was that the protocol stays.
        let _declined = taker.send(stream);
    }
    Ok(None)
}

/// What `request` may switch to. Its taker is kept in `switching`; a later request takes its place.
fn switch(request: &mut Request<Incoming>, switching: &Mutex<Option<oneshot::Sender<Replay<Transport>>>>) -> Switch {
    // hyper itself cannot hand over a connection that it may have to give back.
    if request.extensions_mut().remove::<OnUpgrade>().is_none() {
        return Switch::None;
    }
    let (taker, switch) = oneshot::channel();
    *switching.lock() = Some(taker);
    Switch::Accepted(switch)
}

/// Takes back the stream of a connection at rest. `None`: it was not idle, and has been served to its end.
async fn rest<S, B>(connection: http1::Connection<TokioIo<Stream>, S>) -> Result<Option<Stream>, HttpError>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error = BoxError> + 'static,
{
    let mut connection = connection;
    // One that is idle ends at once, and without a word. Any other still reads the body of a request that has had its
    // answer: that is left to end, and the connection with it.
    Pin::new(&mut connection).graceful_shutdown();
    let mut leaving = pin!(connection.without_shutdown());
    let at_once = poll_fn(|cx| Poll::Ready(leaving.as_mut().poll(cx))).await;
    let is_idle = at_once.is_ready();
    let parts = match at_once {
        Poll::Ready(parts) => parts?,
        Poll::Pending => leaving.await?,
    };
    let mut stream = parts.io.into_inner();
    stream.get_mut().unread(parts.read_buf);
    if is_idle {
        return Ok(Some(stream));
    }
    // Nobody is left to tell when the client is gone already.
    let _gone = stream.shutdown().await;
    Ok(None)
}

fn builder(settings: &ServerSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None) // HeadTimeout does it.
        .max_headers(settings.max_headers)
        .max_header_size(settings.max_header_bytes as usize)
        .max_buf_size((settings.max_header_bytes as usize).max(8 << 10) + (16 << 10));
    builder
}

#[cfg(test)]
mod tests;
