//! The story of one request or connection, written to metrics and the access log when it ends.
//!
//! It ends when it is dropped: with the last byte of the response, or whenever the
//! client goes away. Until somebody gave a status, the client went first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, Uri};
use pillion_wire::observe::Field;
use pillion_wire::spiffe::SpiffeId;
use tokio::time::Instant;

use super::access_log::{MOST_PATH, MOST_TEXT, logged};
use super::explain::{self, Chosen, Decisions, Step};
use super::flow::{Flow, Messages};
use super::head::Head;
use super::metrics::RequestKey;
use super::spent::Spent;
use super::trace::{Context, Story, Unwanted};
use super::{LogEntry, Recorder, TraceId, bounded, load};

/// Filled in as the request walks; see the module.
#[derive(Debug)]
pub struct Record {
    pub(super) recorder: Arc<Recorder>,
    started: Instant,
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// HTTP method, or `TCP`; like other texts of a request's head only made at its end, for who wants them.
    pub method: String,
    /// Counted as a TCP connection, not as a request. Not to be told from the method, which a client makes up.
    pub is_tcp: bool,
    /// `:authority` or `Host`, as the client sent it; of TLS that the application speaks, the name that it asks for (SNI).
    pub authority: String,
    /// Protocols that a TLS client of the application offered inside (ALPN), joined by commas.
    pub alpn: String,
    /// Path without the query: queries may hold secrets.
    pub path: String,
    /// `HTTP/1.1`, `HTTP/2`, …, or `TCP`.
    pub protocol: &'static str,
    /// Destination as the control plane knows it; empty while unknown, so that clients cannot invent labels.
    pub destination: Arc<str>,
    /// Name of the route.
    pub route: Arc<str>,
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// The host that answered.
    pub upstream: Option<SocketAddr>,
    /// The client's address.
    pub downstream: SocketAddr,
    /// SPIFFE id of the other end: who answered (outbound), who called (inbound).
    pub peer: Arc<str>,
    /// `mutual` or `none`, towards that other end.
    pub tls: &'static str,
    /// HTTP status; 0 until there is one.
    pub status: u16,
    /// Reason code of a response that the proxy made, or of how the stream broke; empty when all went well.
    pub reason: &'static str,
    /// Envoy's response flag; empty when all went well.
    pub flag: &'static str,
    /// Was it held back on purpose (flag `DI`)?
    pub delayed: bool,
    /// Text behind the reason, for the log only.
    pub detail: String,
    /// Hosts tried.
    pub attempts: u32,
    /// Bytes of response body sent to the client.
    pub bytes_sent: u64,
    /// Bytes of tunnelled data received from the client.
    pub bytes_received: u64,
    /// The method as a label: one that HTTP knows, `_OTHER`, or `TCP`.
    pub method_label: &'static str,
    /// What is seen of a request's content, if it has any.
    pub flow: Option<Flow>,
    /// Is it a gRPC call?
    pub is_grpc: bool,
    /// Status of a gRPC call, once it is known.
    pub grpc_status: Option<u8>,
    /// Messages of a gRPC response that began.
    pub response_messages: u64,
    messages: Messages,
    spent: Spent,
    /// Where it stands in its trace, if in any.
    pub trace: Option<Context>,
    /// Fields of its trace that must not go on.
    pub(super) unwanted: Unwanted,
    /// What its spans will tell; `None`: none are made.
    pub(super) story: Option<Box<Story>>,
    head: Option<Head>,
    /// Fields of the request's head, when a tap wants them.
    pub request_headers: Option<Box<[Field]>>,
    /// From the last sending of its head to the head of the answer; only where it is measured or logged.
    pub upstream_service_time: Option<Duration>,
    /// What was decided for it and by what; only where it is kept.
    pub decisions: Decisions,
    /// Request fields that the access log wants, in its order.
    logged_fields: Vec<Option<HeaderValue>>,
    forgotten: bool,
}

