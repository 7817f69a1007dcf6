//! A `CONNECT` tunnel in an HTTP/2 stream (RFC 9113, section 8.5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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

impl AsyncRead for Http2Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.chunk.is_empty() {
            match ready!(this.receive.poll_data(cx)) {
                Some(data) => this.chunk = data.map_err(broken)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = this.chunk.len().min(buf.remaining());
        buf.put_slice(this.chunk.get(..count).unwrap_or_default());
        this.chunk.advance(count);
        // It fails when the stream is over, and then nobody waits for window.
        let _over = this.receive.flow_control().release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len().min(CHUNK));
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(capacity) => drop(capacity.map_err(broken)?),
                None => return Poll::Ready(Err(gone(&mut self.send, cx))),
            }
        }
        let count = self.send.capacity().min(buf.len()).min(CHUNK);
        let data = Bytes::copy_from_slice(buf.get(..count).unwrap_or_default());
        self.send.send_data(data, false).map_err(broken)?;
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
