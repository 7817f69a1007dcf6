//! A stream whose first bytes were already read, given back in front of the rest.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::{Protocol, Verdict, detect};

/// `inner`, preceded by `prefix`.
#[derive(Debug)]
pub struct Replay<S> {
    prefix: BytesMut,
    inner: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Replay<S> {
    /// Nothing read yet.
    pub fn new(inner: S) -> Self {
        Self { prefix: BytesMut::new(), inner }
    }

    /// What was read of `inner` already comes first.
    pub fn after(read: Bytes, inner: S) -> Self {
        Self { prefix: BytesMut::from(read), inner }
    }

    /// Reads until the first bytes say what the connection speaks. `None`: the peer closed before.
    ///
    /// # Errors
    /// When reading fails.
    ///
    /// # Cancel safety
    /// What was read is kept and read again later.
    pub async fn detect(&mut self) -> io::Result<Option<Protocol>> {
        loop {
            if let Verdict::Is(protocol) = detect(&self.prefix) {
                return Ok(Some(protocol));
            }
            self.prefix.reserve(64);
            if self.inner.read_buf(&mut self.prefix).await? == 0 {
                return Ok((!self.prefix.is_empty()).then_some(Protocol::Opaque));
            }
        }
    }

    /// Reads until the first bytes say whether it is TLS, and not a byte more: a client whose first word is short
    /// waits for the answer to it. False also when the peer closed before.
    ///
    /// # Errors
    /// When reading fails.
    ///
    /// # Cancel safety
    /// What was read is kept and read again later.
    pub async fn detect_tls(&mut self) -> io::Result<bool> {
        loop {
            match self.prefix.first() {
                Some(0x16) => return Ok(self.detect().await? == Some(Protocol::Tls)),
                Some(_) => return Ok(false),
                None => {}
            }
            self.prefix.reserve(64);
            if self.inner.read_buf(&mut self.prefix).await? == 0 {
                return Ok(false);
            }
        }
    }

    /// The stream behind.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = self.prefix.len().min(buf.remaining());
        buf.put_slice(self.prefix.get(..count).unwrap_or_default());
        self.prefix.advance(count);
        if self.prefix.is_empty() {
            self.prefix = BytesMut::new(); // An idle connection holds no buffer.
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
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
