use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, Join, ReadBuf, duplex, join, sink};
use tokio::task::JoinHandle;

use super::*;
use crate::net::chunk::CHUNK;

type Copying = JoinHandle<(Copied, Result<(), Broken>)>;

/// Client and server, each with `capacity` bytes of room each way, and the copying between.
fn tunnel(capacity: usize) -> (DuplexStream, DuplexStream, Copying) {
    let (client, near) = duplex(capacity);
    let (far, server) = duplex(capacity);
    (client, server, spawn(near, far))
}

fn spawn(mut a: impl Stream + Send + 'static, mut b: impl Stream + Send + 'static) -> Copying {
    tokio::spawn(async move { copy(&mut a, &mut b, None, drop).await })
}

impl Stream for DuplexStream {}
impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Stream for Join<R, W> {}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

async fn read_all(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn an_answer_follows_the_end_of_the_question() {
    let (mut client, mut server, copying) = tunnel(1024);
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    server.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    server.write_all(b"the answer").await.unwrap();
    drop(server);
    assert_eq!(read_all(client).await, b"the answer");
    let (copied, result) = copying.await.unwrap();
    result.unwrap();
    assert_eq!(copied, Copied { forward: 8, backward: 10 });
}

#[tokio::test]
async fn a_question_follows_the_end_of_the_answer() {
    let (mut client, mut server, copying) = tunnel(1024);
    server.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"");
    client.write_all(b"still here").await.unwrap();
    drop(client);
    assert_eq!(read_all(server).await, b"still here");
    let (copied, result) = copying.await.unwrap();
    result.unwrap();
    assert_eq!(copied, Copied { forward: 10, backward: 0 });
}

#[tokio::test]
async fn much_goes_both_ways_at_once_through_little_room() {
    let (client, server, copying) = tunnel(1000);
    let (there, back) = (bytes(3 * TURN + 17), bytes(TURN + 5));
    let exchange = |stream: DuplexStream, sent: Vec<u8>| async move {
        let (reader, mut writer) = tokio::io::split(stream);
        let write = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        tokio::join!(read_all(reader), write).0
    };
    let (at_client, at_server) = tokio::join!(exchange(client, there.clone()), exchange(server, back.clone()));
    assert!(at_client == back && at_server == there, "bytes were lost or mixed up");
    let (copied, result) = copying.await.unwrap();
    result.unwrap();
    assert_eq!(copied, Copied { forward: there.len() as u64, backward: back.len() as u64 });
}

#[tokio::test]
async fn a_slow_reader_stops_the_sender() {
    let (mut client, mut server, copying) = tunnel(1000);
    let all = bytes(4 * CHUNK);
    let write = async {
        client.write_all(&all).await.unwrap();
        drop(client);
    };
    let mut write = std::pin::pin!(write);
    tokio::select! {
        () = write.as_mut() => panic!("all of it was taken though nobody reads"),
        () = idle() => {}
    }
    let mut first = vec![0; CHUNK];
    tokio::join!(write, async {
        server.read_exact(&mut first).await.unwrap();
        let rest = read_all(&mut server).await;
        assert!([first, rest].concat() == all);
    });
    server.shutdown().await.unwrap();
    copying.await.unwrap().1.unwrap();
}

/// Until nothing moves by itself any more.
async fn idle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_came_before_an_error_is_delivered_and_counted() {
    let broken = Scripted(|_: &mut ReadBuf<'_>| Err(io::ErrorKind::ConnectionReset.into()));
    let client = join(AsyncReadExt::chain(&b"half a message"[..], broken), sink());
    let (far, server) = duplex(1024);
    let copying = spawn(client, far);
    assert_eq!(read_all(server).await, b"half a message");
    let (copied, result) = copying.await.unwrap();
    assert!(matches!(result, Err(Broken::Failed(error)) if error.kind() == io::ErrorKind::ConnectionReset));
    assert_eq!(copied, Copied { forward: 14, backward: 0 });
}

#[tokio::test]
async fn an_end_that_takes_nothing_more_ends_it_all() {
    let (mut client, server, copying) = tunnel(1024);
    drop(server);
    client.write_all(b"to nobody").await.unwrap();
    let (copied, result) = copying.await.unwrap();
    assert!(matches!(result, Err(Broken::Failed(error)) if error.kind() == io::ErrorKind::BrokenPipe));
    assert_eq!(copied, Copied { forward: 9, backward: 0 });
}

#[tokio::test]
async fn a_busy_tunnel_lets_others_have_their_turn() {
    let read = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&read);
    let endless = Scripted(move |buf: &mut ReadBuf<'_>| {
        counted.fetch_add(buf.remaining() as u64, Ordering::Relaxed);
        buf.advance(buf.remaining());
        Ok(())
    });
    let copying = spawn(join(endless, sink()), join(tokio::io::empty(), sink()));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let read = read.load(Ordering::Relaxed);
    assert!(read >= 3 * TURN as u64, "it had its turns too: {read}");
    copying.abort();
}

