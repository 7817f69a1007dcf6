//! A request as a log record (OpenTelemetry, semantic conventions: HTTP, network, client, server, error).

use http::header::USER_AGENT;
use http::{HeaderName, HeaderValue};
use opentelemetry::logs::{AnyValue, LogRecord, Severity};

use crate::telemetry::access_log::Entry;
use crate::telemetry::trace::{host_and_port, known_method};

/// `fields`: what the fields of the entry are.
pub(super) fn fill(record: &mut impl LogRecord, entry: &Entry, failed: bool, fields: &[HeaderName]) {
    let (severity, level) = if failed { (Severity::Warn, "WARN") } else { (Severity::Info, "INFO") };
    let at = entry.start + entry.duration;
    record.set_timestamp(at);
    record.set_observed_timestamp(at);
    record.set_severity_number(severity);
    record.set_severity_text(level);
    record.set_event_name(entry.event);
    record.set_body(AnyValue::from(body(entry)));
    let mut to = Attributes(record);
    to.text("log.target", "access_log");
    if entry.is_tcp {
        to.text("tls.client.server_name", entry.server_name());
        to.text("network.transport", "tcp");
    } else {
        http(&mut to, entry, fields);
    }
    to.text("client.address", &entry.downstream.ip().to_string());
    to.number("client.port", entry.downstream.port().into());
    if let Some(upstream) = entry.upstream {
        to.text("network.peer.address", &upstream.ip().to_string());
        to.number("network.peer.port", upstream.port().into());
    }
    to.text("error.type", entry.reason);
    to.text("pillion.direction", &entry.direction);
    to.text("pillion.destination", &entry.destination);
    to.text("pillion.route", &entry.route);
    to.text("pillion.cluster", &entry.cluster);
    to.text("pillion.peer", &entry.peer);
    to.text("pillion.tls", if entry.event == "access" { entry.tls } else { "" });
    to.text("pillion.reason", entry.reason);
    to.text("pillion.response_flags", entry.flags().trim_start_matches('-'));
    to.text("pillion.detail", &entry.detail);
    to.number("pillion.attempts", entry.attempts.into());
    to.0.add_attribute("pillion.duration", AnyValue::from(entry.duration.as_secs_f64()));
}

fn http(to: &mut Attributes<'_, impl LogRecord>, entry: &Entry, fields: &[HeaderName]) {
    let method = known_method(&entry.method);
    to.text("http.request.method", method);
    if method != entry.method {
        to.text("http.request.method_original", &entry.method);
    }
    to.text("url.path", &entry.path);
    to.text("url.scheme", "http");
    let (host, port) = host_and_port(&entry.authority);
    to.text("server.address", host);
    to.number("server.port", port.unwrap_or(0).into());
    to.text("network.protocol.name", "http");
    to.text("network.protocol.version", entry.protocol.trim_start_matches("HTTP/"));
    to.number("http.response.status_code", entry.status.into());
    to.number("http.request.body.size", i64::try_from(entry.bytes_received).unwrap_or(i64::MAX));
    to.number("http.response.body.size", i64::try_from(entry.bytes_sent).unwrap_or(i64::MAX));
    for (name, value) in fields.iter().zip(&entry.fields) {
        let value = value.as_ref().map(HeaderValue::as_bytes).unwrap_or_default();
        let value = String::from_utf8_lossy(value);
        match name {
            &USER_AGENT => to.text("user_agent.original", &value),
            // It is a list there; but ours are few, and most backends show a text better.
            _ if !value.is_empty() => {
                to.0.add_attribute(format!("http.request.header.{name}"), AnyValue::from(value.into_owned()));
            }
            _ => {}
        }
    }
}

/// What people read first.
fn body(entry: &Entry) -> String {
    match (entry.event, entry.is_tcp, entry.reason) {
        ("access", false, "") => format!("{} {} {}", entry.method, entry.path, entry.status),
        ("access", false, reason) => format!("{} {} {} {reason}", entry.method, entry.path, entry.status),
        ("access", true, "") => format!("TCP {}", entry.destination),
        ("access", true, reason) => format!("TCP {} {reason}", entry.destination),
        _ => format!("refused: {} {}", entry.reason, entry.detail),
    }
}

struct Attributes<'a, R>(&'a mut R);

impl<R: LogRecord> Attributes<'_, R> {
    /// Empty ones are left out.
    fn text(&mut self, key: &'static str, value: &str) {
        if !value.is_empty() {
            self.0.add_attribute(key, value.to_owned());
        }
    }

    /// Zero is left out.
    fn number(&mut self, key: &'static str, value: i64) {
        if value != 0 {
            self.0.add_attribute(key, value);
        }
    }
}
