//! The story of one request or connection, written to metrics and the access log when it ends.
//!
//! It ends when it is dropped: with the last byte of the response, or whenever the
//! client goes away. Until somebody gave a status, the client went first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri};
use pillion_wire::spiffe::SpiffeId;
use tokio::time::Instant;

use super::explain::{Chosen, Decisions, Heard, Step, Story};
use super::{LogEntry, Recorder, RequestLabels, TraceId};

/// Filled in as the request walks; see the module.
#[derive(Debug)]
pub struct Record {
    recorder: Arc<Recorder>,
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
    /// Bytes of tunnelled data received from the client.
    pub bytes_received: u64,
    /// From the pick of the last host to the head of its answer; only where the access log is on.
    pub upstream_service_time: Option<Duration>,
    /// The trace that its head names; only where somebody asks for it.
    pub trace_id: Option<TraceId>,
    /// What was decided for it and by what; only where it is kept.
    pub decisions: Decisions,
    /// Request fields that the access log wants, in its order.
    logged_fields: Vec<Option<HeaderValue>>,
    asked_at: Option<Instant>,
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
            upstream_service_time: None,
            trace_id: None,
            decisions: Decisions::default(),
            logged_fields: Vec::new(),
            asked_at: None,
            forgotten: false,
        }
    }

    /// Begins one that nobody is told of: a request of our own, which is counted elsewhere.
    pub fn untold(recorder: &Arc<Recorder>, direction: &'static str, downstream: SocketAddr) -> Self {
        let mut record = Self::begin(recorder, direction, downstream);
        record.forgotten = true;
        record
    }

    /// Notes of the request's head what the access log and explanations want of it; without either, nothing.
    pub fn hear(&mut self, method: &Method, uri: &Uri, headers: &HeaderMap) {
        if self.is_explained() {
            self.decisions.heard = Heard::of(method, uri, headers);
            self.trace_id = TraceId::read(headers);
        }
        let log = &self.recorder.telemetry.access_log;
        if !log.is_on() {
            return;
        }
        method.as_str().clone_into(&mut self.method);
        uri.path().clone_into(&mut self.path);
        let host =
            || headers.get(HOST).map_or_else(String::new, |host| String::from_utf8_lossy(host.as_bytes()).into());
        self.authority = uri.authority().map_or_else(host, |authority| without_user(authority.as_str()).to_owned());
        self.logged_fields = log.headers().iter().map(|name| headers.get(name).cloned()).collect();
        self.trace_id = self.trace_id.or_else(|| TraceId::read(headers));
    }

    /// Are its decisions kept? If not, nothing need be noted for that alone.
    pub fn is_explained(&self) -> bool {
        self.recorder.ring().is_some()
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

    /// Another host is asked now. Reads the clock only for the access log.
    pub fn asked(&mut self) {
        if self.recorder.telemetry.access_log.is_on() {
            (self.asked_at, self.upstream_service_time) = (Some(Instant::now()), None);
        }
    }

    /// The head of its answer is there.
    pub fn answered(&mut self) {
        self.upstream_service_time = self.asked_at.map(|asked| asked.elapsed());
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

    pub(super) fn labels(&self) -> RequestLabels {
        RequestLabels {
            direction: self.direction,
            destination: Arc::clone(&self.destination),
            cluster: Arc::clone(&self.cluster),
            peer: Arc::clone(&self.peer),
            tls: self.tls,
            status: self.status,
            reason: self.reason,
        }
    }

    /// What is kept of it. Takes the decisions.
    fn take_story(&mut self, duration: Duration) -> Story {
        Story {
            started: self.started,
            duration,
            direction: self.direction,
            is_tcp: self.is_tcp,
            trace: self.trace_id,
            decisions: std::mem::take(&mut self.decisions),
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
        }
    }

    /// What the access log is told. Takes the texts: nobody reads them after it.
    fn take_entry(&mut self, duration: Duration) -> LogEntry {
        LogEntry {
            event: "access",
            start: SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
            duration,
            upstream_service_time: self.upstream_service_time,
            direction: self.direction.into(),
            method: std::mem::take(&mut self.method),
            is_tcp: self.is_tcp,
            authority: std::mem::take(&mut self.authority),
            alpn: std::mem::take(&mut self.alpn),
            path: std::mem::take(&mut self.path),
            protocol: self.protocol,
            status: self.status,
            flag: self.flag,
            delayed: self.delayed,
            reason: self.reason,
            detail: std::mem::take(&mut self.detail),
            destination: Arc::clone(&self.destination),
            route: Arc::clone(&self.route),
            cluster: Arc::clone(&self.cluster),
            upstream: self.upstream,
            downstream: self.downstream,
            peer: Arc::clone(&self.peer),
            tls: self.tls,
            attempts: self.attempts,
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            trace: self.trace_id,
            fields: std::mem::take(&mut self.logged_fields),
        }
    }
}

/// An authority without what may be a name and a password.
fn without_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
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
        if self.is_tcp {
            telemetry.metrics.tcp_connection(&self.labels(), self.bytes_received, self.bytes_sent);
        } else {
            self.recorder.request(self, self.started.elapsed());
        }
        if let Some(ring) = recorder.ring() {
            let story = self.take_story(self.started.elapsed());
            ring.keep(story);
        }
        // The last: it takes the texts.
        if telemetry.access_log.wants(!self.flag.is_empty() || self.status >= 500, self.trace_id.as_ref()) {
            let entry = self.take_entry(self.started.elapsed());
            telemetry.access_log.write(entry);
        }
    }
}
