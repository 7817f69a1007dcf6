//! A line by a format string, as Envoy writes it: what is not there is `-`.
//!
//! Values come from clients. Quotation marks, backslashes and everything that could end a line or move a cursor is
//! written as `\xNN`, so that no value can pass for another field or another line.

use std::time::SystemTime;

use super::entry::Entry;
use super::line::{millis, rfc3339};
use crate::bootstrap::{LogFormat, LogPart, LogValue};

pub(super) fn write(format: &LogFormat, entry: &Entry, line: &mut Vec<u8>) {
    let mut text = String::with_capacity(256);
    for part in format.parts() {
        match part {
            LogPart::Text(literal) => text.push_str(literal),
            LogPart::Value(value, most) => match put(value, entry) {
                found if found.is_empty() => text.push('-'),
                found => escape(&found, most.unwrap_or(usize::MAX), &mut text),
            },
        }
    }
    line.extend_from_slice(text.as_bytes());
}

/// Empty when there is none.
fn put(value: &LogValue, entry: &Entry) -> String {
    let outbound = entry.direction == "outbound";
    let peer = |is_it: bool| if is_it { entry.peer.to_string() } else { String::new() };
    match value {
        LogValue::StartTime => rfc3339(entry.start),
        LogValue::StartUnix { millis } => {
            let since = entry.start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let seconds = since.as_secs();
            if *millis { format!("{seconds}.{:03}", since.subsec_millis()) } else { seconds.to_string() }
        }
        LogValue::Method => entry.method.clone(),
        LogValue::Path => entry.path.clone(),
        LogValue::Authority if entry.is_tcp => String::new(),
        LogValue::Authority => entry.authority.clone(),
        LogValue::Field(first, other) => {
            let found = entry.field(*first).or_else(|| other.and_then(|other| entry.field(other)));
            found.map(String::from).unwrap_or_default()
        }
        LogValue::Protocol => entry.protocol.to_owned(),
        LogValue::ResponseCode => entry.status.to_string(),
        LogValue::ResponseCodeDetails => entry.code_details().to_owned(),
        LogValue::ResponseFlags => entry.flags().into_owned(),
        LogValue::BytesReceived => entry.bytes_received.to_string(),
        LogValue::BytesSent => entry.bytes_sent.to_string(),
        LogValue::Duration => millis(entry.duration).to_string(),
        LogValue::UpstreamServiceTime => {
            entry.upstream_service_time.map(millis).map(|it| it.to_string()).unwrap_or_default()
        }
        LogValue::UpstreamHost => entry.upstream.map(|host| host.to_string()).unwrap_or_default(),
        LogValue::UpstreamCluster => entry.cluster.to_string(),
        LogValue::Attempts => entry.attempts.to_string(),
        LogValue::RouteName => entry.route.to_string(),
        LogValue::Downstream => entry.downstream.to_string(),
        LogValue::DownstreamIp => entry.downstream.ip().to_string(),
        LogValue::ServerName => entry.server_name().to_owned(),
        LogValue::DownstreamPeer => peer(!outbound),
        LogValue::UpstreamPeer => peer(outbound),
        LogValue::TraceId => entry.trace.map(|trace| trace.to_string()).unwrap_or_default(),
        LogValue::Direction => entry.direction.to_string(),
        LogValue::Destination => entry.destination.to_string(),
        LogValue::Peer => peer(true),
        LogValue::Tls => entry.tls.to_owned(),
        LogValue::Reason => entry.reason.to_owned(),
        LogValue::Detail => entry.detail.clone(),
    }
}

/// At most `most` characters of `value`.
fn escape(value: &str, most: usize, text: &mut String) {
    for letter in value.chars().take(most) {
        match letter {
            '"' | '\\' | '\0'..='\x1f' | '\x7f' => text.push_str(&format!("\\x{:02x}", u32::from(letter))),
            // C1 controls, line separators, and what turns the direction of writing.
            '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            letter => text.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_value_ends_a_line_or_a_quotation(value in "\\PC{0,20}|[\\x00-\\x7f]{0,20}|[\"\\\\\n\r\u{85}\u{2028}]{0,9}") {
            let mut text = String::new();
            escape(&value, usize::MAX, &mut text);
            let ends = |letter: char| letter.is_control() || ['"', '\u{2028}', '\u{2029}'].contains(&letter);
            prop_assert!(!text.contains(ends), "an escape is missing");
            prop_assert_eq!(text.lines().count(), usize::from(!text.is_empty()));
        }
    }
}
