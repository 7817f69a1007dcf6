//! What is counted, by which labels. Labels come from configuration, identities and our own tables, never from what a
//! client sends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pillion_wire::exposition::{Exemplar, Histogram};

use super::table::{Bounded, Tally};

/// Upper bounds of the duration buckets, in seconds.
pub(super) const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// The same for what is ours of a request, most of which is short.
const STEP_SECONDS: [f64; 12] =
    [0.000_01, 0.000_025, 0.000_05, 0.0001, 0.000_25, 0.0005, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5];
/// Upper bounds of the size buckets, in bytes.
pub(super) const BYTES: [f64; 8] = [0.0, 128.0, 1024.0, 8192.0, 65_536.0, 524_288.0, 4_194_304.0, 33_554_432.0];

/// What stands for the labels of all that there is no room for.
pub(super) const OTHER: &str = "other";

/// What a request or connection is counted under.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(in crate::telemetry) struct RequestKey {
    /// `outbound` or `inbound`.
    pub(in crate::telemetry) direction: &'static str,
    /// A TCP connection or tunnel, not a request.
    pub(in crate::telemetry) is_tcp: bool,
    /// One that HTTP knows, else `_OTHER` (OpenTelemetry).
    pub(in crate::telemetry) method: &'static str,
    /// `HTTP/1.1`, `HTTP/2`, …
    pub(in crate::telemetry) protocol: &'static str,
    /// Destination as the control plane knows it.
    pub(in crate::telemetry) destination: Arc<str>,
    /// Cluster that it was sent to.
    pub(in crate::telemetry) cluster: Arc<str>,
    /// Route that it took.
    pub(in crate::telemetry) route: Arc<str>,
    /// SPIFFE id of the other end.
    pub(in crate::telemetry) peer: Arc<str>,
    /// `mutual` or `none`.
    pub(in crate::telemetry) tls: &'static str,
    /// HTTP status; 0 when the client left first.
    pub(in crate::telemetry) status: u16,
    /// Reason code.
    pub(in crate::telemetry) reason: &'static str,
    /// Envoy's response flag.
    pub(in crate::telemetry) flag: &'static str,
    /// Of a gRPC call; 255: it did not say.
    pub(in crate::telemetry) grpc_status: Option<u8>,
}

impl Bounded for RequestKey {
    fn other(&self) -> Self {
        let other: Arc<str> = Arc::from(OTHER);
        Self {
            method: "_OTHER",
            protocol: "",
            destination: Arc::clone(&other),
            cluster: Arc::clone(&other),
            route: Arc::clone(&other),
            peer: other,
            reason: if self.reason.is_empty() { "" } else { OTHER },
            flag: "",
            // As a class, so that there are some hundred of these however many statuses there are. How mutual TLS is
            // spread, and whether it was gRPC, stays.
            status: self.status / 100 * 100,
            grpc_status: self.grpc_status.map(|_| u8::MAX),
            ..*self
        }
    }
}

/// How requests ended.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct Requests {
    /// That ended.
    pub(in crate::telemetry) count: u64,
    /// TCP connections of which both ends opened.
    pub(in crate::telemetry) opened: u64,
    pub(in crate::telemetry) duration: Distribution<17>,
    pub(in crate::telemetry) received: Distribution<9>,
    pub(in crate::telemetry) sent: Distribution<9>,
    pub(in crate::telemetry) request_messages: u64,
    pub(in crate::telemetry) response_messages: u64,
    pub(in crate::telemetry) exemplars: Option<Box<[Option<Exemplar>; 17]>>,
}

impl Requests {
    /// One took so long; it is an example if it is traced.
    pub(in crate::telemetry) fn took(&mut self, duration: Duration, trace: Option<[u8; 16]>) {
        let value = duration.as_secs_f64();
        let bucket = self.duration.observe(&SECONDS, value);
        let Some(trace_id) = trace else { return };
        let exemplars = self.exemplars.get_or_insert_default();
        if let Some(place) = exemplars.get_mut(bucket) {
            *place = Some(Exemplar { trace_id, value, at: SystemTime::now() });
        }
    }

    /// One had bodies of so many bytes.
    pub(in crate::telemetry) fn sizes(&mut self, received: u64, sent: u64) {
        #[expect(clippy::cast_precision_loss, reason = "sizes beyond 2^53 are not seen")]
        let (received, sent) = (received as f64, sent as f64);
        self.received.observe(&BYTES, received);
        self.sent.observe(&BYTES, sent);
    }

