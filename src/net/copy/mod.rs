//! Copying between two streams until both directions have ended; half-close is passed on.
//!
//! What is read is written at once, from a buffer that is lent for the moment: a tunnel on which
//! nothing moves holds none, and one whose reader is slow no more than one.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};

use super::chunk::{CHUNK, Chunk};
use super::{Expired, Lifetime};

/// Bytes copied one way before other connections of the thread have their turn.
const TURN: usize = 512 << 10;

/// A buffer that holds less is copied, and used again at once, when it could be handed over: so that what a slow peer leaves
/// unread takes at most twice its size.
const HANDED_OVER: usize = CHUNK / 2;

/// A stream that is copied from and to. One whose bytes lie in shared memory anyway hands them over, or takes them over, as
/// they are: each copy of bytes in bulk is 3 % of what carrying them costs.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Is [`Self::poll_bytes`] to be used instead of `poll_read` now? Not, when nothing is said about it.
    fn hands_over(&self) -> bool {
        false
    }

    /// What came next, as it is; empty at the end.
    ///
    /// # Errors
    /// As `poll_read`.
    fn poll_bytes(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Is [`Self::poll_write_bytes`] to be used instead of `poll_write`? Not, when nothing is said about it.
    fn takes_over(&self) -> bool {
        false
    }

    /// Takes as many of the first bytes as it has room for, and says how many that are.
    ///
    /// # Errors
    /// As `poll_write`.
    fn poll_write_bytes(&mut self, _cx: &mut Context<'_>, _bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

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
    a: &mut A,
    b: &mut B,
    mut lifetime: Option<Box<Lifetime>>,
    progress: impl Fn(Copied),
) -> (Copied, Result<(), Broken>)
where
    A: Stream,
    B: Stream,
{
    let mut forward = Way::default();
    let mut backward = Way::default();
    let result = poll_fn(|cx| {
        let there = forward.poll(cx, a, b).map_err(Broken::Failed)?;
        let back = backward.poll(cx, b, a).map_err(Broken::Failed)?;
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
    piece: Option<Piece>,
    source: Source,
    unflushed: bool,
}

#[derive(Debug)]
enum Piece {
    /// In a buffer that somebody else wants.
    Lent(Chunk),
    /// To be handed over.
    Shared(Bytes),
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
    fn poll<R: Stream, W: Stream>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>> {
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
            let is_dry = match from.hands_over() {
                true => self.poll_take(cx, from),
                false => self.poll_fill(cx, from, to.takes_over()),
            }
            .is_pending();
            if is_dry && self.piece.is_none() {
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
    }

    /// Takes what is there as it is. Pending: nothing is.
    fn poll_take<R: Stream>(&mut self, cx: &mut Context<'_>, from: &mut R) -> Poll<()> {
        match ready!(from.poll_bytes(cx)) {
            Ok(bytes) if bytes.is_empty() => self.source = Source::Ended,
            Ok(bytes) => {
                self.read += bytes.len() as u64;
                self.piece = Some(Piece::Shared(bytes));
            }
            Err(error) => self.source = Source::Failed(error),
        }
        Poll::Ready(())
    }

    /// Fills a chunk. Pending: nothing more is to be had now.
    fn poll_fill<R: Stream>(&mut self, cx: &mut Context<'_>, from: &mut R, is_shared: bool) -> Poll<()> {
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
        let length = chunk.bytes().len();
        self.read += length as u64;
        self.piece = match length {
            0 => None,
            HANDED_OVER.. if is_shared => Some(Piece::Shared(Bytes::from_owner(chunk))),
            _ if is_shared => Some(Piece::Shared(Bytes::copy_from_slice(chunk.bytes()))),
            _ => Some(Piece::Lent(chunk)),
        };
        polled
    }

    /// Writes what has been read.
    fn poll_write<W: Stream>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        while let Some(piece) = &mut self.piece {
            let (count, is_written) = match piece {
                Piece::Lent(chunk) => {
                    let count = ready!(Pin::new(&mut *to).poll_write(cx, chunk.bytes()))?;
                    chunk.consume(count);
                    (count, chunk.bytes().is_empty())
                }
                Piece::Shared(bytes) if to.takes_over() => (ready!(to.poll_write_bytes(cx, bytes))?, bytes.is_empty()),
                Piece::Shared(bytes) => {
                    let count = ready!(Pin::new(&mut *to).poll_write(cx, bytes))?;
                    bytes.advance(count);
                    (count, bytes.is_empty())
                }
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            if is_written {
                self.piece = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
