//! A line of the log, in either form.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::HeaderName;
use serde::Serialize;

use super::entry::Entry;
use super::text;
use crate::bootstrap::AccessLogFormat;

const USER_AGENT: HeaderName = http::header::USER_AGENT;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Envoy's names, and ours where Envoy has none: `event`, `direction`, `reason`, `detail`, `destination`, `peer`, `tls`,
/// `alpn`, `attempts`, `trace_id`, and `duration_ms` with its fraction.
#[derive(Serialize)]
struct Json<'a> {
    event: &'static str,
    start_time: String,
    direction: &'a str,
    method: &'a str,
    authority: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    requested_server_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    alpn: &'a str,
    path: &'a str,
    protocol: &'a str,
    response_code: u16,
    response_flags: &'a str,
    response_code_details: &'a str,
    reason: &'a str,
    detail: &'a str,
    destination: &'a str,
    route_name: &'a str,
    upstream_cluster: &'a str,
    upstream_host: Option<SocketAddr>,
    upstream_service_time: Option<u64>,
    downstream_remote_address: SocketAddr,
    peer: &'a str,
    tls: &'a str,
    attempts: u32,
    bytes_received: u64,
    bytes_sent: u64,
    duration: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
}

/// Of a connection that carried nothing.
#[derive(Serialize)]
struct Refused<'a> {
    event: &'static str,
    start_time: String,
    listener: &'a str,
    downstream_remote_address: SocketAddr,
    reason: &'a str,
    detail: &'a str,
}

/// Fields of requests that the format needs.
pub(super) fn headers(format: &AccessLogFormat) -> Vec<HeaderName> {
    match format {
        AccessLogFormat::Json => vec![USER_AGENT, REQUEST_ID],
        AccessLogFormat::Text(format) => format.headers().to_vec(),
    }
}

/// Appends the line of `entry`, its end included. Nothing in it can end a line early, whoever chose the values.
pub(super) fn write(format: &AccessLogFormat, entry: &Entry, line: &mut Vec<u8>) {
    match format {
        AccessLogFormat::Json => json(entry, line),
        AccessLogFormat::Text(format) => text::write(format, entry, line),
    }
    line.push(b'\n');
}

fn json(entry: &Entry, line: &mut Vec<u8>) {
    let start_time = rfc3339(entry.start);
    // Text and numbers are always JSON.
    let _always_json = if entry.event == "refused" {
        let refused = Refused {
            event: entry.event,
            start_time,
            listener: &entry.direction,
            downstream_remote_address: entry.downstream,
            reason: entry.reason,
            detail: &entry.detail,
        };
        serde_json::to_writer(line, &refused)
    } else {
        serde_json::to_writer(
            line,
            &whole(entry, start_time, &entry.flags(), [0, 1].map(|at| entry.field(at)).each_ref()),
        )
    };
}

fn whole<'a>(
    entry: &'a Entry,
    start_time: String,
    flags: &'a str,
    [user_agent, request_id]: [&'a Option<std::borrow::Cow<'_, str>>; 2],
) -> Json<'a> {
    Json {
        event: entry.event,
        start_time,
        direction: &entry.direction,
        method: &entry.method,
        authority: &entry.authority,
        requested_server_name: entry.server_name(),
        alpn: &entry.alpn,
        path: &entry.path,
        protocol: entry.protocol,
        response_code: entry.status,
        response_flags: flags,
        response_code_details: entry.code_details(),
        reason: entry.reason,
        detail: &entry.detail,
        destination: &entry.destination,
        route_name: &entry.route,
        upstream_cluster: &entry.cluster,
        upstream_host: entry.upstream,
        upstream_service_time: entry.upstream_service_time.map(millis),
        downstream_remote_address: entry.downstream,
        peer: &entry.peer,
        tls: entry.tls,
        attempts: entry.attempts,
        bytes_received: entry.bytes_received,
        bytes_sent: entry.bytes_sent,
        duration: millis(entry.duration),
        duration_ms: entry.duration.as_secs_f64() * 1000.0,
        user_agent: user_agent.as_deref(),
        request_id: request_id.as_deref(),
        trace_id: entry.trace.map(|trace| trace.to_string()),
        span_id: entry.span.map(|span| span.to_string()),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `2026-02-03T04:05:06.789Z`.
pub(in crate::telemetry) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{:03}Z", second % 60, since.subsec_millis())
}

/// The date so many days after 1970-01-01 (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_as_the_calendar_has_them() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (1_709_210_096, "2024-02-29T12:34:56.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), wanted);
        }
    }

    proptest! {
        #[test]
        fn times_agree_with_another_calendar(seconds in 0u64..253_402_300_799, millis in 0u32..1000) {
            let at = SystemTime::UNIX_EPOCH + Duration::new(seconds, millis * 1_000_000);
            let told = time::OffsetDateTime::from(at);
            let wanted = format!(
                "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{millis:03}Z",
                told.year(), u8::from(told.month()), told.day(), told.hour(), told.minute(), told.second()
            );
            prop_assert_eq!(rfc3339(at), wanted);
        }
    }
}
