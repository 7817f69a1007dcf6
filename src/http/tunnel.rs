//! A `CONNECT` tunnel in HTTP/2, with the one thing that hyper keeps from us: how it ended.
//!
//! hyper finishes the sending half of a tunnel (END_STREAM) when its end is dropped, and reports the
//! peer's `RST_STREAM` as a proper end of the bytes. To a protocol that ends its answer by closing, a
//! broken answer would look complete. So: [`Streams`] keeps a handle on the task in which hyper sends
//! a tunnel's bytes, and [`Cutter`] drops that task, which resets the stream (CANCEL); and
//! [`Http2Tunnel`] asks that task, when the bytes end, whether the stream was reset.
//!
//! What remains: hyper's client gives no handle, so a caller that breaks off is an end of bytes to the
//! other side, whose next write fails; and a reset after we have finished sending looks like an end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use hyper::rt::Executor;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

tokio::task_local! {
    /// Set while the task of an HTTP/2 stream runs.
    static STREAM: Cutter;
}

/// Resets the HTTP/2 stream of a tunnel that we accepted.
#[derive(Clone, Debug, Default)]
pub struct Cutter(Arc<OnceLock<AbortHandle>>);

impl Cutter {
    /// That of the stream whose request is being served by this task. `None`: it came over HTTP/1.1.
    pub fn current() -> Option<Self> {
        STREAM.try_with(Self::clone).ok()
    }

    fn cut(&self) {
        if let Some(sending) = self.0.get() {
            sending.abort();
        }
    }
}

/// Runs the tasks of an HTTP/2 server connection: one for each stream, and from within that, one that
/// sends the bytes of its tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        match Cutter::current() {
            None => drop(tokio::spawn(STREAM.scope(Cutter::default(), task))),
            // hyper starts nothing else in a stream's task. If it did, the first would be the one.
            Some(cutter) => drop(cutter.0.set(tokio::spawn(task).abort_handle())),
        }
    }
}

/// A tunnel in an HTTP/2 stream, at either end of it.
#[derive(Debug)]
pub struct Http2Tunnel {
    stream: TokioIo<Upgraded>,
    cutter: Option<Cutter>,
    end_seen: bool,
}

impl Http2Tunnel {
    /// `cutter` is that of the request which asked for the tunnel, where we are the server.
    pub fn new(stream: Upgraded, cutter: Option<Cutter>) -> Self {
        Self { stream: TokioIo::new(stream), cutter, end_seen: false }
    }

    /// Makes dropping it a reset, where that can be had.
    pub fn abort(&self) {
        if let Some(cutter) = &self.cutter {
            cutter.cut();
        }
    }
}

impl AsyncRead for Http2Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !self.end_seen {
            // A reset wakes us and hyper's sending task in one go, on one thread: let that have its turn.
            self.end_seen = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(reset)) => Poll::Ready(Err(reset)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Http2Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
