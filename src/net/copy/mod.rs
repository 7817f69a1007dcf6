//! Copying between two streams until both directions have ended; half-close is passed on.
//!
//! What is read is written at once, from a buffer that is lent for the moment: a tunnel on which
//! nothing moves holds none, and one whose reader is slow no more than one.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::chunk::Chunk;
use super::{Expired, Lifetime};

/// Bytes copied one way before other connections of the thread have their turn.
const TURN: usize = 512 << 10;

/// How many bytes went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// From the first stream to the second.
    pub forward: u64,
    /// From the second stream to the first.
    pub backward: u64,
}

/// Why copying came to no good end.
#[derive(Debug)]
pub enum Broken {
    /// One of the streams failed.
    Failed(io::Error),
    /// A limit of the [`Lifetime`] has passed.
    Expired(Expired),
}

/// Copies both ways until both have ended, one fails, or the `lifetime` is over (`None`: it has no limit). The counts,
/// of bytes read, are right in either case.
///
/// The end of one direction is passed on as a shutdown of the other stream's writing
/// side; the opposite direction goes on (TCP half-close).
///
/// `progress` is told the counts so far, each time that some bytes may have passed.
pub async fn copy<A, B>(
    mut a: A,
    mut b: B,
    mut lifetime: Option<Box<Lifetime>>,
    progress: impl Fn(Copied),
) -> (Copied, Result<(), Broken>)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut forward = Way::default();
    let mut backward = Way::default();
    let result = poll_fn(|cx| {
        let there = forward.poll(cx, &mut a, &mut b).map_err(Broken::Failed)?;
        let back = backward.poll(cx, &mut b, &mut a).map_err(Broken::Failed)?;
        progress(Copied { forward: forward.read, backward: backward.read });
        if there.is_ready() && back.is_ready() {
            return Poll::Ready(Ok(()));
        }
        match &mut lifetime {
            Some(lifetime) => {
                lifetime.poll_expired(cx, forward.read + backward.read).map(|expired| Err(Broken::Expired(expired)))
            }
            None => Poll::Pending,
        }
    })
    .await;
    (Copied { forward: forward.read, backward: backward.read }, result)
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    read: u64,
    /// Read, and not all of it written yet.
    chunk: Option<Chunk>,
    source: Source,
    unflushed: bool,
}

#[derive(Debug, Default)]
enum Source {
    #[default]
    Open,
    /// Told once what came before it has been written.
    Failed(io::Error),
    Ended,
    /// It has ended, and that has been passed on.
    Done,
}

impl Way {
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let turn_ends = self.read + TURN as u64;
        loop {
            ready!(self.poll_write(cx, to))?;
            match &mut self.source {
                Source::Open => {}
                Source::Failed(error) => {
                    return Poll::Ready(Err(std::mem::replace(error, io::ErrorKind::Other.into())));
                }
                Source::Ended => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.source = Source::Done;
                    return Poll::Ready(Ok(()));
                }
                Source::Done => return Poll::Ready(Ok(())),
            }
            if self.read >= turn_ends {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let is_dry = self.poll_read(cx, from).is_pending();
            if is_dry && self.chunk.is_none() {
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
    }

    /// Fills a chunk. Pending: nothing more is to be had now.
    fn poll_read<R: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, from: &mut R) -> Poll<()> {
        let mut chunk = Chunk::new();
        let polled = loop {
            if chunk.is_full() {
                break Poll::Ready(());
            }
            match chunk.poll_read(cx, from) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Ok(0)) => self.source = Source::Ended,
                Poll::Ready(Err(error)) => self.source = Source::Failed(error),
                Poll::Ready(Ok(_)) => continue,
            }
            break Poll::Ready(());
        };
        self.read += chunk.bytes().len() as u64;
        self.chunk = Some(chunk).filter(|chunk| !chunk.bytes().is_empty());
        polled
    }

    /// Writes what has been read.
    fn poll_write<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        while let Some(chunk) = &mut self.chunk {
            let count = ready!(Pin::new(&mut *to).poll_write(cx, chunk.bytes()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            chunk.consume(count);
            if chunk.bytes().is_empty() {
                self.chunk = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
