//! The story of one request or connection, written to metrics and the access log when it ends.
//!
//! It ends when it is dropped: with the last byte of the response, or whenever the
//! client goes away. Until somebody gave a status, the client went first.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use pillion_wire::observe::Field;
use pillion_wire::spiffe::SpiffeId;
use serde::Serialize;
use tokio::time::Instant;

use super::flow::{Flow, Messages};
use super::metrics::RequestKey;
use super::spent::Spent;
use super::trace::{Context, Story, Unwanted};
use super::{Recorder, load, unix_milliseconds};

/// Filled in as the request walks; see the module.
#[derive(Debug)]
pub struct Record {
    pub(super) recorder: Arc<Recorder>,
    started: Instant,
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// HTTP method, or `TCP`.
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
    /// Bytes of tunnelled data received from the client, or of a request's content as it was announced.
    pub bytes_received: u64,
    /// The method as a label: one that HTTP knows, `_OTHER`, or `TCP`.
    pub method_label: &'static str,
    /// What is seen of a request's content that was not announced, or is a stream of messages.
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
    /// Fields of the request's head, when a tap wants them.
    pub request_headers: Option<Box<[Field]>>,
    forgotten: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    time_ms: u128,
    direction: &'a str,
    method: &'a str,
    authority: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    alpn: &'a str,
    path: &'a str,
    protocol: &'a str,
    response_code: u16,
    response_flags: Cow<'a, str>,
    reason: &'a str,
    detail: &'a str,
    destination: &'a str,
    route_name: &'a str,
    upstream_cluster: &'a str,
    upstream_host: Option<SocketAddr>,
    downstream_remote_address: SocketAddr,
    peer: &'a str,
    tls: &'a str,
    attempts: u32,
    bytes_sent: u64,
    bytes_received: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
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
            request_headers: None,
            forgotten: false,
        }
    }

    /// Begins one that nobody is told of: a request of our own, which is counted elsewhere.
    pub fn untold(recorder: &Arc<Recorder>, direction: &'static str, downstream: SocketAddr) -> Self {
        let mut record = Self::begin(recorder, direction, downstream);
        record.forgotten = true;
        record
    }

    /// When the request was received.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Notes who is at the other end: a proven identity over mutual TLS, or nobody that is known.
    pub fn other_end(&mut self, id: Option<&SpiffeId>) {
        self.proven_end(&id.map_or_else(Arc::default, |id| Arc::from(id.to_string())));
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
        }
    }

    /// What to do with the request is decided: it is to be sent on.
    pub fn decided(&mut self) {
        if self.recorder.has_overhead() {
            self.spent.decided(self.started, Instant::now());
        }
    }

    /// It is being sent to a host.
    pub fn sending(&mut self) {
        if self.recorder.has_overhead()
            && let Some(took) = self.spent.sending(Instant::now())
            && !self.forgotten
        {
            self.recorder.attempt(self, "unanswered", took);
        }
    }

    /// The host has answered with the head of a response, or failed; `result` is a class of status or a reason code.
    pub fn answered(&mut self, result: &'static str) {
        if self.recorder.has_overhead()
            && let Some(took) = self.spent.answered(Instant::now())
            && !self.forgotten
        {
            self.recorder.attempt(self, result, took);
        }
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

    /// Time by part: policy, queue, wait for the host, and all but the last. `None`: it was not sent on.
    pub(super) fn spent(&self, now: Instant) -> Option<[Duration; 4]> {
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

    fn line(&self) -> Line<'_> {
        Line {
            event: "access",
            time_ms: unix_milliseconds(),
            direction: self.direction,
            method: &self.method,
            authority: &self.authority,
            alpn: &self.alpn,
            path: &self.path,
            protocol: self.protocol,
            response_code: self.status,
            response_flags: match (self.delayed, self.flag) {
                (false, "") => "-".into(),
                (false, flag) => flag.into(),
                (true, "") => "DI".into(),
                (true, flag) => format!("DI,{flag}").into(),
            },
            reason: self.reason,
            detail: &self.detail,
            destination: &self.destination,
            route_name: &self.route,
            upstream_cluster: &self.cluster,
            upstream_host: self.upstream,
            downstream_remote_address: self.downstream,
            peer: &self.peer,
            tls: self.tls,
            attempts: self.attempts,
            bytes_sent: self.bytes_sent,
            bytes_received: self.received().0,
            duration_ms: self.started.elapsed().as_secs_f64() * 1000.0,
            trace_id: self.trace.map(|trace| trace.trace_id.to_string()),
            span_id: self.trace.map(|trace| trace.span_id.to_string()),
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
        let now = Instant::now();
        let duration = now.saturating_duration_since(self.started);
        if let Some(load) = &self.recorder.load {
            load.count(self, duration);
        }
        let telemetry = &self.recorder.telemetry;
        self.recorder.ended(self, now);
        if telemetry.taps.any() {
            telemetry.taps.ended(self, duration);
        }
        if telemetry.access_log.wants(!self.flag.is_empty() || self.status >= 500)
            && let Ok(line) = serde_json::to_string(&self.line())
        {
            if let Some(logs) = &telemetry.logs {
                logs.access(&line, self.trace, self.status >= 500 || !self.flag.is_empty());
            }
            telemetry.access_log.write(line);
        }
        self.end_trace(); // Last: it takes the texts.
    }
}
