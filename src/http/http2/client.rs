//! The dialling end.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::client::{Builder, Connection, SendRequest};
use http::{Request, Response};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::gather::Gather;
use super::keep_alive::KeepAlive;
use super::send::Sending;
use super::{CONNECTION_WINDOW, Http2Tunnel, MAX_FRAME, REMEMBERED_RESETS, Receive, SEND_BUFFER, STREAM_WINDOW};
use crate::http::{Body, HttpError, Unsent};
use crate::net::Transport;

/// Largest response head, in bytes.
const MAX_HEADER_BYTES: u32 = 64 << 10;
/// More requests than this on one connection queue behind one another; ztunnel's figure.
const MAX_STREAMS: usize = 100;
/// Who gives up after less says nothing of the connection.
const PATIENCE: Duration = Duration::from_millis(200);
/// No SETTINGS have come yet: no stream may be opened.
const UNKNOWN: usize = 0;

/// Sends requests on an HTTP/2 connection, many at once. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Http2 {
    sender: SendRequest<Bytes>,
    state: Arc<State>,
}

/// What the driver knows of the connection.
#[derive(Debug)]
struct State {
    streams: AtomicUsize,
    max_streams: AtomicUsize,
    closed: AtomicBool,
    /// Requests wait to be sent.
    queued: AtomicBool,
    /// How many times something was read.
    reads: AtomicU64,
    /// A request was given up, and nothing had been read since it was sent: until something is, others go elsewhere.
    doubted: AtomicBool,
    driver: AtomicWaker,
}

/// A request that waits for its response; dropped before there is one, it may cast doubt on the connection.
struct Waiting<'a> {
    state: &'a State,
    since: Instant,
    reads: u64,
    is_over: bool,
}

/// Starts HTTP/2 on a connection and waits until the peer has said how many streams it takes: to guess is to
/// exceed it, and some peers then close the whole connection. The driver ends with the connection.
///
/// # Errors
/// When the connection is gone.
pub async fn connect_http2(transport: Transport) -> Result<Http2, HttpError> {
    let gather = Gather::new(transport);
    let (sender, connection) = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_BYTES)
        // All callers share the connection: those that leave in the middle of answers must not end it for the others.
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .max_local_error_reset_streams(None)
        .initial_max_send_streams(UNKNOWN)
        .enable_push(false)
        .handshake(gather.clone())
        .await?;
    let state = Arc::new(State {
        streams: AtomicUsize::new(0),
        max_streams: AtomicUsize::new(UNKNOWN),
        closed: AtomicBool::new(false),
        queued: AtomicBool::new(false),
        reads: AtomicU64::new(0),
        doubted: AtomicBool::new(false),
        driver: AtomicWaker::new(),
    });
    let (known, when_known) = oneshot::channel();
    tokio::spawn(drive(connection, gather, Arc::clone(&state), known));
    // Without a word it has ended in good order; the first request will find it closed.
    when_known.await.unwrap_or(Ok(()))?;
    Ok(Http2 { sender, state })
}

impl Http2 {
    /// Takes a place for one request, unless the connection is full (the peer's limit, or ours), perhaps dead, or
    /// [`Self::is_closed`].
    /// To be given back with [`Self::leave`].
    pub fn enter(&self) -> bool {
        let most = self.state.max_streams.load(Ordering::Relaxed).min(MAX_STREAMS);
        // Connections stay on one thread, so that nobody comes between.
        let is_well = !self.is_closed() && !self.state.doubted.load(Ordering::Relaxed);
        let is_free = is_well && self.streams() < most;
        if is_free {
            self.state.streams.fetch_add(1, Ordering::Relaxed);
        }
        is_free
    }

