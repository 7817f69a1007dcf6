//! Accepting connections: a permit first, so that a flood waits in the kernel's queue and not in our memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Entry, Worker, connection};
use crate::net;

/// Accepts on `listener` until `stop` or the sidecar's end. Connections live on.
pub async fn serve(
    worker: Arc<Worker>,
    listener: TcpListener,
    entry: Entry,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let drain = entry.drain(&worker);
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.stopping() => return,
            () = stop.cancelled() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                rest_after(&error, &worker).await;
                continue;
            }
        };
        if net::tune(&stream).is_err() {
            continue; // It is gone already.
        }
        let worker = Arc::clone(&worker);
        let entry = entry.clone();
        drain.spawn(async move {
            connection::serve(worker, stream, address, entry).await;
            drop(permit);
        });
    }
}

/// A connection that died in the queue costs nothing; running out of descriptors needs a rest.
async fn rest_after(error: &io::Error, worker: &Worker) {
    worker.shared.telemetry.metrics.connection_refused("accept_failed");
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "cannot accept connections; is the limit of open files (ulimit -n) reached?");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
