//! Copies of requests: sent and forgotten. They never delay the request itself, and whatever becomes of them is only
//! counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::Worker;
use super::attempt::{self, Failed, Tried, Upstreams};
use super::authority::Authority;
use super::guard::Guard;
use super::http::reply;
use super::message::Head;
use crate::error::ProxyError;
use crate::filter::mirror::shadow;
use crate::http::{Body, tee};
use crate::snapshot::Mirror;
use crate::telemetry::Record;
use crate::upstream::Kind;

/// Copies on their way at a time, over all workers; further ones are not made.
const MAX_COPIES: u32 = 256;
/// Bytes of one request that a copy may lag behind; a slower one is given up.
const MAX_BYTES: usize = 1 << 20;
/// How long a copy may take, its response included.
const MAX_DURATION: Duration = Duration::from_secs(60);

/// Sends copies to those `mirrors` that chance chooses. Returns the body to send in place of `body`.
pub(super) fn start(worker: &Arc<Worker>, mirrors: &[Mirror], head: &Head, body: Body, client: SocketAddr) -> Body {
    let metrics = &worker.shared.telemetry.metrics;
    let mut admitted = Vec::with_capacity(mirrors.len());
    for mirror in mirrors.iter().filter(|mirror| mirror.share.includes(rand::random())) {
        match worker.shared.mirrors.enter(MAX_COPIES) {
            Some(turn) => admitted.push((mirror, turn)),
            None => metrics.mirrored(mirror.cluster.upstream.name(), "overflow"),
        }
    }
    if admitted.is_empty() {
        return body;
    }
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let (body, copies) = tee(body, admitted.len(), MAX_BYTES, length);
    for ((mirror, turn), (copy, level)) in admitted.into_iter().zip(copies) {
        let mut head = head.clone();
        if mirror.suffix
            && let Ok(authority) = shadow(head.authority.as_str()).try_into()
        {
            head.authority = Authority::Field(authority);
        }
        let (worker, cluster) = (Arc::clone(worker), Arc::clone(&mirror.cluster));
        tokio::spawn(async move {
            let upstreams = Upstreams::Cluster(Arc::clone(&cluster), None);
            let sent = timeout(MAX_DURATION, send(&worker, &upstreams, &head, copy, client));
            let result = tokio::select! {
                biased;
                () = level.overflowed() => "overflow",
                sent = sent => match sent {
                    Ok(Ok(())) => "ok",
                    Ok(Err(error)) => error.reason().code,
                    Err(_late) => "timeout",
                },
            };
            worker.shared.telemetry.metrics.mirrored(cluster.upstream.name(), result);
            drop(turn);
        });
    }
    body
}

/// To the end of the response, so that the connection can be used again.
async fn send(
    worker: &Worker,
    upstreams: &Upstreams,
    head: &Head,
    body: Body,
    client: SocketAddr,
) -> Result<(), ProxyError> {
    let mut record = Record::untold(&worker.recorder, "outbound", client);
    let sent = match Guard::enter(worker, upstreams, Kind::Request).await {
        Ok(mut guard) => {
            attempt::send(worker, upstreams, head, body, &mut Tried::default(), &mut guard, &mut record).await
        }
        Err(error) => Err(Failed { error, unsent: None }),
    };
    let read = sent.map_err(|failed| failed.error).and_then(|sent| reply(sent, &mut record));
    let mut body = read?.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(|_broken| ProxyError::Io(std::io::ErrorKind::UnexpectedEof.into()))?;
    }
    Ok(())
}