/// A source that never waits.
struct Scripted<F>(F);

impl<F: FnMut(&mut ReadBuf<'_>) -> io::Result<()> + Unpin> AsyncRead for Scripted<F> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready((self.0)(buf))
    }
}

#[tokio::test]
async fn dropping_it_closes_both_ends() {
    let (mut client, mut server, copying) = tunnel(1000);
    client.write_all(b"hello").await.unwrap();
    let mut hello = [0; 5];
    server.read_exact(&mut hello).await.unwrap();
    copying.abort();
    let closed = async { (read_all(client).await, read_all(server).await) };
    let closed = tokio::time::timeout(Duration::from_secs(5), closed).await.unwrap();
    assert_eq!(closed, (Vec::new(), Vec::new()));
    assert!(copying.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn an_idle_way_holds_no_buffer() {
    let (mut client, mut near) = duplex(4 * CHUNK);
    let (mut far, mut server) = duplex(CHUNK / 2);
    let mut way = Way::default();
    let mut step = async || {
        assert!(poll_fn(|cx| Poll::Ready(way.poll(cx, &mut near, &mut far).is_pending())).await);
        way.piece.is_some()
    };
    assert!(!step().await);
    client.write_all(&bytes(CHUNK)).await.unwrap();
    assert!(step().await, "half of it does not fit");
    server.read_exact(&mut [0; CHUNK / 2]).await.unwrap();
    assert!(!step().await);
}

/// Has pieces to hand over, and takes over what it gets, so many bytes at a time.
struct Shared {
    to_read: Vec<Bytes>,
    taken: Arc<Mutex<Vec<Bytes>>>,
    room: usize,
}

impl Stream for Shared {
    fn hands_over(&self) -> bool {
        true
    }

    fn poll_bytes(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        Poll::Ready(Ok(self.to_read.pop().unwrap_or_default()))
    }

    fn takes_over(&self) -> bool {
        true
    }

    fn poll_write_bytes(&mut self, _cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        let count = bytes.len().min(self.room);
        self.taken.lock().push(bytes.split_to(count));
        Poll::Ready(Ok(count))
    }
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        unreachable!("it hands over")
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        unreachable!("it takes over")
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_is_handed_over_is_not_copied() {
    let piece = Bytes::from(bytes(3 * CHUNK));
    let taken = Arc::new(Mutex::new(Vec::new()));
    let from = Shared { to_read: vec![piece.clone()], taken: Arc::default(), room: 0 };
    let to = Shared { to_read: Vec::new(), taken: Arc::clone(&taken), room: 20_000 };
    let (copied, result) = spawn(from, to).await.unwrap();
    result.unwrap();
    assert_eq!(copied, Copied { forward: piece.len() as u64, backward: 0 });
    let mut at = 0;
    for part in taken.lock().iter() {
        assert_eq!(part.as_ptr(), piece[at..].as_ptr());
        at += part.len();
    }
    assert_eq!(at, piece.len());
}

#[tokio::test]
async fn what_is_taken_over_and_handed_over_is_what_was_written() {
    let (mut client, near) = duplex(4 * CHUNK);
    let taken = Arc::new(Mutex::new(Vec::new()));
    let answer = bytes(CHUNK + 1);
    let far = Shared { to_read: vec![answer.clone().into()], taken: Arc::clone(&taken), room: 10_000 };
    let copying = spawn(near, far);
    let sent = bytes(2 * CHUNK + 100);
    client.write_all(&sent).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(client).await, answer);
    let (copied, result) = copying.await.unwrap();
    result.unwrap();
    assert_eq!(copied, Copied { forward: sent.len() as u64, backward: answer.len() as u64 });
    assert_eq!(taken.lock().concat(), sent);
}
