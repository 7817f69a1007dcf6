//! A request body and a response body as one byte stream: how upgraded connections cross the mesh.
//!
//! Between sidecars an upgraded connection (WebSocket and others) is an ordinary
//! HTTP/2 request whose body carries the bytes one way and whose response body
//! carries them the other way, as a gRPC stream does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::{Body, BoxError};

/// Chunks that may wait for the peer; a full queue stops the reader.
const QUEUE: usize = 4;
/// The largest chunk, so that one writer cannot queue much.
const CHUNK: usize = 16 << 10;

/// A body to send, and the stream that writes into it and reads from the body `incoming`, once that is known.
pub fn duplex() -> (Body, impl FnOnce(Body) -> Duplex) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Body::fed(receiver), |incoming| Duplex { incoming, chunk: Bytes::new(), sender: PollSender::new(sender) })
}

/// See [`duplex`].
#[derive(Debug)]
pub struct Duplex {
    incoming: Body,
    chunk: Bytes,
    sender: PollSender<Result<Bytes, BoxError>>,
}

impl Duplex {
    /// Ends our side with an error, so that the peer's stream is reset instead of finished.
    pub fn abort(&mut self) {
        if let Some(sender) = self.sender.get_ref() {
            // A full queue means a peer that does not read; dropping the stream tells it enough.
            let _full = sender.try_send(Err(io::Error::from(io::ErrorKind::ConnectionReset).into()));
        }
    }
}

impl AsyncRead for Duplex {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.chunk.is_empty() {
            match ready!(Pin::new(&mut this.incoming).poll_frame(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(frame)) => this.chunk = frame.into_data().unwrap_or_default(),
            }
        }
        let count = this.chunk.len().min(buf.remaining());
        buf.put_slice(this.chunk.get(..count).unwrap_or_default());
        this.chunk.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let gone = |_closed| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.sender.poll_reserve(cx)).map_err(gone)?;
        let count = buf.len().min(CHUNK);
        let chunk = Bytes::copy_from_slice(buf.get(..count).unwrap_or_default());
        self.sender.send_item(Ok(chunk)).map_err(gone)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender.close();
        Poll::Ready(Ok(()))
    }
}
