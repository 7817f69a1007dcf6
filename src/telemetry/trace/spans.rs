//! From what was noted of a request to its spans (OpenTelemetry's semantic conventions for HTTP and RPC).
//!
//! Inbound one SERVER span, which the application continues; where the application was tried more than once, or could not
//! be reached, with one CLIENT span for each attempt below it. Outbound one CLIENT span where it was sent once; where it
//! was sent again, an INTERNAL span with one CLIENT span for each attempt below it. Of a TCP connection one span.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Event as SpanEvent, SpanContext, SpanKind, Status, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId, TraceFlags, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::time::Instant;

use super::record::GRPC_FAILURES;
use super::story::{Attempt, Finished};
use super::tracer::new_span;

/// Methods that OpenTelemetry has names for; all others are `_OTHER`, lest clients invent any number of them.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];

impl Finished {
    /// Its spans, the outermost first.
    pub fn into_spans(mut self, scope: &InstrumentationScope) -> Vec<SpanData> {
        let attempts = std::mem::take(&mut self.story.attempts);
        if self.is_inbound {
            return self.inbound(scope, attempts);
        }
        if let [only] = attempts.as_slice() {
            return vec![self.span(scope, SpanKind::Client, only.span_id, Some(only))];
        }
        if attempts.is_empty() {
            return vec![self.span(scope, SpanKind::Client, self.context.span_id, None)];
        }
        // The first attempt has taken the id that was ours.
        let whole = self.span(scope, SpanKind::Internal, new_span(), attempts.first());
        let above = whole.span_context.span_id();
        let count = attempts.len();
        let mut spans = vec![whole];
        let below = attempts.iter().enumerate();
        spans.extend(below.map(|(number, attempt)| self.attempt(scope, above, attempt, number, number + 1 == count)));
        spans
    }

    fn inbound(&self, scope: &InstrumentationScope, mut attempts: Vec<Attempt>) -> Vec<SpanData> {
        let above = self.context.span_id;
        let mut spans = vec![self.span(scope, SpanKind::Server, above, attempts.first())];
        let unanswered = |attempt: &Attempt| attempt.status == 0 && !attempt.reason.is_empty();
        if attempts.len() > 1 || attempts.iter().any(unanswered) {
            let count = attempts.len();
            for (number, attempt) in attempts.iter_mut().enumerate() {
                attempt.span_id = new_span(); // The application was told of the span above.
                spans.push(self.attempt(scope, above, attempt, number, number + 1 == count));
            }
        }
        spans
    }

