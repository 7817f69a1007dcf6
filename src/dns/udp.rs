//! Queries in datagrams (RFC 1035, section 4.2.1).

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::message::{MAX_UDP, Transport};
use super::resolver::Resolver;

/// Answers what arrives on `socket` for ever; what finds no permit is dropped, as the network would.
pub(super) async fn serve(socket: UdpSocket, resolver: Arc<Resolver>, permits: Arc<Semaphore>) {
    let socket = Arc::new(socket);
    let mut queries = JoinSet::new();
    let mut buffer = vec![0; MAX_UDP.into()];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            Some(_ended) = queries.join_next() => continue,
        };
        let (length, client) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "cannot receive DNS queries");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            resolver.overloaded(Transport::Udp);
            continue;
        };
        let message = buffer.get(..length).unwrap_or_default().to_vec();
        let (socket, resolver) = (Arc::clone(&socket), Arc::clone(&resolver));
        queries.spawn(async move {
            if let Some(answer) = resolver.answer(message, Transport::Udp).await
                && let Err(error) = socket.send_to(&answer, client).await
            {
                tracing::debug!(%client, %error, "cannot send a DNS answer");
            }
            drop(permit);
        });
    }
}
