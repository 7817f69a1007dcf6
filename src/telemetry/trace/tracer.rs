//! What all workers share: how traces begin, which are kept, and the way to whoever sends them.

use std::sync::Arc;

use http::HeaderMap;
use opentelemetry::{SpanId, TraceId};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::context::{B3Form, Context, Unwanted};
use super::marks::Marks;
use super::receive::Received;
use super::ring::Ring;
use super::sampling::Sampling;
use super::story::Finished;

/// Requests that may wait for being sent; more are dropped and counted.
pub const QUEUE: usize = 2048;

/// What became of requests that could be spans.
#[derive(Clone, Debug, Default)]
pub struct SpanCounts {
    /// Kept, since that was decided at their beginning.
    pub sampled: Counter,
    /// Kept, since they failed, were slow, or belong to a trace of which something was.
    pub late: Counter,
    /// Not kept.
    pub not_kept: Counter,
    /// Kept, but there was no room among those that wait to be sent.
    pub dropped: Counter,
}

/// See the module.
#[derive(Debug)]
pub struct Tracer {
    sampling: Sampling,
    starts: bool,
    queue: Option<mpsc::Sender<Box<Finished>>>,
    rings: Mutex<Vec<Arc<Mutex<Ring>>>>,
    marks: Marks,
    counts: SpanCounts,
}

impl Tracer {
    /// Spans of kept requests go to `queue`; `None`: there is nobody who would send them, and traces are then begun only
    /// where `starts` says so.
    pub fn new(
        sampling: Sampling,
        starts: bool,
        queue: Option<mpsc::Sender<Box<Finished>>>,
        counts: SpanCounts,
    ) -> Self {
        Self { sampling, starts, queue, rings: Mutex::default(), marks: Marks::default(), counts }
    }

    /// Where one more worker holds its requests; `None`: nothing is ever held.
    pub(in crate::telemetry) fn ring(&self) -> Option<Arc<Mutex<Ring>>> {
        if self.queue.is_none() || !self.sampling.is_late() {
            return None;
        }
        let ring = Arc::new(Mutex::default());
        self.rings.lock().push(Arc::clone(&ring));
        Some(ring)
    }

    /// Are spans made at all?
    pub(in crate::telemetry) fn makes_spans(&self) -> bool {
        self.queue.is_some()
    }

    pub(super) fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Where a request with these fields stands in its trace, and which of them must not go on.
    pub(super) fn begin(&self, headers: &HeaderMap) -> (Option<Context>, Unwanted) {
        let Received { ids, sampled, random, b3, unwanted } = Received::read(headers);
        let takes_part = self.queue.is_some();
        let decide = |trace| sampled.unwrap_or_else(|| self.sampling.share.includes(trace));
        let context = match ids {
            Some((trace_id, parent)) => Some(Context {
                trace_id,
                span_id: if takes_part { new_span() } else { parent },
                parent,
                sampled: decide(trace_id),
                random,
                b3,
                is_ours: takes_part,
            }),
            None if takes_part || self.starts => {
                let context = self.root(b3);
                Some(Context { sampled: decide(context.trace_id), ..context })
            }
            None => None,
        };
        (context, unwanted)
    }

    /// A trace of its own for a connection, whose bytes say nothing of any. `None`: no spans are made.
    pub(super) fn begin_alone(&self) -> Option<Context> {
        self.queue.as_ref().map(|_queue| self.root(B3Form::None))
    }

    fn root(&self, b3: B3Form) -> Context {
        let trace_id = TraceId::from(rand::random::<u128>() | 1 << 127);
        let sampled = self.sampling.share.includes(trace_id);
        let parent = SpanId::INVALID;
        Context { trace_id, span_id: new_span(), parent, sampled, random: true, b3, is_ours: true }
    }

    /// From now on whatever belongs to this trace is kept, and what was held of it is.
    pub(super) fn mark(&self, trace: TraceId, now: Instant) {
        self.marks.add(trace, now);
        let rings = self.rings.lock().clone();
        for ring in rings {
            let held = ring.lock().take(trace);
            for mut finished in held {
                finished.story.late = Some("trace");
                self.counts.late.inc();
                self.send(finished);
            }
        }
    }

    /// Is this trace kept although it was not to be?
    pub(super) fn is_marked(&self, trace: TraceId, now: Instant) -> bool {
        self.marks.has(trace, now)
    }

    /// A request ended. It is sent, held in `ring` of its worker, or forgotten.
    pub(super) fn end(&self, finished: Box<Finished>, ring: Option<&Mutex<Ring>>, now: Instant) {
        if finished.context.sampled {
            self.counts.sampled.inc();
            self.send(finished);
        } else if finished.story.late.is_some() {
            self.counts.late.inc();
            self.send(finished);
        } else if let Some(ring) = ring {
            let given_up = ring.lock().hold(finished, now);
            self.counts.not_kept.inc_by(given_up);
        } else {
            self.counts.not_kept.inc();
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> SpanCounts {
        self.counts.clone()
    }

    fn send(&self, finished: Box<Finished>) {
        if let Some(queue) = &self.queue
            && queue.try_send(finished).is_err()
        {
            self.counts.dropped.inc();
        }
    }
}

/// Never zero, which means "none".
pub(super) fn new_span() -> SpanId {
    SpanId::from(rand::random::<u64>() | 1 << 63)
}
