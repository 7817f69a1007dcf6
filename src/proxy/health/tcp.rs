//! A check by a TCP connection, through the host's sidecar if it has one.

use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::super::tcp::connect_request;
use super::exchange::{of_sidecar, unconnected};
use super::{failed, network, passed};
use crate::config::Keep;
use crate::upstream::{Found, Host, Pool};

/// More is not read: what has to come is short.
const MOST_READ: usize = 64 << 10;

/// Connects; sends and waits for what has to come, if anything has to.
pub(super) async fn check(pool: &Pool, host: &Host, send: &[u8], receive: &[Vec<u8>], time: Duration) -> Found {
    if host.key().mesh.is_none() {
        return match pool.dial(host, time).await {
            Ok(stream) => converse(stream, send, receive).await,
            Err(error) => unconnected(&error),
        };
    }
    let lease = match pool.http2(host, time, Keep::default()).await {
        Ok(lease) => lease,
        Err(error) => return unconnected(&error),
    };
    match lease.connection().connect(connect_request(host)).await {
        // Its sidecar says so once it is connected to the application.
        Ok((response, tunnel)) if response.status() == StatusCode::OK => converse(tunnel, send, receive).await,
        Ok((response, _refused)) => of_sidecar(host, response.headers())
            .unwrap_or_else(|| network(format!("its sidecar answers {} to CONNECT", response.status().as_u16()))),
        Err(error) => network(format!("its sidecar opens no connection: {}", error.detail())),
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, send: &[u8], receive: &[Vec<u8>]) -> Found {
    if !send.is_empty()
        && let Err(error) = stream.write_all(send).await
    {
        return network(format!("it takes nothing: {error}"));
    }
    if let Err(error) = stream.flush().await {
        return network(format!("it takes nothing: {error}"));
    }
    let mut read = Vec::new();
    let mut chunk = [0; 2048];
    while !has_all(&read, receive) {
        match stream.read(&mut chunk).await {
            Ok(0) => return failed("it ends the connection before it has said what it should".to_owned()),
            Ok(_) if read.len() >= MOST_READ => return failed("it says too much".to_owned()),
            Ok(count) => read.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) => return network(format!("it says nothing: {error}")),
        }
    }
    passed()
}

/// Are all `blocks` there, in this order, whatever is between them (Envoy's fuzzy matching)?
fn has_all(mut read: &[u8], blocks: &[Vec<u8>]) -> bool {
    blocks.iter().filter(|block| !block.is_empty()).all(|block| {
        let at = read.windows(block.len()).position(|window| window == block.as_slice());
        read = at.and_then(|at| read.get(at + block.len()..)).unwrap_or_default();
        at.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resilience::health::Finding;

    #[test]
    fn blocks_have_to_come_in_order_whatever_is_between() {
        let blocks = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        for (read, wanted, is_there) in [
            ("", &[][..], true),
            ("+PONG\r\n", &["PONG"], true),
            ("220 mail ESMTP\r\n", &["220", "ESMTP"], true),
            ("ESMTP 220", &["220", "ESMTP"], false),
            ("aab", &["aa", "ab"], false),
            ("PON", &["PONG"], false),
            ("x", &["", "x"], true),
        ] {
            assert_eq!(has_all(read.as_bytes(), &blocks(wanted)), is_there, "{read}: {wanted:?}");
        }
    }

    #[tokio::test]
    async fn a_peer_that_leaves_or_never_stops_talking_fails() {
        let (near, mut far) = tokio::io::duplex(64);
        let peer = async move {
            let mut asked = [0; 4];
            far.read_exact(&mut asked).await.expect("asked");
            far.write_all(b"no").await.expect("told");
        };
        let wanted = [b"PONG".to_vec()];
        let (found, ()) = tokio::join!(converse(near, b"PING", &wanted), peer);
        assert_eq!((found.finding, found.is_network), (Finding::Failed, false), "{found:?}");
        let (near, mut far) = tokio::io::duplex(4096);
        let peer = tokio::spawn(async move { while far.write_all(&[b'x'; 1024]).await.is_ok() {} });
        let found = converse(near, b"", &wanted).await;
        assert_eq!(found.why, "it says too much");
        peer.await.expect("it could write no more");
    }
}
