//! What load reports (LRS) tell: requests, connections and bytes by edge, counted by each worker for itself, taken away
//! by whoever reports.
//!
//! A worker adds to plain numbers under a lock of its own, which nobody else wants but once per report. What is taken
//! starts at nothing again: so there are no baselines to keep, and nothing is counted twice.

mod counts;
mod edges;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

pub use counts::Counts;
pub use edges::{Edge, Edges, MOST_EDGES};

use super::Record;

/// What all workers have counted since it was taken last.
#[derive(Debug)]
pub struct Load {
    is_on: bool,
    workers: Mutex<Vec<Arc<Counter>>>,
}

impl Load {
    /// Nothing counted yet. When it `is_on` no more, or never was, counting is a branch.
    pub fn new(is_on: bool) -> Self {
        Self { is_on, workers: Mutex::default() }
    }

    /// Is anything counted?
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// A worker's own counter.
    pub(super) fn counter(&self) -> Option<Arc<Counter>> {
        let counter = self.is_on.then(Arc::<Counter>::default)?;
        self.workers.lock().push(Arc::clone(&counter));
        Some(counter)
    }

    /// Adds what was counted since the last time to `edges`.
    pub fn take(&self, edges: &mut Edges) {
        let workers = self.workers.lock().clone();
        for worker in workers {
            worker.take(edges);
        }
    }
}

/// What one worker has counted.
#[derive(Debug, Default)]
pub(super) struct Counter(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    edges: Edges,
    /// As many as there are connections, which are limited; by where their flows lie.
    flows: HashMap<usize, Open>,
}

#[derive(Debug)]
struct Open {
    edge: Edge,
    flow: Arc<Flow>,
    told: (u64, u64),
}

/// Bytes that an open TCP connection has carried so far.
#[derive(Debug)]
pub struct Flow {
    received: AtomicU64,
    sent: AtomicU64,
    /// Who keeps it.
    counter: Weak<Counter>,
}

impl Flow {
    /// Notes how many bytes came from the client, and how many went to it, since the connection was opened.
    pub fn set(&self, received: u64, sent: u64) {
        self.received.store(received, Ordering::Relaxed);
        self.sent.store(sent, Ordering::Relaxed);
    }
}

impl Open {
    /// Adds what was carried since the last time.
    fn tell(&mut self, into: &mut Edges) {
        let now = (self.flow.received.load(Ordering::Relaxed), self.flow.sent.load(Ordering::Relaxed));
        let (received, sent) = (now.0.saturating_sub(self.told.0), now.1.saturating_sub(self.told.1));
        if received + sent > 0 {
            let counts = into.named(&self.edge);
            counts.tcp_received += received;
            counts.tcp_sent += sent;
        }
        self.told = now;
    }
}

/// Counts the rest of its [`Flow`] when dropped, and forgets it: nobody need ever report.
#[derive(Debug)]
pub struct Metered(Arc<Flow>);

impl std::ops::Deref for Metered {
    type Target = Flow;

    fn deref(&self) -> &Flow {
        &self.0
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        let Some(counter) = self.0.counter.upgrade() else { return };
        let mut counted = counter.0.lock();
        if let Some(mut open) = counted.flows.remove(&place(&self.0)) {
            open.tell(&mut counted.edges);
        }
    }
}

impl Counter {
    /// A request or connection ended.
    pub(super) fn count(&self, record: &Record, duration: Duration) {
        let mut counted = self.0.lock();
        counted.edges.of(record).count(record, duration);
    }

    /// A TCP connection was opened, and is going to carry bytes.
    pub(super) fn open(self: &Arc<Self>, record: &Record) -> Metered {
        let counter = Arc::downgrade(self);
        let flow = Arc::new(Flow { received: AtomicU64::new(0), sent: AtomicU64::new(0), counter });
        let mut counted = self.0.lock();
        counted.edges.of(record).tcp_opened += 1;
        let open = Open { edge: Edge::of(record), flow: Arc::clone(&flow), told: (0, 0) };
        counted.flows.insert(place(&flow), open);
        Metered(flow)
    }

    fn take(&self, into: &mut Edges) {
        let mut counted = self.0.lock();
        let counted = &mut *counted;
        counted.flows.values_mut().for_each(|open| open.tell(into));
        into.add(&std::mem::take(&mut counted.edges));
    }
}

/// Where a flow lies, which is kept for as long as it is looked for.
fn place(flow: &Arc<Flow>) -> usize {
    Arc::as_ptr(flow).addr()
}

#[cfg(test)]
mod tests;
