//! What is noted of a request that may become spans.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::SpanId;
use tokio::time::Instant;

use super::context::Context;

/// Attempts of one request that are told apart; there may be more.
pub(super) const MOST_ATTEMPTS: usize = 16;
/// Events of one request that are noted.
pub(super) const MOST_EVENTS: usize = 16;
/// Bytes of a text that a client chose.
const MOST_TEXT: usize = 512;

/// A request under way.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Story {
    pub(super) attempts: Vec<Attempt>,
    pub(super) events: Vec<Event>,
    /// The paths of its route.
    pub(super) route: Option<Arc<str>>,
    /// From the request to the head of its answer.
    pub(super) answered: Option<Duration>,
    /// How long it waited for a place within limits.
    pub(super) limit_wait: Duration,
    /// Why it is kept although it was not to be.
    pub(super) late: Option<&'static str>,
}

/// A request sent to one host.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) span_id: SpanId,
    pub(super) began: Instant,
    /// `None`: at the end of the request.
    pub(super) ended: Option<Instant>,
    pub(super) address: SocketAddr,
    pub(super) cluster: Arc<str>,
    pub(super) peer: Arc<str>,
    /// HTTP status; 0 without an answer.
    pub(super) status: u16,
    /// gRPC's status, where the head of the answer said it.
    pub(super) grpc_status: Option<u8>,
    /// Why there was none; else empty.
    pub(super) reason: &'static str,
}

/// Something that happened to a request.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) at: Instant,
    pub(super) name: &'static str,
    pub(super) reason: &'static str,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Finished {
    pub(super) context: Context,
    pub(super) story: Box<Story>,
    pub(super) started: Instant,
    pub(super) took: Duration,
    /// The wall clock at its end.
    pub(super) ended: SystemTime,
    pub(super) is_inbound: bool,
    pub(super) is_tcp: bool,
    pub(super) is_grpc: bool,
    pub(super) method: String,
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) protocol: &'static str,
    pub(super) destination: Arc<str>,
    pub(super) route: Arc<str>,
    pub(super) cluster: Arc<str>,
    pub(super) peer: Arc<str>,
    pub(super) tls: &'static str,
    pub(super) upstream: Option<SocketAddr>,
    pub(super) downstream: SocketAddr,
    pub(super) status: u16,
    pub(super) grpc_status: Option<u8>,
    pub(super) reason: &'static str,
    pub(super) flag: &'static str,
    pub(super) detail: String,
    pub(super) tries: u32,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    /// From the decision what to do with it to its sending, of all attempts; `None`: it was not sent.
    pub(super) queue: Option<Duration>,
}

impl Finished {
    /// Bytes of memory that it holds, about.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>()
            + size_of::<Story>()
            + self.story.attempts.capacity() * size_of::<Attempt>()
            + self.story.events.capacity() * size_of::<Event>()
            + [&self.method, &self.authority, &self.path, &self.detail].map(String::capacity).iter().sum::<usize>()
    }
}

/// A text that somebody else chose, as much as is kept of it.
pub(super) fn bounded(text: String) -> String {
    crate::telemetry::bounded(text, MOST_TEXT)
}
