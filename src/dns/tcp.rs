//! Queries in connections (RFC 7766): many in one, answered as they are ready.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::forward::framed;
use super::message::Transport;
use super::resolver::Resolver;
use crate::net;

/// A connection without a whole query, or an answer that goes nowhere, is closed after this long (RFC 7766, 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// Queries under way in one connection; the rest waits in the kernel.
const PIPELINED: usize = 16;
/// The longest query that is read; one has a single question and rarely 512 bytes.
const MAX_QUERY: usize = 4096;

/// Accepts connections on `listener` for ever, one for each permit.
pub(super) async fn serve(listener: TcpListener, resolver: Arc<Resolver>, permits: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                Some(_ended) = connections.join_next() => {}
            }
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept DNS connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let resolver = Arc::clone(&resolver);
        connections.spawn(async move {
            let served = async {
                net::tune(&stream)?;
                connection(stream, &resolver).await
            };
            if let Err(error) = served.await {
                tracing::debug!(%client, %error, "a DNS connection broke");
            }
            drop(permit);
        });
    }
}

/// Until the client has closed and has its answers, or is idle, or sends what is no query.
async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, resolver: &Resolver) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut received = BytesMut::new();
    let mut answers = FuturesUnordered::new();
    let mut ended = false;
    let mut deadline = Instant::now() + IDLE;
    loop {
        while answers.len() < PIPELINED
            && let Some(message) = next_message(&mut received)?
        {
            answers.push(resolver.answer(message, Transport::Tcp));
            deadline = Instant::now() + IDLE;
        }
        if ended && answers.is_empty() {
            return Ok(());
        }
        tokio::select! {
            read = reader.read_buf(&mut received), if !ended && answers.len() < PIPELINED => ended = read? == 0,
            Some(answer) = answers.next(), if !answers.is_empty() => {
                let Some(answer) = answer else { return Err(invalid("not a query")) };
                timeout(IDLE, writer.write_all(&framed(&answer)?)).await.map_err(io::Error::from)??;
                deadline = Instant::now() + IDLE;
            }
            () = sleep_until(deadline), if answers.is_empty() => return Ok(()),
        }
    }
}

/// The next whole message among the bytes that were received.
fn next_message(received: &mut BytesMut) -> io::Result<Option<Vec<u8>>> {
    let Some(length) = received.first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length))) else {
        return Ok(None);
    };
    if length > MAX_QUERY {
        return Err(invalid("a query of more than 4096 bytes"));
    }
    if received.len() < 2 + length {
        return Ok(None);
    }
    received.advance(2);
    Ok(Some(received.split_to(length).to_vec()))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