    /// Gives a place back.
    pub fn leave(&self) {
        self.state.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Places that are taken.
    pub fn streams(&self) -> usize {
        self.state.streams.load(Ordering::Relaxed)
    }

    /// No more requests can be sent: it has ended, or the peer retires it.
    pub fn is_closed(&self) -> bool {
        self.state.closed.load(Ordering::Relaxed)
    }

    /// Sends a request and waits for the head of its response; the request's body is sent meanwhile and after that, until
    /// the response's is dropped.
    ///
    /// # Errors
    /// With the body, when nothing was sent.
    ///
    /// # Cancel safety
    /// Dropping it resets the stream.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Unsent> {
        let (parts, body) = request.into_parts();
        let is_empty = body.is_empty();
        let (response, stream) = match self.sender.clone().send_request(Request::from_parts(parts, ()), is_empty) {
            Ok(opened) => opened,
            Err(error) => {
                self.state.closed.store(true, Ordering::Relaxed); // It takes no more.
                return Err(Unsent { error: error.into(), body: Some(body) });
            }
        };
        self.state.queued.store(true, Ordering::Relaxed);
        let sending = if is_empty { None } else { Sending::start(body, stream) };
        let (parts, stream) = self.state.wait_for(response).await?.into_parts();
        Ok(Response::from_parts(parts, Body::from(Receive::new(stream, sending))))
    }

    /// Asks for a tunnel by `CONNECT`. The stream is a tunnel when the response says 200.
    ///
    /// # Errors
    /// When there is no response.
    ///
    /// # Cancel safety
    /// Dropping it resets the stream.
    pub async fn connect(&self, request: Request<()>) -> Result<(Response<()>, Http2Tunnel), HttpError> {
        let (response, send) = self.sender.clone().send_request(request, false)?;
        self.state.queued.store(true, Ordering::Relaxed);
        let (parts, receive) = self.state.wait_for(response).await?.into_parts();
        Ok((Response::from_parts(parts, ()), Http2Tunnel::new(send, receive)))
    }
}

impl State {
    /// A response, or a doubt.
    async fn wait_for<T>(&self, response: impl Future<Output = T>) -> T {
        let reads = self.reads.load(Ordering::Relaxed);
        let mut waiting = Waiting { state: self, since: Instant::now(), reads, is_over: false };
        let response = response.await;
        waiting.is_over = true;
        response
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let was_silent = !self.is_over && self.reads == self.state.reads.load(Ordering::Relaxed);
        if was_silent && self.since.elapsed() >= PATIENCE {
            self.state.doubted.store(true, Ordering::Relaxed);
            self.state.driver.wake();
        }
    }
}

/// Moves the connection until it ends.
async fn drive(
    mut connection: Connection<Gather, Bytes>,
    gather: Gather,
    state: Arc<State>,
    known: oneshot::Sender<Result<(), HttpError>>,
) {
    let mut known = Some(known);
    let mut keep_alive = KeepAlive::new(connection.ping_pong());
    let ended = poll_fn(|cx| {
        state.driver.register(cx.waker());
        let is_used = state.streams.load(Ordering::Relaxed) > 0;
        if state.doubted.load(Ordering::Relaxed) {
            keep_alive.ask();
        }
        let is_queued = state.queued.swap(false, Ordering::Relaxed);
        let turn = turn(&mut connection, &gather, &mut keep_alive, is_used, is_queued, cx);
        if state.reads.swap(gather.reads(), Ordering::Relaxed) != gather.reads() {
            state.doubted.store(false, Ordering::Relaxed);
        }
        // The peer's SETTINGS may have come, or changed.
        let limit = connection.max_concurrent_send_streams();
        state.max_streams.store(limit, Ordering::Relaxed);
        if let Some(known) = known.take_if(|_| limit != UNKNOWN) {
            let _cancelled = known.send(Ok(()));
        }
        turn
    })
    .await;
    state.closed.store(true, Ordering::Relaxed);
    match (ended, known) {
        (Err(error), Some(known)) => drop(known.send(Err(error))),
        (Err(error), None) => tracing::debug!(%error, "upstream HTTP/2 connection ended"),
        (Ok(()), _) => {}
    }
}