impl Record {
    /// Begins now.
    pub fn begin(recorder: &Arc<Recorder>, direction: &'static str, downstream: SocketAddr) -> Self {
        let empty = recorder.nothing();
        Self {
            recorder: Arc::clone(recorder),
            started: Instant::now(),
            direction,
            method: String::new(),
            is_tcp: false,
            authority: String::new(),
            alpn: String::new(),
            path: String::new(),
            protocol: "TCP",
            destination: Arc::clone(&empty),
            route: Arc::clone(&empty),
            cluster: Arc::clone(&empty),
            upstream: None,
            downstream,
            peer: empty,
            tls: "none",
            status: 0,
            reason: "",
            flag: "",
            delayed: false,
            detail: String::new(),
            attempts: 0,
            bytes_sent: 0,
            bytes_received: 0,
            method_label: "TCP",
            flow: None,
            is_grpc: false,
            grpc_status: None,
            response_messages: 0,
            messages: Messages::default(),
            spent: Spent::default(),
            trace: None,
            unwanted: Unwanted::default(),
            story: None,
            head: None,
            request_headers: None,
            upstream_service_time: None,
            decisions: Decisions::default(),
            logged_fields: Vec::new(),
            forgotten: false,
        }
    }

    /// Begins one that nobody is told of: a request of our own, which is counted elsewhere.
    pub fn untold(recorder: &Arc<Recorder>, direction: &'static str, downstream: SocketAddr) -> Self {
        let mut record = Self::begin(recorder, direction, downstream);
        record.forgotten = true;
        record
    }

    /// Notes of the request's head what explanations, the access log, spans and taps want of it; without any, nothing.
    pub fn hear(&mut self, method: &Method, uri: &Uri, headers: &HeaderMap) {
        let telemetry = &self.recorder.telemetry;
        if telemetry.logs_requests() {
            let log = &telemetry.access_log;
            self.logged_fields = log.headers().iter().map(|name| headers.get(name).cloned()).collect();
        } else if !self.is_explained() && self.story.is_none() && !self.recorder.is_tapped() {
            return;
        }
        self.request_headers = self.recorder.tapped_fields(headers);
        self.head = Some(Head::of(method, uri, headers));
    }

    /// Somebody wants the texts of its head.
    pub(super) fn spell(&mut self) {
        let Some(head) = self.head.take() else { return };
        if self.method.is_empty() {
            head.method().clone_into(&mut self.method);
        }
        if self.authority.is_empty() {
            self.authority = head.authority();
        }
        if self.path.is_empty() {
            head.path().clone_into(&mut self.path);
        }
    }

    /// Are its decisions kept? If not, nothing need be noted for that alone.
    pub fn is_explained(&self) -> bool {
        self.recorder.stories().is_some()
    }

    /// Notes what was chosen for it, and what would have been next.
    pub fn chose(&mut self, chosen: &Arc<Chosen>, next: Option<&Arc<Chosen>>) {
        if self.is_explained() {
            self.decisions.chosen = Some(Arc::clone(chosen));
            self.decisions.next = next.map(Arc::clone);
        }
    }

    /// Notes that something happened on the way, because of `cause`, with the host that was tried last.
    pub fn step(&mut self, code: &'static str, cause: &'static str) {
        let host = self.upstream;
        self.step_at(host, code, cause);
    }

    /// The same with another host.
    pub fn step_at(&mut self, host: Option<SocketAddr>, code: &'static str, cause: &'static str) {
        if self.is_explained() {
            let (cluster, after) = (Arc::clone(&self.cluster), self.started.elapsed());
            self.decisions.step(Step { code, cause, host, cluster, after });
        }
    }

    /// When the request was received.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Notes who is at the other end: a proven identity over mutual TLS, or nobody that is known.
    pub fn other_end(&mut self, id: Option<&SpiffeId>) {
        self.proven_end(&self.recorder.identity(id));
    }

    /// The same, by the text of the identity; empty for nobody that is known.
    pub fn proven_end(&mut self, id: &Arc<str>) {
        self.tls = if id.is_empty() { "none" } else { "mutual" };
        self.peer = Arc::clone(id);
    }

