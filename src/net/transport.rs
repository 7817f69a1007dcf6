//! The byte streams that HTTP and TCP run over, as one type: plain, or either end of TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{ReadAhead, Replay};

/// A connected stream. TLS sessions are boxed: they are large, and few connections change kind.
#[derive(Debug)]
pub enum Transport {
    /// Accepted, plaintext.
    Accepted(Replay<TcpStream>),
    /// Accepted, TLS terminated by us.
    Terminated(Box<Replay<tokio_rustls::server::TlsStream<ReadAhead<Replay<TcpStream>>>>>),
    /// Dialled, plaintext.
    Dialled(TcpStream),
    /// Dialled, TLS originated by us.
    Originated(Box<tokio_rustls::client::TlsStream<ReadAhead<TcpStream>>>),
}

macro_rules! each {
    ($self:expr, $stream:ident => $do:expr) => {
        match $self.get_mut() {
            Self::Accepted($stream) => $do,
            Self::Terminated($stream) => $do,
            Self::Dialled($stream) => $do,
            Self::Originated($stream) => $do,
        }
    };
}

impl Transport {
    /// The TCP connection below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Accepted(stream) => stream.get_ref(),
            Self::Terminated(stream) => stream.get_ref().get_ref().0.get_ref().get_ref(),
            Self::Dialled(stream) => stream,
            Self::Originated(stream) => stream.get_ref().0.get_ref(),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Accepted(stream) => stream.is_write_vectored(),
            Self::Terminated(stream) => stream.is_write_vectored(),
            Self::Dialled(stream) => stream.is_write_vectored(),
            Self::Originated(stream) => stream.is_write_vectored(),
        }
    }
}
