//! Much read at once for a reader that asks for little.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunk::Chunk;

/// `inner`, read 32 KiB at a time: rustls asks for 4 KiB at first, which is five system calls for a record.
#[derive(Debug)]
pub struct ReadAhead<S> {
    ahead: Option<Chunk>,
    inner: S,
}

impl<S> ReadAhead<S> {
    /// Nothing read yet.
    pub fn new(inner: S) -> Self {
        Self { ahead: None, inner }
    }

    /// The stream behind.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut chunk = match self.ahead.take() {
            Some(chunk) => chunk,
            None => {
                let mut chunk = Chunk::new();
                ready!(chunk.poll_read(cx, &mut self.inner))?;
                chunk
            }
        };
        let count = chunk.bytes().len().min(buf.remaining());
        buf.put_slice(chunk.bytes().get(..count).unwrap_or_default());
        chunk.consume(count);
        self.ahead = Some(chunk).filter(|chunk| !chunk.bytes().is_empty());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::chunk::CHUNK;

    #[tokio::test]
    async fn small_reads_are_served_from_one_large_one() {
        let (mut writer, inner) = tokio::io::duplex(4 * CHUNK);
        let sent: Vec<u8> = (0..CHUNK + 1000).map(|at| (at % 251) as u8).collect();
        writer.write_all(&sent).await.unwrap();
        let mut ahead = ReadAhead::new(inner);
        let mut first = [0; 4096];
        ahead.read_exact(&mut first).await.unwrap();
        assert_eq!(first.as_slice(), &sent[..4096]);
        assert_eq!(ahead.ahead.as_ref().unwrap().bytes(), &sent[4096..CHUNK]);
        drop(writer);
        let mut rest = Vec::new();
        ahead.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, &sent[4096..]);
        assert!(ahead.ahead.is_none(), "nothing is held while nothing comes");
    }
}
