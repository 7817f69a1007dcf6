//! A deadline on request heads, and another on idle connections: what hyper's HTTP/1 server lacks.
//!
//! hyper's `header_read_timeout` runs while a kept connection waits for its next
//! request, so it cannot be short (slow loris) and long (idle clients) at once.
//! Here the first byte of a head starts the short one. [`Phase`] tells when a
//! request is being served, during which neither runs, and when a connection has
//! come to rest, so that what serves it can be given up until the next request.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::{Replay, Transport};

/// A client took too long over a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request head did not arrive in time")]
pub struct SlowHead;

/// Shared between a connection, the requests on it, and who serves it: is one being served?
#[derive(Clone, Debug, Default)]
pub struct Phase(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    active: AtomicUsize,
    begun: AtomicUsize,
    noticed: AtomicUsize,
    at_rest: AtomicBool,
}

/// A request is being served until this is dropped.
#[derive(Debug)]
pub struct Serving(Phase);

impl Phase {
    /// A whole head has arrived.
    pub fn begin(&self) -> Serving {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.active.fetch_add(1, Ordering::Release);
        Serving(self.clone())
    }

    /// While nothing is being served: how many requests have been. The same number twice means silence between.
    pub fn quiet_at(&self) -> Option<usize> {
        (!self.is_serving()).then(|| self.0.begun.load(Ordering::Relaxed))
    }

    /// Has a request ended, without the deadline for the next having begun? It does when the stream is read from.
    pub fn is_over(&self) -> bool {
        !self.is_serving() && self.0.begun.load(Ordering::Relaxed) != self.0.noticed.load(Ordering::Relaxed)
    }

    /// Notices what [`Self::is_over`]. True if there was something.
    fn notice(&self) -> bool {
        let is_over = self.is_over();
        if is_over {
            self.0.noticed.store(self.0.begun.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        is_over
    }

    /// Has the connection waited for a request for half a second, with everything sent?
    pub fn is_at_rest(&self) -> bool {
        self.0.at_rest.load(Ordering::Relaxed)
    }

    fn is_serving(&self) -> bool {
        self.0.active.load(Ordering::Acquire) > 0
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.active.fetch_sub(1, Ordering::Release);
    }
}

/// A stream that fails with `TimedOut` when a head takes longer than `head` (then with [`SlowHead`] in it), or none
/// begins within `idle`.
#[derive(Debug)]
pub struct HeadTimeout<S> {
    inner: S,
    phase: Phase,
    head: Duration,
    idle: Duration,
    wait: Wait,
    idle_until: Instant,
    has_unsent: bool,
    sleep: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Serving,
    Idle,
    /// Idle for longer than [`REST_AFTER`].
    Rest,
    Head,
    Lingering,
}

/// How long a connection waits for its next request before it counts as resting: short against how long idle ones
/// stay, long against the pauses of a busy one.
const REST_AFTER: Duration = Duration::from_millis(500);

/// Longest wait for a client to close after our last answer: some round trips.
const LINGER: Duration = Duration::from_secs(2);

impl<S> HeadTimeout<S> {
    /// `head` runs from the start: the first bytes of a connection were what made it known as HTTP.
    pub fn new(inner: S, phase: Phase, head: Duration, idle: Duration) -> Self {
        let now = Instant::now();
        let sleep = Box::pin(tokio::time::sleep_until(now + head));
        Self { inner, phase, head, idle, wait: Wait::Head, idle_until: now, has_unsent: false, sleep }
    }

    /// The stream behind.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The stream behind, without deadlines.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn wait_for(&mut self, wait: Wait) {
        self.wait = wait;
        self.phase.0.at_rest.store(wait == Wait::Rest, Ordering::Relaxed);
        let now = Instant::now();
        let until = match wait {
            Wait::Serving => return,
            Wait::Idle => {
                self.idle_until = now + self.idle;
                self.idle_until.min(now + REST_AFTER)
            }
            Wait::Rest => self.idle_until,
            Wait::Head => now + self.head,
            Wait::Lingering => now + LINGER,
        };
        self.sleep.as_mut().reset(until);
    }

    /// Which deadline has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            if self.wait == Wait::Serving {
                return Poll::Pending;
            }
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            match self.wait {
                Wait::Head => return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, SlowHead)),
                Wait::Idle if now >= self.idle_until => return Poll::Ready(io::ErrorKind::TimedOut.into()),
                // A client that does not take our answer is idle, but not at rest.
                Wait::Idle if self.has_unsent => self.sleep.as_mut().reset(self.idle_until.min(now + REST_AFTER)),
                Wait::Idle => self.wait_for(Wait::Rest),
                Wait::Rest | Wait::Serving | Wait::Lingering => return Poll::Ready(io::ErrorKind::TimedOut.into()),
            }
        }
    }
}

impl HeadTimeout<Replay<Transport>> {
    /// While nobody else reads: waits until there is something to read, the client's end included. False: the deadline
    /// passed before.
    ///
    /// # Cancel safety
    /// Nothing is read.
    pub async fn readable(&mut self) -> bool {
        poll_fn(|cx| {
            if self.inner.has_unread() || self.inner.get_ref().tcp().poll_read_ready(cx).is_ready() {
                return Poll::Ready(true);
            }
            self.poll_deadline(cx).map(|_passed| false)
        })
        .await
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match (this.phase.is_serving(), this.wait) {
            (_, Wait::Lingering) | (true, Wait::Serving) => {}
            (true, Wait::Idle | Wait::Rest | Wait::Head) => this.wait_for(Wait::Serving),
            (false, _) if this.phase.notice() => this.wait_for(Wait::Idle),
            (false, _) => {}
        }
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            if matches!(this.wait, Wait::Idle | Wait::Rest) && buf.filled().len() > before {
                this.wait_for(Wait::Head);
            }
            return Poll::Ready(result);
        }
        this.poll_deadline(cx).map(Err)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for HeadTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.has_unsent = true;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.has_unsent = false;
        Poll::Ready(Ok(()))
    }

    /// A lingering close (RFC 9112, section 9.6): to close with unread bytes of the client is a reset, which may
    /// destroy our last answer before it was read. A client that was idle sends nothing, and is not waited for.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.wait != Wait::Lingering {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            if matches!(this.wait, Wait::Idle | Wait::Rest) {
                return Poll::Ready(Ok(()));
            }
            this.wait_for(Wait::Lingering);
        }
        let mut discarded = [0; 4096];
        let mut buf = ReadBuf::new(&mut discarded);
        while this.sleep.as_mut().poll(cx).is_pending() {
            buf.clear();
            let read = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.has_unsent = true;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