    pub(super) fn durations(&self) -> Histogram {
        let exemplars = self.exemplars.as_ref().map_or_else(Vec::new, |all| all.to_vec());
        Histogram { exemplars, ..self.duration.histogram(&SECONDS) }
    }
}

impl Tally for Requests {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.opened += other.opened;
        self.duration.add(&other.duration);
        self.received.add(&other.received);
        self.sent.add(&other.sent);
        self.request_messages += other.request_messages;
        self.response_messages += other.response_messages;
        if let Some(newer) = &other.exemplars {
            let exemplars = self.exemplars.get_or_insert_default();
            for (mine, newer) in exemplars.iter_mut().zip(newer.iter()).filter(|(_, newer)| newer.is_some()) {
                mine.clone_from(newer);
            }
        }
    }
}

/// Whose time.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(in crate::telemetry) struct StepKey {
    pub(in crate::telemetry) direction: &'static str,
    pub(in crate::telemetry) route: Arc<str>,
}

impl Bounded for StepKey {
    fn other(&self) -> Self {
        Self { route: Arc::from(OTHER), ..*self }
    }
}

/// What a request's time goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Part {
    /// Finding out what a connection carries.
    Detect,
    /// A handshake, as a server.
    Tls,
    /// Route, authorization, limits, filters.
    Policy,
    /// A place within limits, a host, a connection to it.
    Queue,
    /// The answer; not ours.
    UpstreamWait,
    /// All but the answer, up to the head of the response.
    Total,
}

impl Part {
    pub(super) const ALL: [Self; 6] =
        [Self::Detect, Self::Tls, Self::Policy, Self::Queue, Self::UpstreamWait, Self::Total];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Tls => "tls",
            Self::Policy => "policy",
            Self::Queue => "queue",
            Self::UpstreamWait => "upstream_wait",
            Self::Total => "total",
        }
    }
}

/// Times by [`Part`].
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct Steps([Distribution<13>; 6]);

impl Steps {
    pub(in crate::telemetry) fn took(&mut self, part: Part, duration: Duration) {
        if let Some(times) = self.0.get_mut(part as usize) {
            times.observe(&STEP_SECONDS, duration.as_secs_f64());
        }
    }

    /// `None`: it never came to that.
    pub(super) fn times(&self, part: Part) -> Option<Histogram> {
        let times = self.0.get(part as usize)?;
        times.counts.iter().any(|count| *count > 0).then(|| times.histogram(&STEP_SECONDS))
    }
}

impl Tally for Steps {
    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            mine.add(theirs);
        }
    }
}

/// Tries of a host.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(in crate::telemetry) struct AttemptKey {
    pub(in crate::telemetry) direction: &'static str,
    pub(in crate::telemetry) cluster: Arc<str>,
    /// `1xx` to `5xx`, a reason code, or `unanswered`.
    pub(in crate::telemetry) result: &'static str,
}

impl Bounded for AttemptKey {
    fn other(&self) -> Self {
        Self { cluster: Arc::from(OTHER), ..*self }
    }
}

/// How long tries took.
#[derive(Clone, Debug, Default)]
pub(in crate::telemetry) struct Attempt(Distribution<17>);

impl Attempt {
    pub(in crate::telemetry) fn took(&mut self, duration: Duration) {
        self.0.observe(&SECONDS, duration.as_secs_f64());
    }

    pub(super) fn times(&self) -> Histogram {
        self.0.histogram(&SECONDS)
    }
}

impl Tally for Attempt {
    fn add(&mut self, other: &Self) {
        self.0.add(&other.0);
    }
}

/// Counts by size; there is one more than bounds.
#[derive(Clone, Debug)]
pub(in crate::telemetry) struct Distribution<const BUCKETS: usize> {
    counts: [u64; BUCKETS],
    pub(super) sum: f64,
}

impl<const BUCKETS: usize> Default for Distribution<BUCKETS> {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum: 0.0 }
    }
}

impl<const BUCKETS: usize> Distribution<BUCKETS> {
    /// The bucket that it falls into.
    fn observe(&mut self, bounds: &[f64], value: f64) -> usize {
        let bucket = bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += value;
        bucket
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }

    pub(super) fn histogram(&self, bounds: &'static [f64]) -> Histogram {
        Histogram { bounds: bounds.into(), counts: self.counts.to_vec(), sum: self.sum, exemplars: Vec::new() }
    }
}

/// The method as a label: those that OpenTelemetry's semantic conventions for HTTP know.
pub(in crate::telemetry) fn known_method(method: &http::Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}