    /// It turned out to be the story of something else, which is told elsewhere.
    pub fn forget(mut self) {
        self.forgotten = true;
    }

    /// Notes why it failed, unless an earlier failure is noted already.
    pub fn fail(&mut self, reason: &'static str, flag: &'static str, detail: String) {
        if self.reason.is_empty() {
            self.reason = reason;
            self.flag = flag;
            self.detail = detail;
            self.trace_refusal(reason);
        }
    }

    /// What to do with the request is decided: it is to be sent on.
    pub fn decided(&mut self) {
        if self.story.is_some() || self.recorder.measures_parts() {
            self.spent.decided(self.started, Instant::now());
        }
    }

    /// It is being sent to a host.
    pub fn sending(&mut self) {
        if self.is_timed() {
            self.upstream_service_time = None;
            let unanswered = self.spent.sending(Instant::now());
            self.tried("unanswered", unanswered);
        }
    }

    /// The host has answered with the head of a response; `class` is that of its status.
    pub fn answered(&mut self, class: &'static str) {
        if self.is_timed() {
            self.upstream_service_time = self.spent.answered(Instant::now());
            self.tried(class, self.upstream_service_time);
        }
    }

    /// The host has failed instead.
    pub fn failed_to_answer(&mut self, reason: &'static str) {
        if self.is_timed() {
            let took = self.spent.answered(Instant::now());
            self.tried(reason, took);
        }
    }

    fn tried(&self, result: &'static str, took: Option<Duration>) {
        if let Some(took) = took.filter(|_| self.recorder.has_overhead() && !self.forgotten) {
            self.recorder.attempt(self, result, took);
        }
    }

    fn is_timed(&self) -> bool {
        self.recorder.has_overhead() || self.story.is_some() || self.recorder.telemetry.access_log.is_of_all()
    }

    /// The trace that it belongs to.
    pub(super) fn trace_id(&self) -> Option<TraceId> {
        self.trace.map(|trace| trace.trace_id)
    }

    /// The trace that a request with these fields belongs to, which are read unless that was done at its beginning.
    pub fn belongs_to(&self, headers: &HeaderMap) -> Option<TraceId> {
        if self.recorder.telemetry.tracer.is_some() { self.called_in_trace() } else { super::trace::id(headers) }
    }

    /// The same, or the one that began with it: calls made for it carry that.
    pub fn is_of(&self, headers: &HeaderMap) -> Option<TraceId> {
        if self.recorder.telemetry.tracer.is_some() { self.trace_id() } else { super::trace::id(headers) }
    }

    /// Both ends of a TCP connection are open.
    pub fn opened(&self) {
        if !self.forgotten {
            self.recorder.opened(self);
        }
    }

    /// A part of the response went to the client.
    pub fn sent(&mut self, data: &[u8]) {
        self.bytes_sent += data.len() as u64;
        if self.is_grpc {
            self.response_messages += self.messages.begin_in(data);
        }
    }

