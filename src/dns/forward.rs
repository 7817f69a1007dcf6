//! Asking the upstreams: the client's own message, over the transport that it used.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use super::message::{Meaning, Query, Transport, meaning};
use super::upstream::Upstream;
use crate::net;

/// How often a server is asked that says nothing.
const ATTEMPTS: usize = 2;
/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The first answer that is one. Servers are asked one after the other, those that are silent once more; one that
/// says SERVFAIL or REFUSED is not asked again.
///
/// # Errors
/// No server could answer; with what the last of them said, when one said something.
///
/// # Cancel safety
/// Nothing is left behind.
pub(super) async fn forward(
    query: &Query,
    transport: Transport,
    upstream: &Upstream,
    own: &[SocketAddr],
) -> Result<Vec<u8>, Option<Vec<u8>>> {
    let mut failure = None;
    let mut servers = upstream.servers(own, Instant::now());
    for _ in 0..ATTEMPTS {
        let mut silent = Vec::new();
        for server in servers {
            match exchange(query, transport, server).await {
                Ok(answer) if meaning(&answer) == Meaning::Failure => failure = Some(answer),
                Ok(answer) => {
                    upstream.answered(server);
                    return Ok(answer);
                }
                Err(error) => {
                    tracing::debug!(%server, transport = transport.as_str(), name = query.name(), %error, "no answer from a nameserver");
                    silent.push(server);
                }
            }
        }
        servers = silent;
    }
    Err(failure)
}

/// One try, with an id and a source port of its own (RFC 5452, section 9.2).
async fn exchange(query: &Query, transport: Transport, server: SocketAddr) -> io::Result<Vec<u8>> {
    let id = rand::random();
    let answer = async {
        match transport {
            Transport::Udp => over_udp(query, id, server).await,
            Transport::Tcp => over_tcp(query, id, server).await,
        }
    };
    timeout(PATIENCE, answer).await.map_err(io::Error::from)?.map(|answer| query.restored(answer))
}

async fn over_udp(query: &Query, id: u16, server: SocketAddr) -> io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?; // From now on the kernel drops what others send.
    socket.send(&query.forwarded(id)).await?;
    loop {
        tokio::select! {
            readable = socket.readable() => readable?,
            // Nobody listens there: readiness to read does not tell that.
            failed = socket.ready(Interest::ERROR) => {
                failed?;
                return Err(socket.take_error()?.unwrap_or_else(|| io::Error::other("the socket failed")));
            }
        }
        // Only now, since many queries may wait for long.
        let mut answer = vec![0; usize::from(u16::MAX)];
        match socket.try_recv(&mut answer) {
            Ok(length) => {
                answer.truncate(length);
                answer.shrink_to_fit();
                if query.is_answered_by(&answer, id) {
                    return Ok(answer);
                }
                tracing::debug!(%server, name = query.name(), "dropped what is no answer to the query");
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn over_tcp(query: &Query, id: u16, server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = net::dial(server).await?;
    stream.write_all(&framed(&query.forwarded(id))?).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    if query.is_answered_by(&answer, id) {
        Ok(answer)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the message is no answer to the query"))
    }
}

/// A message after its length (RFC 1035, section 4.2.2), in one piece (RFC 7766, section 8).
///
/// # Errors
/// When it is longer than a length can say.
pub(super) fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::other("a message of more than 65535 bytes"))?;
    Ok([&length.to_be_bytes()[..], message].concat())
}
