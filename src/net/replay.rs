//! A stream whose first bytes were already read, given back in front of the rest.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::{ClientHello, ClientHelloVerdict, Protocol, Stream, Verdict, client_hello, detect};

/// A client that has begun something like HTTP goes on within this time: a request line is sent in one piece.
const PAUSE: Duration = Duration::from_millis(20);

/// A TLS client sends its first flight without waiting for anything; its segments may be lost and sent again.
const HELLO_PAUSE: Duration = Duration::from_secs(2);

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

    /// Reads until the first bytes say what a connection speaks that may speak anything. A client that pauses in what
    /// could become HTTP waits for an answer to what it said: that is opaque, and so is silence that ends.
    ///
    /// # Errors
    /// When reading fails.
    ///
    /// # Cancel safety
    /// What was read is kept and read again later.
    pub async fn first_word(&mut self) -> io::Result<Protocol> {
        loop {
            if let Verdict::Is(protocol) = detect(&self.prefix) {
                return Ok(protocol);
            }
            let is_first = self.prefix.is_empty();
            self.prefix.reserve(64);
            let read = self.inner.read_buf(&mut self.prefix);
            let read = if is_first { read.await? } else { timeout(PAUSE, read).await.unwrap_or(Ok(0))? };
            if read == 0 {
                return Ok(Protocol::Opaque);
            }
        }
    }

    /// Reads until the whole ClientHello is there, of a stream that was found to speak TLS. `None`: it is not readable, or
    /// pauses in the middle, which no TLS client does.
    ///
    /// # Errors
    /// When reading fails.
    ///
    /// # Cancel safety
    /// What was read is kept and read again later.
    pub async fn client_hello(&mut self) -> io::Result<Option<ClientHello>> {
        loop {
            match client_hello(&self.prefix) {
                ClientHelloVerdict::Is(hello) => return Ok(Some(hello)),
                ClientHelloVerdict::Unreadable => return Ok(None),
                ClientHelloVerdict::More => {}
            }
            self.prefix.reserve(2048);
            if timeout(HELLO_PAUSE, self.inner.read_buf(&mut self.prefix)).await.unwrap_or(Ok(0))? == 0 {
                return Ok(None);
            }
        }
    }

    /// The ClientHello, if it has been read already.
    pub fn client_hello_so_far(&self) -> Option<ClientHello> {
        match client_hello(&self.prefix) {
            ClientHelloVerdict::Is(hello) => Some(hello),
            ClientHelloVerdict::Unreadable | ClientHelloVerdict::More => None,
        }
    }

    /// What the bytes read so far speak, as far as can be said.
    pub fn guess(&self) -> Protocol {
        match detect(&self.prefix) {
            Verdict::Is(protocol) => protocol,
            Verdict::More => Protocol::Opaque,
        }
    }

    /// Reads until something has been read that was not asked for yet, or nothing more will come.
    ///
    /// # Cancel safety
    /// What was read is kept and read again later.
    pub async fn fill(&mut self) {
        if self.prefix.is_empty() {
            self.prefix.reserve(1024);
            // An error comes again when it is read from.
            let _end_or_error = self.inner.read_buf(&mut self.prefix).await;
        }
    }

    /// Puts back what was read, in front of the rest.
    pub fn unread(&mut self, read: Bytes) {
        let rest = std::mem::replace(&mut self.prefix, BytesMut::from(read));
        self.prefix.unsplit(rest);
    }

    /// Is there anything that was read but not asked for yet?
    pub fn has_unread(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// The stream behind.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
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

impl<S: Stream> Stream for Replay<S> {
    fn hands_over(&self) -> bool {
        self.prefix.is_empty() && self.inner.hands_over()
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        self.inner.poll_bytes(cx)
    }

    fn takes_over(&self) -> bool {
        self.inner.takes_over()
    }

    fn poll_write_bytes(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        self.inner.poll_write_bytes(cx, bytes)
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
