//! The steps of a request, as its [`Record`] notes them for its trace. Where no spans are made each is a branch.

use std::mem::take;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, Response};
use opentelemetry::{SpanId, TraceId};
use tokio::time::Instant;

use super::context::Onward;
use super::story::{self, Attempt, Event, Finished, Story};
use super::tracer::new_span;
use crate::telemetry::Record;

/// gRPC's statuses that are a server's failure (OpenTelemetry, semantic conventions for gRPC): UNKNOWN,
/// DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
pub(super) const GRPC_FAILURES: [u8; 6] = [2, 4, 12, 13, 14, 15];

impl Record {
    /// Reads which trace the request belongs to, or begins one.
    pub fn begin_trace(&mut self, headers: &HeaderMap) {
        let Some(tracer) = &self.recorder.telemetry.tracer else { return };
        (self.trace, self.unwanted) = tracer.begin(headers);
        if tracer.makes_spans() && self.trace.is_some() {
            self.story = Some(Box::default());
        }
    }

    /// A connection whose bytes say nothing of traces: it has one of its own.
    pub fn begin_connection_trace(&mut self) {
        self.trace = self.recorder.telemetry.tracer.as_ref().and_then(|tracer| tracer.begin_alone());
        self.story = self.trace.map(|_context| Box::default());
    }

    /// Begins to wait for a place within limits; `None`: nobody wants to know.
    pub fn waits_for_limit(&self) -> Option<Instant> {
        self.story.as_ref().map(|_story| Instant::now())
    }

    /// Has waited for that; hands on what came of it.
    pub fn waited_for_limit<T>(&mut self, since: Option<Instant>, result: T) -> T {
        if let (Some(story), Some(since)) = (&mut self.story, since) {
            story.limit_wait += since.elapsed();
        }
        result
    }

    /// The trace in which it came; `None`: in none, and one that we have begun says nothing of where it belongs.
    pub fn called_in_trace(&self) -> Option<TraceId> {
        self.trace.filter(|context| context.parent != SpanId::INVALID).map(|context| context.trace_id)
    }

    /// Takes out what must not go on: malformed fields of traces.
    pub fn clean_trace(&self, headers: &mut HeaderMap) {
        self.unwanted.remove(headers);
    }

    /// The paths of its route, as configured.
    pub fn trace_route(&mut self, paths: &Arc<str>) {
        if let Some(story) = &mut self.story {
            story.route = Some(Arc::clone(paths));
        }
    }

    /// It is sent to a host now. Returns what that is told of the trace; `None`: nothing but what came.
    pub fn begin_attempt(&mut self, address: SocketAddr) -> Option<Onward> {
        let context = self.trace.filter(|context| context.is_ours)?;
        let Some(story) = &mut self.story else { return Some(Onward { context, span_id: context.span_id }) };
        // Inbound, the application continues our one span. Outbound, each attempt has its own: the first takes ours.
        let is_first = story.attempts.is_empty();
        let span_id = if is_first || self.direction == "inbound" { context.span_id } else { new_span() };
        let began = Instant::now();
        if let Some(last) = story.attempts.last_mut() {
            last.ended.get_or_insert(began);
        }
        if story.attempts.len() < story::MOST_ATTEMPTS {
            story.attempts.reserve_exact(1); // There is seldom a second one, and many are held.
            let (cluster, peer) = (Arc::clone(&self.cluster), Arc::clone(&self.peer));
            let attempt = Attempt {
                span_id,
                began,
                ended: None,
                address,
                cluster,
                peer,
                status: 0,
                grpc_status: None,
                reason: "",
            };
            story.attempts.push(attempt);
        }
        Some(Onward { context, span_id })
    }

    /// The host answered; `is_marked`: and says that the trace is to be kept.
    pub fn attempt_answered<B>(&mut self, response: &Response<B>, is_marked: bool) {
        let is_grpc = self.is_grpc;
        let Some(story) = &mut self.story else { return };
        if let Some(attempt) = story.attempts.last_mut() {
            attempt.status = response.status().as_u16();
            attempt.grpc_status = is_grpc.then(|| grpc_status(response.headers())).flatten();
        }
        if is_marked {
            self.keep_trace("peer");
        }
    }

    /// The attempt is over: it failed, or its answer is not taken. Says nothing of one that is over already.
    pub fn attempt_over(&mut self, reason: &'static str) {
        let Some(attempt) = self.story.as_mut().and_then(|story| story.attempts.last_mut()) else { return };
        if attempt.ended.is_none() {
            attempt.ended = Some(Instant::now());
            attempt.reason = reason;
        }
    }

    /// Something happened that its spans tell.
    pub fn trace_event(&mut self, name: &'static str, reason: &'static str) {
        if let Some(story) = self.story.as_mut().filter(|story| story.events.len() < story::MOST_EVENTS) {
            story.events.push(Event { at: Instant::now(), name, reason });
        }
    }

