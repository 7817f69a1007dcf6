//! The accepting end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, DATE, HeaderMap};
use http::{HeaderValue, Method, Request, Response};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::gather::Gather;
use super::keep_alive::KeepAlive;
use super::send::send_body;
use super::{CONNECTION_WINDOW, Http2Tunnel, MAX_FRAME, REMEMBERED_RESETS, Receive, SEND_BUFFER, STREAM_WINDOW};
use crate::drain::Drain;
use crate::http::server::retires;
use crate::http::{Body, BoxError, HttpError, ServerSettings, Switch};
use crate::net::{Phase, Transport};

/// See [`crate::http::serve`].
pub(in crate::http) async fn serve<F, Fut, B>(
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
    let mut driver = Driver::new(transport, settings, handle).await?;
    let mut idle = interval(settings.idle_timeout);
    idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let until = settings.age.and_then(|age| Instant::now().checked_add(age));
    let mut stopping = pin!(retires(drain, until));
    let mut seen = None;
    loop {
        tokio::select! {
            biased;
            ended = driver.run() => return ended,
            () = stopping.as_mut() => break,
            _ = idle.tick() => {
                let quiet = phase.quiet_at();
                if quiet.is_some() && quiet == seen {
                    driver.connection.graceful_shutdown();
                    return driver.part(phase, settings).await;
                }
                seen = quiet;
            }
        }
    }
    driver.connection.graceful_shutdown();
    driver.run().await
}

/// A connection, and what is done with each request on it.
struct Driver<F> {
    connection: Connection<Gather, Bytes>,
    gather: Gather,
    keep_alive: KeepAlive,
    handle: F,
}

impl<F, Fut, B> Driver<F>
where
    F: Fn(Request<Body>, Switch) -> Fut,
    Fut: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    async fn new(transport: Transport, settings: &ServerSettings, handle: F) -> Result<Self, HttpError> {
        let gather = Gather::new(transport);
        let mut handshake = pin!(builder(settings).handshake(gather.clone()));
        let mut connection = poll_fn(|cx| {
            let polled = handshake.as_mut().poll(cx);
            // A client may wait for our SETTINGS before it says more; an error shows when it is read from.
            let _slow_or_gone = gather.poll_written(cx);
            polled
        })
        .await?;
        let keep_alive = KeepAlive::new(connection.ping_pong());
        Ok(Self { connection, gather, keep_alive, handle })
    }

    /// Serves until the connection ends.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    async fn run(&mut self) -> Result<(), HttpError> {
        poll_fn(|cx| self.turn(cx)).await
    }

    /// Lets an idle peer end the connection, and ends it for one that does not.
    async fn part(&mut self, phase: &Phase, settings: &ServerSettings) -> Result<(), HttpError> {
        loop {
            match timeout(settings.head_timeout, self.run()).await {
                Ok(result) => return result,
                Err(_elapsed) if phase.quiet_at().is_some() => return Ok(()),
                Err(_elapsed) => {} // A request came just before it was told.
            }
        }
    }

    /// All that can be done now.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        while let Poll::Ready(accepted) = self.connection.poll_accept(cx) {
            let Some(accepted) = accepted else { return Poll::Ready(Ok(())) };
            let (request, respond) = accepted?;
            self.begin(request, respond);
        }
        if let Poll::Ready(Err(error)) = self.gather.poll_written(cx) {
            return Poll::Ready(Err(error.into()));
        }
        if self.keep_alive.poll_lost(cx, self.gather.reads(), true).is_ready() {
            return Poll::Ready(Err(HttpError::Lost));
        }
        Poll::Pending
    }

    fn begin(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (parts, stream) = request.into_parts();
        if parts.method == Method::CONNECT {
            let (switched, switch) = oneshot::channel();
            let answer = (self.handle)(Request::from_parts(parts, Body::default()), Switch::Http2(switch));
            tokio::spawn(tunnel(answer, stream, respond, switched));
        } else {
            let body = Body::from(Receive::new(stream, None));
            let answer = (self.handle)(Request::from_parts(parts, body), Switch::None);
            tokio::spawn(exchange(answer, respond));
        }
    }
}

/// One request: its answer, sent to the end, unless the client resets the stream before.
async fn exchange<B>(answer: impl Future<Output = Response<B>>, mut respond: SendResponse<Bytes>)
where
    B: http_body::Body<Data = Bytes, Error = BoxError>,
{
    let Some(response) = unless_reset(answer, &mut respond).await else { return };
    // What goes wrong now is the client's, or was told already.
    let _gone = reply(response, respond).await;
}

/// A `CONNECT`: once agreed, the stream is the tunnel's.
async fn tunnel<B>(
    answer: impl Future<Output = Response<B>>,
    receive: RecvStream,
    mut respond: SendResponse<Bytes>,
    switched: oneshot::Sender<Http2Tunnel>,
) where
    B: http_body::Body<Data = Bytes, Error = BoxError>,
{
    let Some(response) = unless_reset(answer, &mut respond).await else { return };
    if !response.status().is_success() {
        let _gone = reply(response, respond).await;
        return;
    }
    if let Ok(send) = respond.send_response(dated(response.map(drop)), false) {
        // Nobody takes it: dropping it resets the stream.
        let _unwanted = switched.send(Http2Tunnel::new(send, receive));
    }
}

/// The answer; `None` when the client has reset the stream, which ends the work on it.
async fn unless_reset<T>(answer: impl Future<Output = T>, respond: &mut SendResponse<Bytes>) -> Option<T> {
    let mut answer = pin!(answer);
    poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => respond.poll_reset(cx).map(|_reset| None),
    })
    .await
}

async fn reply<B>(response: Response<B>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error>
where
    B: http_body::Body<Data = Bytes, Error = BoxError>,
{
    let (mut parts, body) = response.into_parts();
    let is_empty = body.is_end_stream();
    if let (false, Some(length)) = (is_empty, body.size_hint().exact())
        && !parts.headers.contains_key(CONTENT_LENGTH)
    {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    match respond.send_response(dated(Response::from_parts(parts, ())), is_empty) {
        Ok(stream) if !is_empty => send_body(body, stream).await,
        Ok(_ended) => Ok(()),
        Err(error) => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            Err(error)
        }
    }
}

/// With a `Date`, if the host gave none (RFC 9110, section 6.6.1).
fn dated(mut response: Response<()>) -> Response<()> {
    let headers: &mut HeaderMap = response.headers_mut();
    if !headers.contains_key(DATE)
        && let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        headers.insert(DATE, now);
    }
    response
}

fn builder(settings: &ServerSettings) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(settings.max_streams)
        // A sidecar's callers share its connection: many that leave at once are no flood, and must not cut the others.
        .max_pending_accept_reset_streams(settings.max_streams as usize)
        // Nor must what still comes of uploads that were answered early.
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .max_header_list_size(settings.max_header_bytes)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}