    fn span(&self, scope: &InstrumentationScope, kind: SpanKind, id: SpanId, first: Option<&Attempt>) -> SpanData {
        let mut attributes = Attributes::default();
        if self.is_tcp {
            self.describe_tcp(&mut attributes);
        } else {
            self.describe(&mut attributes, &kind);
            attributes.text("http.route", self.story.route.as_deref().unwrap_or_default());
            attributes.number("http.response.status_code", i64::from(self.status));
            attributes.number("http.response.body.size", i64::try_from(self.bytes_sent).unwrap_or(i64::MAX));
        }
        if let Some(status) = self.grpc_status {
            attributes.0.push(KeyValue::new("rpc.grpc.status_code", i64::from(status)));
        }
        let address = if self.is_inbound { Some(self.downstream) } else { self.upstream };
        attributes.address(address);
        attributes.text("pillion.cluster", &self.cluster);
        attributes.text("pillion.peer", &self.peer);
        attributes.text("pillion.tls", self.tls);
        attributes.text("pillion.endpoint", self.upstream.map_or_else(String::new, |at| at.to_string()));
        attributes.number("pillion.attempts", i64::from(self.tries));
        attributes.text("pillion.reason", self.reason);
        attributes.text("pillion.response_flags", self.flag);
        attributes.text("pillion.sampling", self.story.late.unwrap_or("sampled"));
        if let Some(sent) = self.story.answered {
            attributes.seconds("pillion.time_to_response", sent);
        }
        if let Some(first) = first {
            // Discovery, filters, limits and their queues, load shedding, and the choice of a host.
            attributes.seconds("pillion.time_to_attempt", first.began.saturating_duration_since(self.started));
        }
        if let Some(queue) = self.queue {
            // Limits, connecting, and pauses between attempts.
            attributes.milliseconds("pillion.queue_ms", queue);
        }
        if !self.story.limit_wait.is_zero() {
            attributes.milliseconds("pillion.limit_wait_ms", self.story.limit_wait);
        }
        let status = self.status(&kind, &mut attributes);
        SpanData {
            span_context: self.span_context(id),
            parent_span_id: self.context.parent,
            parent_span_is_remote: self.context.parent != SpanId::INVALID,
            span_kind: kind,
            name: self.name(),
            start_time: self.at(self.started),
            end_time: self.ended,
            attributes: attributes.0,
            dropped_attributes_count: 0,
            events: self.events(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: scope.clone(),
        }
    }

    /// One of several attempts.
    fn attempt(
        &self,
        scope: &InstrumentationScope,
        above: SpanId,
        attempt: &Attempt,
        number: usize,
        is_last: bool,
    ) -> SpanData {
        let mut attributes = Attributes::default();
        self.describe(&mut attributes, &SpanKind::Client);
        attributes.number("http.response.status_code", i64::from(attempt.status));
        attributes.number("http.request.resend_count", i64::try_from(number).unwrap_or(i64::MAX));
        attributes.number("pillion.attempt", i64::try_from(number + 1).unwrap_or(i64::MAX));
        attributes.address(Some(attempt.address));
        attributes.text("pillion.cluster", attempt.cluster.as_ref());
        attributes.text("pillion.peer", attempt.peer.as_ref());
        attributes.text("pillion.endpoint", attempt.address.to_string());
        attributes.text("pillion.reason", attempt.reason);
        let grpc = if is_last { self.grpc_status } else { attempt.grpc_status };
        if let Some(status) = grpc {
            attributes.0.push(KeyValue::new("rpc.grpc.status_code", i64::from(status)));
        }
        let why = match (attempt.status, attempt.reason, grpc) {
            (200..400, _, Some(status)) => Cow::Owned(status.to_string()),
            (0, reason, _) if !reason.is_empty() => reason.into(),
            (status, ..) => Cow::Owned(status.to_string()),
        };
        let failed = attempt.status == 0 || attempt.status >= 400 || grpc.is_some_and(|status| status != 0);
        let status = if failed { attributes.failed(why, "") } else { Status::Unset };
        SpanData {
            span_context: self.span_context(attempt.span_id),
            parent_span_id: above,
            parent_span_is_remote: false,
            span_kind: SpanKind::Client,
            name: self.name(),
            start_time: self.at(attempt.began),
            end_time: attempt.ended.map_or(self.ended, |ended| self.at(ended)),
            attributes: attributes.0,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: scope.clone(),
        }
    }

    /// What was asked for, and by what.
    fn describe(&self, attributes: &mut Attributes, kind: &SpanKind) {
        let method = known_method(&self.method);
        attributes.text("http.request.method", method);
        if method != self.method {
            attributes.text("http.request.method_original", self.method.as_str());
        }
        attributes.text("url.path", self.path.as_str());
        attributes.text("url.scheme", "http");
        let (host, port) = host_and_port(&self.authority);
        attributes.text("server.address", host);
        attributes.number("server.port", port.map_or(0, i64::from));
        attributes.text("network.protocol.name", "http");
        attributes.text("network.protocol.version", self.protocol.strip_prefix("HTTP/").unwrap_or_default());
        if *kind == SpanKind::Server {
            attributes.text("client.address", self.downstream.ip().to_string());
        }
        if let Some((service, method)) = self.rpc() {
            attributes.text("rpc.system", "grpc");
            attributes.text("rpc.service", service);
            attributes.text("rpc.method", method);
        }
        attributes.text("pillion.direction", if self.is_inbound { "inbound" } else { "outbound" });
        attributes.text("pillion.destination", &self.destination);
        attributes.text("pillion.route", &self.route);
    }

    fn describe_tcp(&self, attributes: &mut Attributes) {
        attributes.text("network.transport", "tcp");
        attributes.text("tls.client.server_name", &self.authority);
        attributes.text("pillion.direction", if self.is_inbound { "inbound" } else { "outbound" });
        attributes.text("pillion.destination", &self.destination);
        attributes.number("pillion.bytes_received", i64::try_from(self.bytes_received).unwrap_or(i64::MAX));
        attributes.number("pillion.bytes_sent", i64::try_from(self.bytes_sent).unwrap_or(i64::MAX));
    }

    /// HTTP: a server is to blame for 5xx, a client's call has failed with 4xx as well. gRPC: as its status says.
    fn status(&self, kind: &SpanKind, attributes: &mut Attributes) -> Status {
        let is_server = *kind == SpanKind::Server;
        let by_grpc = self.grpc_status.filter(|status| match is_server {
            true => GRPC_FAILURES.contains(status),
            false => *status != 0,
        });
        let by_http = self.status >= if is_server { 500 } else { 400 };
        let cut = self.status < 400 && !self.flag.is_empty();
        if !by_http && !cut && by_grpc.is_none() {
            return Status::Unset;
        }
        let kind: Cow<'static, str> = match (self.reason, by_grpc) {
            ("", Some(status)) => status.to_string().into(),
            ("", None) => self.status.to_string().into(),
            (reason, _) => reason.into(),
        };
        attributes.failed(kind, &self.detail)
    }