    /// Looks for the status of a gRPC call, which is in the trailers, or in the head of a response without content.
    pub fn look_for_status(&mut self, fields: &HeaderMap) {
        if self.is_grpc
            && let Some(status) = fields.get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok())
        {
            self.grpc_status = Some(status);
        }
    }

    /// Status of a gRPC call as a label; 255: it has none.
    pub(super) fn grpc_status(&self) -> Option<u8> {
        self.is_grpc.then(|| self.grpc_status.filter(|status| *status <= 16).unwrap_or(u8::MAX))
    }

    /// Bytes and messages received from the client.
    pub(super) fn received(&self) -> (u64, u64) {
        self.flow.as_ref().map_or((self.bytes_received, 0), Flow::totals)
    }

    /// Time by part: policy, queue, wait for the host, and all but the last; `None`: that was not measured. Then how long a host
    /// was waited for that has not answered.
    pub(super) fn spent(&self, now: Instant) -> (Option<[Duration; 4]>, Option<Duration>) {
        self.spent.parts(now)
    }

    /// The connection stands: what it carries is told while it lasts, as long as what is returned lives. `None` when nobody
    /// wants to know.
    pub fn open_flow(&self) -> Option<load::Metered> {
        let counter = self.recorder.load.as_ref().filter(|_| self.is_tcp && !self.forgotten)?;
        Some(counter.open(self))
    }

    pub(super) fn labels(&self) -> RequestKey {
        RequestKey {
            direction: self.direction,
            is_tcp: self.is_tcp,
            method: self.method_label,
            protocol: self.protocol,
            destination: Arc::clone(&self.destination),
            cluster: Arc::clone(&self.cluster),
            route: Arc::clone(&self.route),
            peer: Arc::clone(&self.peer),
            tls: self.tls,
            status: self.status,
            reason: self.reason,
            flag: self.flag,
            grpc_status: self.grpc_status(),
        }
    }

    /// What is kept of it. Takes the decisions.
    fn take_story(&mut self, duration: Duration) -> explain::Story {
        explain::Story {
            started: self.started,
            duration,
            direction: self.direction,
            is_tcp: self.is_tcp,
            trace: self.trace_id(),
            decisions: std::mem::take(&mut self.decisions),
            heard: self.head.as_ref().map(Head::heard).unwrap_or_default(),
            destination: Arc::clone(&self.destination),
            cluster: Arc::clone(&self.cluster),
            upstream: self.upstream,
            downstream: self.downstream,
            peer: Arc::clone(&self.peer),
            status: self.status,
            reason: self.reason,
            flag: self.flag,
            detail: self.detail.clone(),
            attempts: self.attempts,
            failed: self.has_failed(),
        }
    }

    /// What the logs are told. Takes the texts, unless spans want them, too.
    fn entry(&mut self, duration: Duration) -> LogEntry {
        self.spell();
        let is_traced = self.story.is_some();
        let text = |text: &mut String, most| {
            let text = if is_traced { text.clone() } else { std::mem::take(text) };
            bounded(text, most)
        };
        LogEntry {
            event: "access",
            start: SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
            duration,
            upstream_service_time: self.upstream_service_time,
            direction: self.direction.into(),
            method: text(&mut self.method, MOST_TEXT),
            is_tcp: self.is_tcp,
            authority: text(&mut self.authority, MOST_TEXT),
            alpn: text(&mut self.alpn, MOST_TEXT),
            path: text(&mut self.path, MOST_PATH),
            protocol: self.protocol,
            status: self.status,
            flag: self.flag,
            delayed: self.delayed,
            reason: self.reason,
            detail: text(&mut self.detail, MOST_PATH),
            destination: Arc::clone(&self.destination),
            route: Arc::clone(&self.route),
            cluster: Arc::clone(&self.cluster),
            upstream: self.upstream,
            downstream: self.downstream,
            peer: Arc::clone(&self.peer),
            tls: self.tls,
            attempts: self.attempts,
            bytes_received: self.received().0,
            bytes_sent: self.bytes_sent,
            trace: self.trace_id(),
            span: self.trace.map(|trace| trace.span_id),
            fields: self.logged_fields.drain(..).map(|value| value.as_ref().and_then(logged)).collect(),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.forgotten {
            return;
        }
        if self.status == 0 && self.reason.is_empty() && !self.is_tcp {
            self.fail("client_gone", "DC", "the client went away before the answer was there".to_owned());
        }
        let recorder = Arc::clone(&self.recorder);
        let telemetry = &recorder.telemetry;
        let now = Instant::now();
        let duration = now.saturating_duration_since(self.started);
        if let Some(load) = &recorder.load {
            load.count(self, duration);
        }
        recorder.ended(self, now);
        if let Some(ring) = recorder.stories() {
            let story = self.take_story(duration);
            ring.keep(story);
        }
        let failed = self.has_failed();
        if telemetry.taps.any() {
            self.spell();
            telemetry.taps.ended(self, duration);
        }
        telemetry.log(failed, self.trace, || self.entry(duration));
        self.end_trace(); // Last: it takes the texts.
    }
}
