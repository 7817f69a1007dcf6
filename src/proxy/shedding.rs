//! Load shedding of our own ports: how important a request is, its place, what its end tells, and what a caller is told
//! that has none.
//!
//! What counts as the latency of a request is the time from when it is let through, or from the last byte of its content
//! if that comes later, to the head of its response: a client that reads or writes slowly says nothing of our application.
//! For gRPC it is the time to the end. Failures of the application (5xx) and upgrades say nothing.
//!
//! The place is held to the end of the response; of what is still going on 1 s after its head, which is then a stream,
//! until that time only, and of an upgrade (WebSocket) until its head. So streams do not use up the limit, nor is their
//! length taken for a latency. A request has its place as long as its content takes to arrive: our application has it.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, request};
use pillion_wire::load_shedding::CriticalityRule;
use tokio::time::Instant;

use super::client::Client;
use super::message::Head;
use super::rate_limit::PUSHBACK;
use super::reply::is_grpc;
use crate::error::ProxyError;
use crate::http::{Activity, Body};
use crate::resilience::shedding::{Shedder, Ticket};
use crate::snapshot::InboundPort;

/// When it is worth trying again, in seconds: nobody knows, and it is the least that can be said.
const RETRY_AFTER_SECONDS: u16 = 1;

/// A request that has a place.
#[derive(Debug)]
pub(super) struct Held {
    ticket: Ticket,
    is_grpc: bool,
    /// The caller is not believed: what it says of its criticality goes no further.
    is_stranger: bool,
    /// When the last of its content was read, if it has any.
    content: Option<Activity>,
}

/// A place for the request, perhaps after a while (see [`Shedder::enter`]).
///
/// # Errors
/// [`ProxyError::Shed`].
///
/// # Cancel safety
/// The place is given back.
pub(super) async fn admit(
    client: &Client,
    port: &InboundPort,
    shedder: &Arc<Shedder>,
    request: &request::Parts,
) -> Result<Box<Held>, ProxyError> {
    let is_stranger = client.peer.is_empty();
    let rule = rule(port);
    let said = rule.filter(|_| !is_stranger).and_then(|rule| request.headers.get(rule.header.as_str())?.to_str().ok());
    let criticality = rule.map(|rule| rule.read(said)).unwrap_or_default();
    match shedder.enter(&client.peer, criticality).await {
        Ok(ticket) => {
            let is_grpc = is_grpc(&request.headers);
            Ok(Box::new(Held { ticket, is_grpc, is_stranger, content: None }))
        }
        Err(why) => {
            let (criticality, why) = (criticality.name(), why.name());
            client.worker.shared.telemetry.metrics.shed(port.label(), criticality, why);
            Err(ProxyError::Shed { port: port.config.port, criticality, why })
        }
    }
}

fn rule(port: &InboundPort) -> Option<&CriticalityRule> {
    port.config.load_shedding.as_ref().map(|told| &told.criticality)
}

/// Says in the answer when it is worth trying again.
pub(super) fn tell(headers: &mut HeaderMap, is_grpc: bool) {
    headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    if is_grpc {
        headers.insert(PUSHBACK, HeaderValue::from(RETRY_AFTER_SECONDS * 1000));
    }
}

impl Held {
    /// The request goes on with this content, of which it is noted when it is read.
    pub(super) fn begin(&mut self, port: &InboundPort, head: &mut Head, body: Body) -> Body {
        // Our application might pass on what is not believed, and would be as a caller of the mesh.
        if let Some(rule) = rule(port).filter(|_| self.is_stranger) {
            head.headers.remove(rule.header.as_str());
        }
        if head.upgrade.is_some() {
            self.ticket.says_nothing();
        }
        if head.upgrade.is_some() || self.is_grpc || body.is_empty() {
            return body;
        }
        let activity = self.content.insert(Activity::begin(self.ticket.since()));
        body.watched(activity)
    }

    /// The head of the response is there.
    pub(super) fn answered<T>(&mut self, response: &Response<T>) {
        let now = Instant::now();
        let kind = response.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if response.status().is_server_error() || kind.starts_with(b"text/event-stream") {
            self.ticket.says_nothing();
        } else if !self.is_grpc {
            let read = self.content.as_ref().map(Activity::last);
            let began = read.into_iter().chain([self.ticket.since()]).max().unwrap_or(now);
            self.ticket.took(now.saturating_duration_since(began), now);
        }
        self.ticket.answered(now);
    }

    /// The response has ended.
    pub(super) fn ended(mut self) {
        if self.is_grpc {
            let now = Instant::now();
            self.ticket.took(now.saturating_duration_since(self.ticket.since()), now);
        }
    }
}