    fn events(&self) -> SpanEvents {
        let mut events = SpanEvents::default();
        events.events = self.story.events.iter().map(|event| self.event(event)).collect();
        events
    }

    fn event(&self, event: &super::story::Event) -> SpanEvent {
        let mut attributes = Attributes::default();
        attributes.text("pillion.reason", event.reason);
        SpanEvent::new(event.name, self.at(event.at), attributes.0, 0)
    }

    /// `METHOD DESTINATION`; of gRPC `SERVICE/METHOD`; of a connection `TCP DESTINATION`.
    fn name(&self) -> Cow<'static, str> {
        if self.is_tcp {
            return format!("TCP {}", self.destination).into();
        }
        if self.rpc().is_some() {
            return self.path.trim_start_matches('/').to_owned().into();
        }
        let method = match known_method(&self.method) {
            "_OTHER" => "HTTP",
            method => method,
        };
        if self.destination.is_empty() { method.into() } else { format!("{method} {}", self.destination).into() }
    }

    fn rpc(&self) -> Option<(&str, &str)> {
        let (service, method) = self.path.strip_prefix('/')?.split_once('/')?;
        (self.is_grpc && !method.contains('/')).then_some((service, method))
    }

    fn span_context(&self, id: SpanId) -> SpanContext {
        // What is sent is sampled, however late.
        SpanContext::new(self.context.trace_id, id, TraceFlags::SAMPLED, false, TraceState::NONE)
    }

    /// The wall clock at a moment of the request.
    fn at(&self, moment: Instant) -> SystemTime {
        let before_end = self.took.saturating_sub(moment.saturating_duration_since(self.started));
        self.ended.checked_sub(before_end).unwrap_or(self.ended)
    }
}

/// Of `host:port`, or of a host.
pub(in crate::telemetry) fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    let port = authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match port {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// The method as OpenTelemetry names it.
pub(in crate::telemetry) fn known_method(method: &str) -> &'static str {
    METHODS.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}

#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    /// Empty ones are left out.
    fn text(&mut self, key: &'static str, value: impl AsRef<str>) {
        let value = value.as_ref();
        if !value.is_empty() {
            self.0.push(KeyValue::new(key, value.to_owned()));
        }
    }

    /// Zero is left out.
    fn number(&mut self, key: &'static str, value: i64) {
        if value != 0 {
            self.0.push(KeyValue::new(key, value));
        }
    }

    fn seconds(&mut self, key: &'static str, value: Duration) {
        self.0.push(KeyValue::new(key, Value::F64(value.as_secs_f64())));
    }

    fn milliseconds(&mut self, key: &'static str, value: Duration) {
        self.0.push(KeyValue::new(key, Value::F64(value.as_secs_f64() * 1000.0)));
    }

    fn address(&mut self, address: Option<SocketAddr>) {
        if let Some(address) = address {
            self.text("network.peer.address", address.ip().to_string());
            self.number("network.peer.port", i64::from(address.port()));
        }
    }

    fn failed(&mut self, kind: Cow<'static, str>, detail: &str) -> Status {
        let description = if detail.is_empty() { Cow::Borrowed("") } else { detail.to_owned().into() };
        self.0.push(KeyValue::new("error.type", kind));
        Status::Error { description }
    }
}
