//! What one line is made of.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;

use opentelemetry::{SpanId, TraceId};

/// The story of a request, connection or refusal, taken over from its record when that ends.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `access`, or `refused`: a connection that was ended before it carried anything.
    pub event: &'static str,
    /// When it began.
    pub start: SystemTime,
    /// From the request head to the last byte of the response.
    pub duration: Duration,
    /// From the pick of the last host to the head of its answer.
    pub upstream_service_time: Option<Duration>,
    /// `outbound` or `inbound`; of a refusal the listener.
    pub direction: Cow<'static, str>,
    /// HTTP method, or `TCP`.
    pub method: String,
    /// Is it a TCP connection?
    pub is_tcp: bool,
    /// `:authority` or `Host`; of TLS that the application speaks, the name that it asks for.
    pub authority: String,
    /// Protocols that a TLS client offers.
    pub alpn: String,
    /// Path without the query.
    pub path: String,
    /// `HTTP/1.1`, `HTTP/2`, …, or `TCP`.
    pub protocol: &'static str,
    /// HTTP status; 0 when there is none.
    pub status: u16,
    /// Envoy's response flag; empty for none.
    pub flag: &'static str,
    /// Was it held back on purpose?
    pub delayed: bool,
    /// Reason code; empty when all went well.
    pub reason: &'static str,
    /// Text behind it.
    pub detail: String,
    /// Destination as the control plane knows it.
    pub destination: Arc<str>,
    /// Name of the route.
    pub route: Arc<str>,
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// The host that was tried last.
    pub upstream: Option<SocketAddr>,
    /// The client.
    pub downstream: SocketAddr,
    /// SPIFFE id of the other end.
    pub peer: Arc<str>,
    /// `mutual` or `none`.
    pub tls: &'static str,
    /// Hosts tried.
    pub attempts: u32,
    /// Bytes of body from the client.
    pub bytes_received: u64,
    /// Bytes of body to the client.
    pub bytes_sent: u64,
    /// The trace that it belongs to.
    pub trace: Option<TraceId>,
    /// Our part of that.
    pub span: Option<SpanId>,
    /// The request's fields that the log wants, in the order of [`super::AccessLog::headers`].
    pub fields: Vec<Option<HeaderValue>>,
}

impl Entry {
    /// Envoy's `%RESPONSE_FLAGS%`.
    pub fn flags(&self) -> Cow<'static, str> {
        match (self.delayed, self.flag) {
            (false, "") => "-".into(),
            (false, flag) => flag.into(),
            (true, "") => "DI".into(),
            (true, flag) => format!("DI,{flag}").into(),
        }
    }

    /// Envoy's `%RESPONSE_CODE_DETAILS%`: our reason code, or `via_upstream` when the answer is somebody else's.
    pub fn code_details(&self) -> &'static str {
        match (self.reason, self.status) {
            ("", 0) => "",
            ("", _) => "via_upstream",
            (reason, _) => reason,
        }
    }

    /// The name that a TLS client asked for.
    pub fn server_name(&self) -> &str {
        if self.is_tcp { &self.authority } else { "" }
    }

    /// A field that the log wants.
    pub fn field(&self, at: usize) -> Option<Cow<'_, str>> {
        let value = self.fields.get(at)?.as_ref()?;
        Some(String::from_utf8_lossy(value.as_bytes()))
    }
}
