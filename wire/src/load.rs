//! What our load reports (LRS) say beyond the standard fields: names of `load_metric_stats`, and of clusters that stand for
//! callers.
//!
//! In each metric `num_requests_finished_with_metric` is the count and `total_metric_value` a sum, where there is something
//! to sum up.

use crate::xds::Duration;

/// Before the names of all our metrics.
pub const PREFIX: &str = "pillion.";
/// Requests whose latency is at most so many milliseconds and more than the bound before: `pillion.latency_ms.le_5`.
/// What is slower than all bounds is in `le_inf`.
pub const LATENCY_BUCKET: &str = "pillion.latency_ms.le_";
/// Requests with a latency, and the sum of milliseconds.
pub const LATENCY: &str = "pillion.latency_ms";
/// Responses by class: `pillion.status.5xx`.
pub const STATUS: &str = "pillion.status.";
/// Requests whose client went away first.
pub const CANCELLED: &str = "pillion.cancelled";
/// Tries after the first.
pub const RETRIES: &str = "pillion.retries";
/// Requests over mutual TLS.
pub const MUTUAL_TLS: &str = "pillion.mutual_tls";
/// Requests with a response body, and the sum of its bytes.
pub const RESPONSE_BYTES: &str = "pillion.response_bytes";
/// TCP connections opened.
pub const TCP_OPENED: &str = "pillion.tcp.opened";
/// TCP connections ended.
pub const TCP_CLOSED: &str = "pillion.tcp.closed";
/// TCP connections that failed, at the start or later.
pub const TCP_FAILED: &str = "pillion.tcp.failed";
/// TCP connections that ended and were over mutual TLS.
pub const TCP_MUTUAL_TLS: &str = "pillion.tcp.mutual_tls";
/// Bytes from TCP clients (the sum).
pub const TCP_RECEIVED: &str = "pillion.tcp.received_bytes";
/// Bytes to TCP clients (the sum).
pub const TCP_SENT: &str = "pillion.tcp.sent_bytes";
/// Fields of an endpoint's `metadata`: how it stands (`healthy`, `open`, `half-open`, `ejected`, `unhealthy`,
/// `unreachable`), why, and its SPIFFE id.
pub const ENDPOINT_FIELDS: [&str; 3] = ["state", "why", "identity"];

/// Upper bounds of the latency buckets in milliseconds.
pub const BUCKETS_MS: [f64; 16] =
    [0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0];

/// The name of a bucket: `pillion.latency_ms.le_0.5`.
#[must_use]
pub fn bucket_name(bucket: usize) -> String {
    BUCKETS_MS.get(bucket).map_or_else(|| format!("{LATENCY_BUCKET}inf"), |bound| format!("{LATENCY_BUCKET}{bound}"))
}

/// The bucket of this name.
#[must_use]
pub fn bucket_of(name: &str) -> Option<usize> {
    let bound = name.strip_prefix(LATENCY_BUCKET)?;
    if bound == "inf" {
        return Some(BUCKETS_MS.len());
    }
    let bound: f64 = bound.parse().ok()?;
    BUCKETS_MS.iter().position(|known| *known == bound)
}

/// As a message.
#[must_use]
pub fn to_duration(duration: std::time::Duration) -> Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Duration { seconds, nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0) }
}

/// From a message; what is negative is nothing.
#[must_use]
pub fn from_duration(duration: Duration) -> std::time::Duration {
    let seconds = u64::try_from(duration.seconds).unwrap_or(0);
    std::time::Duration::new(seconds, u32::try_from(duration.nanos).unwrap_or(0).min(999_999_999))
}

/// The cluster that stands for what `caller` (a SPIFFE id, or empty) sends to our own `port`: `inbound|8080|spiffe://…`.
#[must_use]
pub fn inbound_cluster(port: &str, caller: &str) -> String {
    format!("inbound|{port}|{caller}")
}

/// Port and caller of such a name.
#[must_use]
pub fn parse_inbound_cluster(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("inbound|")?.split_once('|')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for bucket in 0..=BUCKETS_MS.len() {
            assert_eq!(bucket_of(&bucket_name(bucket)), Some(bucket));
        }
        assert_eq!(bucket_name(4), "pillion.latency_ms.le_5");
        assert_eq!(bucket_of("pillion.latency_ms.le_4"), None);
        let name = inbound_cluster("80", "spiffe://a/ns/b/sa/c");
        assert_eq!(parse_inbound_cluster(&name), Some(("80", "spiffe://a/ns/b/sa/c")));
        assert_eq!(parse_inbound_cluster("orders.shop:80"), None);
    }
}
