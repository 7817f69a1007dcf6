//! One data-plane thread: a single-threaded runtime that serves the listening sockets it is given.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::net::Dialer;
use crate::proxy::{Entry, Shared, Worker, listener};
use crate::tls::TlsClient;

/// A listening socket for a worker to serve.
#[derive(Debug)]
pub struct Job {
    /// The socket; each worker has its own on the same address.
    pub listener: TcpListener,
    /// What comes in by it.
    pub entry: Entry,
    /// Connections that may be open at once, over all workers.
    pub permits: Arc<Semaphore>,
    /// Ends accepting; connections live on.
    pub stop: CancellationToken,
}

/// Listening sockets that may wait for a worker.
const QUEUE: usize = 64;
/// How often the allocator gets to give memory back.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// More than it keeps in its pages of many blocks.
const LARGE: usize = 4 << 20;
/// How often unused upstream connections are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Starts a worker thread. It lives as long as the program.
///
/// # Errors
/// When no thread or runtime can be had.
pub fn start(number: usize, shared: Arc<Shared>, tls: Arc<TlsClient>, dialer: Dialer) -> io::Result<mpsc::Sender<Job>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    shared.telemetry.metrics.watch(&format!("worker-{number}"), runtime.handle().clone());
    let (sender, jobs) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || runtime.block_on(run(Arc::new(Worker::new(shared, tls, dialer)), jobs)))?;
    Ok(sender)
}

async fn run(worker: Arc<Worker>, mut jobs: mpsc::Receiver<Job>) {
    tokio::spawn(sweep(Arc::clone(&worker)));
    tokio::spawn(tidy());
    while let Some(job) = jobs.recv().await {
        match tokio::net::TcpListener::from_std(job.listener) {
            Ok(listener) => {
                let serve = listener::serve(Arc::clone(&worker), listener, job.entry, job.permits, job.stop);
                tokio::spawn(serve);
            }
            Err(error) => tracing::error!(%error, "cannot serve a listening socket"),
        }
    }
    std::future::pending::<()>().await; // Connections go on until the program ends.
}

async fn sweep(worker: Arc<Worker>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        worker.pool.sweep(Instant::now(), worker.shared.settings.timeouts.upstream_idle);
    }
}

/// mimalloc looks for memory that has been free for long enough (a second) only when a whole page of blocks becomes
/// free: after a burst that may be never. This is one, and is not touched.
async fn tidy() {
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
    }
}
