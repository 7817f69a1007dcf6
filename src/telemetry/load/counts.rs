//! The numbers of one edge.

use std::time::Duration;

use pillion_wire::load::BUCKETS_MS;

use crate::telemetry::Record;

/// Upper bounds of [`BUCKETS_MS`] in microseconds, for counting.
const BUCKETS_US: [u64; 16] = [
    500, 1000, 2000, 3000, 5000, 10_000, 20_000, 30_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];

/// What happened on an edge.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Requests that were answered, and not with a failure of the server (5xx, or gRPC's likes of it).
    pub success: u64,
    /// Requests that reached, or were to reach, a host, and failed.
    pub error: u64,
    /// Requests whose client did not wait for the answer.
    pub cancelled: u64,
    /// Requests that were sent to no host, by reason code.
    pub dropped: Vec<(&'static str, u64)>,
    /// Responses by class, 1xx first.
    pub classes: [u64; 5],
    /// Sent again, after the first time.
    pub retries: u64,
    /// Over mutual TLS.
    pub mutual: u64,
    /// Bytes of response bodies.
    pub response_bytes: u64,
    /// Sum of latencies in microseconds.
    pub latency_us: u64,
    /// Requests by latency, within the bounds of [`BUCKETS_MS`]; one more takes what is slower.
    pub buckets: [u64; BUCKETS_MS.len() + 1],
    /// TCP connections that were opened.
    pub tcp_opened: u64,
    /// Those that ended, well or badly.
    pub tcp_closed: u64,
    /// Those that failed, at the start or later.
    pub tcp_failed: u64,
    /// Of those that ended, those over mutual TLS.
    pub tcp_mutual: u64,
    /// Bytes from the client.
    pub tcp_received: u64,
    /// Bytes to the client.
    pub tcp_sent: u64,
}

impl Counts {
    pub(super) fn count(&mut self, record: &Record, duration: Duration) {
        let is_mutual = u64::from(record.tls == "mutual");
        if record.is_tcp {
            self.tcp_closed += 1;
            self.tcp_failed += u64::from(!record.reason.is_empty());
            self.tcp_mutual += is_mutual;
            return;
        }
        self.mutual += is_mutual;
        self.retries += u64::from(record.attempts.saturating_sub(1));
        self.response_bytes += record.bytes_sent;
        if let Some(class) = self.classes.get_mut(usize::from(record.status / 100).wrapping_sub(1)) {
            *class += 1;
        }
        if record.reason == "client_gone" {
            self.cancelled += 1;
            return; // How long a client had patience says nothing of the server.
        }
        if record.attempts == 0 && !record.reason.is_empty() {
            return self.dropped(record.reason, 1);
        }
        *(if record.has_failed() { &mut self.error } else { &mut self.success }) += 1;
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.latency_us = self.latency_us.saturating_add(micros);
        let bucket = BUCKETS_US.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            *bucket += 1;
        }
    }

    /// Reasons are a list of our own, and short.
    fn dropped(&mut self, reason: &'static str, count: u64) {
        match self.dropped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, sum)) => *sum += count,
            None => self.dropped.push((reason, count)),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.success += other.success;
        self.error += other.error;
        self.cancelled += other.cancelled;
        for (reason, count) in &other.dropped {
            self.dropped(reason, *count);
        }
        self.classes.iter_mut().zip(other.classes).for_each(|(sum, more)| *sum += more);
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, more)| *sum += more);
        self.retries += other.retries;
        self.mutual += other.mutual;
        self.response_bytes += other.response_bytes;
        self.latency_us = self.latency_us.saturating_add(other.latency_us);
        self.tcp_opened += other.tcp_opened;
        self.tcp_closed += other.tcp_closed;
        self.tcp_failed += other.tcp_failed;
        self.tcp_mutual += other.tcp_mutual;
        self.tcp_received += other.tcp_received;
        self.tcp_sent += other.tcp_sent;
    }
}
