use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex, join, sink};
use tokio::task::JoinHandle;

use super::*;
use crate::net::chunk::CHUNK;

type Copying = JoinHandle<(Copied, Result<(), Broken>)>;

/// Client and server, each with `capacity` bytes of room each way, and the copying between.
fn tunnel(capacity: usize) -> (DuplexStream, DuplexStream, Copying) {
    let (client, near) = duplex(capacity);
    let (far, server) = duplex(capacity);
    (client, server, tokio::spawn(copy(near, far, None, drop)))
}

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
    let copying = tokio::spawn(copy(client, far, None, drop));
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
    let copying = tokio::spawn(copy(join(endless, sink()), join(tokio::io::empty(), sink()), None, drop));
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
        way.chunk.is_some()
    };
    assert!(!step().await);
    client.write_all(&bytes(CHUNK)).await.unwrap();
    assert!(step().await, "half of it does not fit");
    server.read_exact(&mut [0; CHUNK / 2]).await.unwrap();
    assert!(!step().await);
}