/// All that can be done now.
fn turn(
    connection: &mut Connection<Gather, Bytes>,
    gather: &Gather,
    keep_alive: &mut KeepAlive,
    is_used: bool,
    is_queued: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<(), HttpError>> {
    if is_queued && gather.poll_readable(cx).is_ready() {
        // `h2` answers pings before it sends requests. A peer that retires the connection takes the answer to its ping
        // for the end of what was under way (RFC 9113, section 6.8), so that requests must go before it.
        gather.set_deaf(true);
        let sent = Pin::new(&mut *connection).poll(cx);
        gather.set_deaf(false);
        if let Poll::Ready(ended) = sent {
            return Poll::Ready(ended.map_err(Into::into));
        }
    }
    if let Poll::Ready(ended) = Pin::new(&mut *connection).poll(cx) {
        return Poll::Ready(ended.map_err(Into::into));
    }
    if let Poll::Ready(Err(error)) = gather.poll_written(cx) {
        return Poll::Ready(Err(error.into()));
    }
    keep_alive.poll_lost(cx, gather.reads(), is_used).map(|()| Err(HttpError::Lost))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;
    use tokio::time::{sleep, timeout};

    use super::*;

    /// A peer that is silent until it is told to go on.
    async fn silent(go_on: Arc<Notify>) -> Http2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (dialled, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().expect("bound")), listener.accept());
        tokio::spawn(async move {
            let mut server = h2::server::handshake(accepted.expect("accepted").0).await.expect("HTTP/2");
            // It says its SETTINGS, and then nothing.
            let _said = timeout(Duration::from_millis(1), server.accept()).await;
            go_on.notified().await;
            while server.accept().await.is_some() {}
        });
        connect_http2(Transport::Dialled(dialled.expect("connected"))).await.expect("HTTP/2")
    }

    #[tokio::test]
    async fn who_waits_in_vain_on_a_silent_connection_keeps_others_off_it_until_it_speaks() {
        let go_on = Arc::new(Notify::new());
        let http2 = silent(Arc::clone(&go_on)).await;
        let request = || Request::get("http://a/").body(Body::default()).expect("valid");
        assert!(timeout(PATIENCE / 4, http2.send(request())).await.is_err());
        assert!(http2.enter(), "too early to say");
        http2.leave();
        assert!(timeout(PATIENCE * 2, http2.send(request())).await.is_err());
        assert!(!http2.enter());
        go_on.notify_one();
        let speaks = async {
            while !http2.enter() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), speaks).await.expect("it answered the ping");
    }

    /// Type, flags and stream of the next frame.
    async fn next_frame(peer: &mut TcpStream) -> (u8, u8, u32) {
        let mut head = [0; 9];
        peer.read_exact(&mut head).await.expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        peer.read_exact(&mut vec![0; length]).await.expect("its payload");
        (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]))
    }

    #[tokio::test]
    async fn what_was_asked_before_the_peer_retires_the_connection_is_sent_before_its_ping_is_answered() {
        const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        // GOAWAY with the largest stream, and the PING that tells when it was read.
        const RETIRE: [u8; 34] = [
            0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 255, 255, 255, 0, 0, 0, 0, 0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7,
            8,
        ];
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (dialled, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().expect("bound")), listener.accept());
        let mut peer = accepted.expect("accepted").0;
        peer.write_all(&SETTINGS).await.expect("taken");
        let gather = Gather::new(Transport::Dialled(dialled.expect("connected")));
        let (mut sender, mut connection) = Builder::new().handshake::<_, Bytes>(gather.clone()).await.expect("HTTP/2");
        let mut keep_alive = KeepAlive::new(None);
        let mut moved = |is_queued, cx: &mut Context<'_>| {
            turn(&mut connection, &gather, &mut keep_alive, true, is_queued, cx).map(|ended| ended.expect("it goes on"))
        };
        let greeted = async {
            peer.read_exact(&mut [0; 24]).await.expect("the preface");
            while next_frame(&mut peer).await != (4, 1, 0) {} // Until our SETTINGS are acknowledged.
        };
        tokio::select! {
            () = poll_fn(|cx| moved(false, cx)) => {}
            () = greeted => {}
        }

        assert_eq!(peer.try_write(&RETIRE).expect("room"), RETIRE.len());
        poll_fn(|cx| gather.poll_readable(cx)).await.expect("it came");
        let _asked = sender.send_request(Request::get("http://a/").body(()).expect("valid"), true).expect("sent");
        let mut frames = Vec::new();
        let answered = async {
            while !frames.contains(&(6, 1, 0)) {
                frames.push(next_frame(&mut peer).await);
            }
        };
        let both = async {
            tokio::select! {
                () = poll_fn(|cx| moved(true, cx)) => {}
                () = answered => {}
            }
        };
        timeout(Duration::from_secs(20), both).await.expect("the ping is answered");
        assert_eq!(frames.first(), Some(&(1, 5, 1)), "HEADERS before the answer to the ping: {frames:?}");
    }
}
