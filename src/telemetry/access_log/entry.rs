//! What one line is made of.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;

use opentelemetry::{SpanId, TraceId};

/// Bytes of a path, and of what is said of a failure, that are kept. Envoy has no such limit; but here lines wait for a
/// slow disk, and clients must not choose how much memory they take.
pub(in crate::telemetry) const MOST_PATH: usize = 2048;
/// Bytes of any other text of a client.
pub(in crate::telemetry) const MOST_TEXT: usize = 256;

/// A field as it is logged: a copy, for a clone would hold all that was read with it. Of URLs the query is left out, as it
/// is of the path.
pub(in crate::telemetry) fn logged(value: &HeaderValue) -> Option<HeaderValue> {
    let value = value.as_bytes();
    let is_url = value.starts_with(b"/") || value.windows(3).any(|part| part == b"://");
    let query = value.iter().position(|byte| is_url && matches!(byte, b'?' | b'#')).unwrap_or(value.len());
    HeaderValue::from_bytes(value.get(..query.min(MOST_TEXT))?).ok()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_copied_cut_and_without_queries() {
        for (value, wanted) in [
            ("https://shop/cart?token=abc", "https://shop/cart"),
            ("/cart?token=abc#there", "/cart"),
            ("Reader/1 (what?; +http:/shop)", "Reader/1 (what?; +http:/shop)"),
            ("10.0.0.1, 10.0.0.2", "10.0.0.1, 10.0.0.2"),
        ] {
            assert_eq!(logged(&HeaderValue::from_static(value)).expect("a value"), wanted);
        }
        let read = bytes::Bytes::from(vec![b'a'; 64 << 10]);
        let value = HeaderValue::from_maybe_shared(read.clone()).expect("letters");
        let kept = logged(&value).expect("a value");
        drop(value);
        assert!(kept.len() == MOST_TEXT && read.is_unique(), "nothing of what was read is held");
    }
}
