//! One queue, emptied in batches. A failure is waited out; what comes in the meantime fills the queue.

use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::telemetry::Metrics;

/// Things that are sent at once.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// How long an export may take.
pub(super) const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Failures in a row after the first that are logged: every so many.
const TOLD_EVERY: u32 = 20;

/// What can send a batch.
pub trait Sink: Send + Sync + 'static {
    /// What it sends.
    type Item: Send + 'static;
    /// What it is called in metrics.
    const SIGNAL: &'static str;

    /// Sends these.
    fn send(&self, batch: Vec<Self::Item>) -> impl Future<Output = OTelSdkResult> + Send;
}

/// The tasks that export.
#[derive(Debug, Default)]
pub struct Exporter {
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Exporter {
    /// Begins to send what comes by `queue`, on the current runtime.
    pub fn start<S: Sink>(&mut self, queue: mpsc::Receiver<S::Item>, sink: S, metrics: &Metrics) {
        let counts =
            Counts { exported: metrics.otlp(S::SIGNAL, "exported"), failed: metrics.otlp(S::SIGNAL, "failed") };
        self.tasks.push(tokio::spawn(run(queue, sink, counts, self.stop.clone())));
    }

    /// Lets a task of another making take part, which sends what it has left and ends when its token says so.
    pub fn join<T: Future<Output = ()> + Send + 'static>(&mut self, task: impl FnOnce(CancellationToken) -> T) {
        self.tasks.push(tokio::spawn(task(self.stop.clone())));
    }

    /// Sends what is left, for at most `deadline`.
    pub async fn flush(self, deadline: Duration) {
        let until = Instant::now() + deadline;
        self.stop.cancel();
        for task in self.tasks {
            let abort = task.abort_handle();
            if timeout_at(until, task).await.is_err() {
                abort.abort();
                tracing::warn!("the collector did not take all before the end");
            }
        }
    }
}

struct Counts {
    exported: Counter,
    failed: Counter,
}

async fn run<S: Sink>(mut queue: mpsc::Receiver<S::Item>, sink: S, counts: Counts, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut batch = Vec::with_capacity(BATCH);
    while fill(&mut queue, &mut batch, &stop).await {
        let count = batch.len() as u64;
        let sent = timeout(EXPORT_TIMEOUT, sink.send(std::mem::take(&mut batch))).await;
        let failure = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_elapsed) => Some(format!("no answer within {EXPORT_TIMEOUT:?}")),
        };
        let Some(failure) = failure else {
            counts.exported.inc_by(count);
            backoff.reset();
            continue;
        };
        counts.failed.inc_by(count);
        if backoff.failures().is_multiple_of(TOLD_EVERY) {
            tracing::warn!(signal = S::SIGNAL, failure, "the collector does not take what is sent; requests go on");
        }
        let pause = backoff.next(rand::random());
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Waits for something to send. Returns false when nothing will come any more.
async fn fill<T>(queue: &mut mpsc::Receiver<T>, batch: &mut Vec<T>, stop: &CancellationToken) -> bool {
    let first = tokio::select! {
        biased;
        first = queue.recv() => first,
        () = stop.cancelled() => queue.try_recv().ok(),
    };
    let Some(first) = first else { return false };
    batch.push(first);
    let until = Instant::now() + DELAY;
    while batch.len() < BATCH {
        let more = tokio::select! {
            biased;
            count = queue.recv_many(batch, BATCH - batch.len()) => count > 0,
            () = stop.cancelled() => false,
            () = tokio::time::sleep_until(until) => false,
        };
        if !more {
            break;
        }
    }
    true
}
