//! A `CONNECT` tunnel in an HTTP/2 stream (RFC 9113, section 8.5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;

/// The most that is sent as one piece.
const CHUNK: usize = super::MAX_FRAME as usize;

/// The bytes of a tunnel, at either end of it. To drop it before both directions have ended is to reset it (CANCEL).
#[derive(Debug)]
pub struct Http2Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    chunk: Bytes,
}

impl Http2Tunnel {
    pub(super) fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        Self { send, receive, chunk: Bytes::new() }
    }

    /// Resets the stream, so that the other end does not take the end of the bytes for a proper one.
    pub fn reset(&mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

impl Stream for Http2Tunnel {
    fn hands_over(&self) -> bool {
        true
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        ready!(self.poll_chunk(cx))?;
        let bytes = std::mem::take(&mut self.chunk);
        self.taken(bytes.len());
        Poll::Ready(Ok(bytes))
    }

    fn takes_over(&self) -> bool {
        true
    }

    fn poll_write_bytes(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        let count = ready!(self.poll_room(cx, bytes.len()))?;
        self.send.send_data(bytes.split_to(count), false).map_err(broken)?;
        Poll::Ready(Ok(count))
    }
}

impl Http2Tunnel {
    /// Waits until there is something to read; nothing at the end.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                Some(data) => self.chunk = data.map_err(broken)?,
                None => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn taken(&mut self, count: usize) {
        // It fails when the stream is over, and then nobody waits for window.
        let _over = self.receive.flow_control().release_capacity(count);
    }

    /// Waits until some of `wanted` bytes can be sent, and says how many.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let wanted = wanted.min(CHUNK);
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(wanted);
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(capacity) => drop(capacity.map_err(broken)?),
                None => return Poll::Ready(Err(gone(&mut self.send, cx))),
            }
        }
        Poll::Ready(Ok(self.send.capacity().min(wanted)))
    }
}

impl AsyncRead for Http2Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_chunk(cx))?;
        let count = self.chunk.len().min(buf.remaining());
        buf.put_slice(self.chunk.get(..count).unwrap_or_default());
        self.chunk.advance(count);
        self.taken(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(self.poll_room(cx, buf.len()))?;
        if count > 0 {
            let data = Bytes::copy_from_slice(buf.get(..count).unwrap_or_default());
            self.send.send_data(data, false).map_err(broken)?;
        }
        Poll::Ready(Ok(count))
    }

    /// Does nothing: the connection's driver sends what there is in its next turn.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(broken))
    }
}

/// Why nothing more can be sent.
fn gone(send: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> io::Error {
    match send.poll_reset(cx) {
        Poll::Ready(Ok(reason)) => broken(reason.into()),
        Poll::Ready(Err(error)) => broken(error),
        Poll::Pending => io::ErrorKind::BrokenPipe.into(),
    }
}

fn broken(error: h2::Error) -> io::Error {
    let kind = if error.is_reset() { io::ErrorKind::ConnectionReset } else { io::ErrorKind::BrokenPipe };
    io::Error::new(kind, error)
}
