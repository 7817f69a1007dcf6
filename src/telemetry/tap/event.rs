//! What a tap shows of a record: texts are cut, and nothing that may be a secret is there.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use pillion_wire::observe::{Field, TapEvent};

use super::Tap;
use super::filter::Filter;
use crate::telemetry::head::without_user;
use crate::telemetry::{Record, unix_milliseconds};

/// Longest path and other text of a client that is shown, in bytes.
const MAX_TEXT_BYTES: usize = 1024;
/// Fields of one request that are shown.
const MOST_FIELDS: usize = 64;
/// Longest value of a field.
const MAX_VALUE_BYTES: usize = 256;

pub(super) fn of(record: &Record, took: Duration, filter: &Filter) -> TapEvent {
    let address = |address: std::net::SocketAddr| address.to_string();
    // Another tap may have asked for values, which are not this one's.
    let show = |field: &Field| Field {
        name: field.name.clone(),
        value: field.value.clone().filter(|_| filter.wants_value(&field.name)),
    };
    let fields = record.request_headers.as_deref().filter(|_| filter.wants_fields()).unwrap_or_default();
    TapEvent {
        time_ms: u64::try_from(unix_milliseconds()).unwrap_or(u64::MAX),
        workload: String::new(), // The control plane knows who speaks.
        direction: record.direction.to_owned(),
        method: if record.is_tcp { "TCP".to_owned() } else { cut(&record.method, 32) },
        authority: cut(without_user(&record.authority), MAX_VALUE_BYTES),
        path: cut(&record.path, MAX_TEXT_BYTES),
        protocol: record.protocol.to_owned(),
        response_code: record.status.into(),
        reason: record.reason.to_owned(),
        response_flags: record.flag.to_owned(),
        destination: record.destination.to_string(),
        route_name: record.route.to_string(),
        upstream_cluster: record.cluster.to_string(),
        upstream_host: record.upstream.map(address).unwrap_or_default(),
        downstream_remote_address: address(record.downstream),
        peer: record.peer.to_string(),
        tls: record.tls.to_owned(),
        attempts: record.attempts,
        duration_ms: took.as_secs_f64() * 1000.0,
        bytes_sent: record.bytes_sent,
        bytes_received: record.received().0,
        request_headers: fields.iter().map(show).collect(),
        trace_id: record.trace_id().map(|trace| trace.to_string()).unwrap_or_default(),
    }
}

pub(super) fn fields(headers: &HeaderMap, taps: &[Arc<Tap>]) -> Box<[Field]> {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let is_wanted = !value.is_sensitive() && taps.iter().any(|tap| tap.filter.wants_value(name.as_str()));
        let text = || cut(&String::from_utf8_lossy(value.as_bytes()), MAX_VALUE_BYTES);
        Field { name: cut(name.as_str(), MAX_VALUE_BYTES), value: is_wanted.then(text) }
    };
    headers.iter().take(MOST_FIELDS).map(field).collect()
}

fn cut(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters_and_users_left_out() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(without_user("a:b@c@host:80"), "host:80");
        assert_eq!(without_user("host"), "host");
    }
}
