//! A deadline on request heads, and another on idle connections: what hyper's HTTP/1 server lacks.
//!
//! hyper's `header_read_timeout` runs while a kept connection waits for its next
//! request, so it cannot be short (slow loris) and long (idle clients) at once.
//! Here the first byte of a head starts the short one. [`Phase`] tells when a
//! request is being served, during which neither runs.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A client took too long over a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request head did not arrive in time")]
pub struct SlowHead;

/// Shared between a connection and the requests on it: is one being served?
#[derive(Clone, Debug, Default)]
pub struct Phase(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    active: AtomicUsize,
    begun: AtomicUsize,
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
    sleep: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Serving,
    Idle,
    Head,
    Lingering,
}

/// Longest wait for a client to close after our last answer: some round trips.
const LINGER: Duration = Duration::from_secs(2);

impl<S> HeadTimeout<S> {
    /// `head` runs from the start: the first bytes of a connection were what made it known as HTTP.
    pub fn new(inner: S, phase: Phase, head: Duration, idle: Duration) -> Self {
        Self { inner, phase, head, idle, wait: Wait::Head, sleep: Box::pin(tokio::time::sleep(head)) }
    }

    /// The stream behind, without deadlines.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn wait_for(&mut self, wait: Wait) {
        self.wait = wait;
        match wait {
            Wait::Serving => {}
            Wait::Idle => self.sleep.as_mut().reset(Instant::now() + self.idle),
            Wait::Head => self.sleep.as_mut().reset(Instant::now() + self.head),
            Wait::Lingering => self.sleep.as_mut().reset(Instant::now() + LINGER),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match (this.phase.is_serving(), this.wait) {
            (true, Wait::Idle | Wait::Head) => this.wait_for(Wait::Serving),
            (false, Wait::Serving) => this.wait_for(Wait::Idle),
            _ => {}
        }
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            if this.wait == Wait::Idle && buf.filled().len() > before {
                this.wait_for(Wait::Head);
            }
            return Poll::Ready(result);
        }
        if this.wait != Wait::Serving {
            ready!(this.sleep.as_mut().poll(cx));
            let error = match this.wait {
                Wait::Head => io::Error::new(io::ErrorKind::TimedOut, SlowHead),
                Wait::Idle | Wait::Serving | Wait::Lingering => io::ErrorKind::TimedOut.into(),
            };
            return Poll::Ready(Err(error));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for HeadTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// A lingering close (RFC 9112, section 9.6): to close with unread bytes of the client is a reset, which may
    /// destroy our last answer before it was read. A client that was idle sends nothing, and is not waited for.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.wait != Wait::Lingering {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            if this.wait == Wait::Idle {
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
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
