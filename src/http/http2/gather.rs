//! One write for all frames of a turn.
//!
//! `h2` hands each DATA frame of some size to the connection by itself: a system call and a TLS record per response.
//! Here its writes are gathered, and whoever drives the connection sends them on when `h2` has nothing more to say.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Transport;

/// Gathered bytes that a slow peer may leave behind before more is refused.
const MOST: usize = 64 << 10;
/// A payload of this size goes out at once, without being copied: it is a record of its own anyway.
const LARGE: usize = 16 << 10;
/// Space that is kept for the next turn.
const KEPT: usize = 16 << 10;

/// A connection whose writes wait for [`Self::poll_written`]. Clones are the same connection: one is `h2`'s, one its
/// driver's, both on one thread, so that the lock is never waited for.
#[derive(Clone, Debug)]
pub(super) struct Gather(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    transport: Transport,
    gathered: BytesMut,
    /// Written since the last complete flush.
    unflushed: bool,
    /// Nothing is read for now.
    is_deaf: bool,
    reads: u64,
}

impl Gather {
    /// Nothing gathered yet.
    pub(super) fn new(transport: Transport) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            transport,
            gathered: BytesMut::new(),
            unflushed: false,
            is_deaf: false,
            reads: 0,
        })))
    }

    /// Sends what was gathered. Pending: the peer is slow, and the task is woken when it takes more.
    pub(super) fn poll_written(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_written(cx)
    }

    /// Reads nothing while it is deaf. Nobody is woken for what comes meanwhile: poll again when it hears.
    pub(super) fn set_deaf(&self, is_deaf: bool) {
        self.0.lock().is_deaf = is_deaf;
    }

    /// Something can be read. What was read ahead before does not count: `h2` has taken all of that.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().transport.tcp().poll_read_ready(cx)
    }

    /// How many times something was read.
    pub(super) fn reads(&self) -> u64 {
        self.0.lock().reads
    }
}

impl Inner {
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            self.unflushed = true;
            let count = ready!(Pin::new(&mut self.transport).poll_write(cx, &self.gathered))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(count);
        }
        if self.gathered.capacity() > KEPT {
            self.gathered = BytesMut::new();
        }
        // TLS may hold what the socket had no room for, also after all was taken from here.
        if self.unflushed {
            ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn gather(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if length >= LARGE || self.gathered.len() + length > MOST {
            ready!(self.poll_written(cx))?;
        }
        if length >= LARGE {
            self.unflushed = true;
            return Pin::new(&mut self.transport).poll_write_vectored(cx, bufs);
        }
        for buf in bufs {
            self.gathered.extend_from_slice(buf);
        }
        Poll::Ready(Ok(length))
    }
}

impl AsyncRead for Gather {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        if inner.is_deaf {
            return Poll::Pending;
        }
        ready!(Pin::new(&mut inner.transport).poll_read(cx, buf))?;
        inner.reads += 1;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gather {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().gather(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().gather(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: see [`Gather::poll_written`].
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_written(cx))?;
        Pin::new(&mut inner.transport).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
    use rustls::{ClientConfig, ServerConfig};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;
    use tokio_rustls::{TlsAcceptor, TlsConnector, server};

    use super::*;
    use crate::net::ReadAhead;
    use crate::tls::provider;
    use crate::tls::test_pki::{Authority, params};

    async fn connected() -> (Gather, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (Gather::new(Transport::Dialled(dialled.unwrap())), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn what_is_written_waits_for_the_end_of_the_turn_and_keeps_its_order() {
        let (mut gather, mut peer) = connected().await;
        gather.write_all(b"one ").await.unwrap();
        let written = gather.write_vectored(&[IoSlice::new(b"two "), IoSlice::new(b"three")]).await.unwrap();
        assert_eq!(written, 9);
        gather.flush().await.unwrap();
        let mut read = vec![0; 3 * LARGE];
        let nothing = peer.try_read(&mut read).expect_err("nothing was sent yet");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        // A large piece takes what waits before it along.
        let large = vec![b'x'; LARGE];
        gather.write_all(&large).await.unwrap();
        peer.read_exact(&mut read[..13 + LARGE]).await.unwrap();
        assert_eq!(&read[..13], b"one two three");
        assert_eq!(read[13..13 + LARGE], large);
        gather.write_all(b"four").await.unwrap();
        poll_fn(|cx| gather.poll_written(cx)).await.unwrap();
        peer.read_exact(&mut read[..4]).await.unwrap();
        assert_eq!(&read[..4], b"four");
        gather.write_all(b"five").await.unwrap();
        gather.shutdown().await.unwrap();
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"five", "the end comes after what was gathered");
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_stops_the_writer_and_little_is_held_for_it() {
        let (mut gather, mut peer) = connected().await;
        let piece = [1; 1000];
        let mut written = 0_usize;
        while let Poll::Ready(count) = poll_fn(|cx| Poll::Ready(Pin::new(&mut gather).poll_write(cx, &piece))).await {
            written += count.unwrap();
            assert!(gather.0.lock().gathered.len() <= MOST);
            assert!(written < 1 << 30, "it goes on for ever");
        }
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).await.map(|_| all.len())
        });
        poll_fn(|cx| gather.poll_written(cx)).await.unwrap();
        gather.shutdown().await.unwrap();
        assert_eq!(reader.await.unwrap().unwrap(), written);
    }

    /// TLS over a connection whose kernel takes little.
    async fn over_tls() -> (Gather, server::TlsStream<TcpStream>) {
        let authority = Authority::new();
        let mut leaf = params(&[]);
        leaf.subject_alt_names = vec![rcgen::SanType::DnsName("peer".try_into().unwrap())];
        let (leaf, key) = authority.sign(&leaf);
        let chain = [vec![leaf], authority.intermediates()].concat();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_no_client_auth();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dialled, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let dialled = dialled.unwrap();
        socket2::SockRef::from(&dialled).set_send_buffer_size(4 << 10).unwrap();
        let dialled = ReadAhead::new(dialled);
        let name = ServerName::try_from("peer").unwrap();
        let (originated, peer) = tokio::join!(
            TlsConnector::from(Arc::new(client)).connect(name, dialled),
            TlsAcceptor::from(Arc::new(server)).accept(accepted.unwrap().0)
        );
        (Gather::new(Transport::Originated(Box::new(originated.unwrap()))), peer.unwrap())
    }

    #[tokio::test]
    async fn what_tls_holds_back_is_sent_when_there_is_room_though_nothing_more_is_written() {
        let (mut gather, mut peer) = over_tls().await;
        let held = |gather: &Gather| match &gather.0.lock().transport {
            Transport::Originated(stream) => stream.get_ref().1.wants_write(),
            _ => false,
        };
        let mut written = 0_usize;
        while !held(&gather) {
            written += gather.write(&[1; 1000]).await.unwrap();
            let _full = poll_fn(|cx| Poll::Ready(gather.poll_written(cx))).await;
            assert!(written < 1 << 30, "it goes on for ever");
        }
        let mut all = vec![0; written];
        let both = async { tokio::try_join!(poll_fn(|cx| gather.poll_written(cx)), peer.read_exact(&mut all)) };
        timeout(Duration::from_secs(20), both).await.expect("all of it comes").unwrap();
    }
}