    /// An event for a failure that was decided by us.
    pub(in crate::telemetry) fn trace_refusal(&mut self, reason: &'static str) {
        let name = match reason {
            "overflow" | "pending_timeout" => "limit",
            "rate_limited" | "over_limit" | "rate_limit_service" => "rate_limited",
            "breaker_open" | "shed" | "fault" => reason,
            _ => return,
        };
        self.trace_event(name, reason);
    }

    /// Its answer goes out with this head. Returns whether a sidecar that waits for it has to keep its spans as well.
    pub fn answer_trace(&mut self, headers: &HeaderMap) -> bool {
        self.look_for_status(headers);
        let (Some(context), Some(tracer)) = (self.trace, &self.recorder.telemetry.tracer) else { return false };
        let started = self.started();
        let Some(story) = &mut self.story else { return false };
        let now = Instant::now();
        let took = now.saturating_duration_since(started);
        story.answered = Some(took);
        if context.sampled || story.late.is_some() {
            return story.late.is_some();
        }
        let rules = *tracer.sampling();
        let is_marked = tracer.is_marked(context.trace_id, now);
        if rules.errors && self.has_failed() {
            self.keep_trace("error");
        } else if rules.slow.is_some_and(|slow| took >= slow) {
            self.keep_trace("slow");
        } else if is_marked && let Some(story) = &mut self.story {
            story.late = Some("trace");
        }
        self.story.as_ref().is_some_and(|story| story.late.is_some())
    }

    /// Did it end as it should not? The same for logs, explanations, traces and load reports: a status from 500, gRPC's
    /// likes of it, or one of Envoy's flags.
    pub(in crate::telemetry) fn has_failed(&self) -> bool {
        let grpc_failed = || self.grpc_status.is_some_and(|status| GRPC_FAILURES.contains(&status));
        self.status >= 500 || !self.flag.is_empty() || grpc_failed()
    }

    fn keep_trace(&mut self, why: &'static str) {
        let (Some(context), Some(tracer)) = (self.trace, &self.recorder.telemetry.tracer) else { return };
        let Some(story) = self.story.as_mut().filter(|story| story.late.is_none() && !context.sampled) else { return };
        story.late = Some(why);
        tracer.mark(context.trace_id, Instant::now());
    }

    /// The end of the request. Takes its texts: whoever else needs them comes before.
    pub(in crate::telemetry) fn end_trace(&mut self) {
        let Some(context) = self.trace.filter(|_| self.story.is_some()) else { return };
        let Some(tracer) = self.recorder.telemetry.tracer.clone() else { return };
        let now = Instant::now();
        if !context.sampled {
            // Once more: its content may have failed, or taken its time.
            let slow = tracer.sampling().slow;
            if tracer.sampling().errors && self.has_failed() {
                self.keep_trace("error");
            } else if slow.is_some_and(|slow| now.saturating_duration_since(self.started()) >= slow) {
                self.keep_trace("slow");
            } else if tracer.is_marked(context.trace_id, now)
                && let Some(story) = self.story.as_mut().filter(|story| story.late.is_none())
            {
                story.late = Some("trace");
            }
        }
        let Some(story) = self.story.take() else { return };
        let ring = self.recorder.ring.clone();
        let finished = self.finished(context, story, now);
        tracer.end(finished, ring.as_deref(), now);
    }

    fn finished(&mut self, context: super::Context, story: Box<Story>, now: Instant) -> Box<Finished> {
        self.spell();
        Box::new(Finished {
            context,
            story,
            started: self.started(),
            took: now.saturating_duration_since(self.started()),
            ended: SystemTime::now(),
            is_inbound: self.direction == "inbound",
            is_tcp: self.is_tcp,
            is_grpc: self.is_grpc,
            method: story::bounded(take(&mut self.method)),
            authority: story::bounded(take(&mut self.authority)),
            path: story::bounded(take(&mut self.path)),
            protocol: self.protocol,
            destination: Arc::clone(&self.destination),
            route: Arc::clone(&self.route),
            cluster: Arc::clone(&self.cluster),
            peer: Arc::clone(&self.peer),
            tls: self.tls,
            upstream: self.upstream,
            downstream: self.downstream,
            status: self.status,
            grpc_status: self.grpc_status,
            reason: self.reason,
            flag: self.flag,
            detail: story::bounded(take(&mut self.detail)),
            tries: self.attempts,
            bytes_sent: self.bytes_sent,
            bytes_received: self.received().0,
            queue: self.spent(now).0.map(|[_policy, queue, ..]| queue),
        })
    }
}

fn grpc_status(fields: &HeaderMap) -> Option<u8> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}
