//! Load shedding of our own ports: how important a request is, its place, what its end tells, and what a caller is told
//! that has none.
//!
//! What counts as the latency of a request is the time from when it is let through, or from the last byte of its content
//! if that comes later, to the head of its response: a client that reads or writes slowly says nothing of our application.
//! For gRPC it is the time to the end. Failures of the application (5xx, gRPC's of the server) count if they took longer
//! than minRTT, else they say nothing; nor do responses that are cut, and upgrades.
//!
//! The place is held to the end of the response; of what is still going on 1 s after its head, which is then a stream,
//! until that time only, and of an upgrade (WebSocket) that is agreed until its head. So streams do not use up the limit, nor is their
//! length taken for a latency. A request has its place as long as its content takes to arrive: our application has it.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, request};
use pillion_wire::load_shedding::CriticalityRule;
use tokio::time::Instant;

use super::client::Client;
use super::feedback::is_grpc_failure;
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
        if head.upgrade.is_some() || self.is_grpc || body.is_empty() {
            return body;
        }
        let activity = self.content.insert(Activity::begin(self.ticket.since()));
        body.watched(activity)
    }

    /// The head of the response is there.
    pub(super) fn answered<T>(&mut self, response: &Response<T>) {
        let now = Instant::now();
        let headers = response.headers();
        let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if response.status().is_server_error() || (self.is_grpc && is_grpc_failure(headers)) {
            self.ticket.failed(self.latency(now), now);
        } else if kind.starts_with(b"text/event-stream") {
            self.ticket.says_nothing();
        } else if !self.is_grpc {
            self.ticket.took(self.latency(now), now);
        }
        self.ticket.answered(now);
    }

    fn latency(&self, now: Instant) -> Duration {
        let read = self.content.as_ref().map(Activity::last);
        let began = read.into_iter().chain([self.ticket.since()]).max().unwrap_or(now);
        now.saturating_duration_since(began)
    }

    /// The trailers of the response are there.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        if self.is_grpc && is_grpc_failure(trailers) {
            let now = Instant::now();
            self.ticket.failed(self.latency(now), now);
        }
    }

    /// The protocol changes: what follows is no request, and how long it was until then says nothing.
    pub(super) fn switched(mut self) {
        self.ticket.says_nothing();
    }

    /// The response has ended as it should.
    pub(super) fn ended(mut self) {
        if self.is_grpc {
            let now = Instant::now();
            self.ticket.took(self.latency(now), now);
        }
    }

    /// The response is cut: its end says nothing.
    pub(super) fn broke(mut self) {
        self.ticket.says_nothing();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use pillion_wire::load_shedding::{Criticality, Gradient, MinRtt};
    use tokio::sync::mpsc;

    use super::*;
    use crate::proxy::reply::ReplyBody;

    const MILLI: Duration = Duration::from_millis(1);

    /// minRTT is measured by a single request, or is 10 ms.
    fn shedder(is_measured: bool) -> Arc<Shedder> {
        let fixed = (!is_measured).then_some(10 * MILLI);
        let min_rtt = MinRtt { fixed, requests: 1, ..MinRtt::default() };
        Arc::new(Shedder::new(Gradient { min_rtt, ..Gradient::default() }))
    }

    async fn held(shedder: &Arc<Shedder>, is_grpc: bool) -> Box<Held> {
        let ticket = shedder.enter(&"a".into(), Criticality::Critical).await.expect("room");
        Box::new(Held { ticket, is_grpc, is_stranger: false, content: None })
    }

    fn response(status: u16, grpc_status: Option<&str>) -> Response<()> {
        let builder = Response::builder().status(status);
        let builder = grpc_status.into_iter().fold(builder, |builder, code| builder.header("grpc-status", code));
        builder.body(()).expect("valid")
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_not_taken_for_the_latency_without_load() {
        let shedder = shedder(true);
        let trailers = |code: &'static str| {
            HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static(code))])
        };
        for code in ["4", "8", "13", "14", "15"] {
            let mut early = held(&shedder, true).await;
            early.answered(&response(200, Some(code)));
            early.ended();
            let mut late = held(&shedder, true).await;
            late.answered(&response(200, None));
            late.trailers(&trailers(code));
            late.ended();
        }
        held(&shedder, false).await.answered(&response(503, None));

        let mut cut = held(&shedder, true).await;
        cut.answered(&response(200, None));
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(Err("reset".into())).expect("room");
        let mut body = ReplyBody::local(Body::fed(receiver)).holding(Vec::new(), Some(cut));
        assert!(body.frame().await.is_some_and(|frame| frame.is_err()));
        drop(body);
        assert_eq!((shedder.report().min_rtt, shedder.report().in_flight), (None, 0));

        let mut good = held(&shedder, true).await;
        good.answered(&response(200, None));
        good.trailers(&trailers("5"));
        tokio::time::advance(7 * MILLI).await;
        let body = ReplyBody::local(Body::default()).holding(Vec::new(), Some(good));
        body.collect().await.expect("it ends");
        assert_eq!(shedder.report().min_rtt, Some(7 * MILLI), "what the caller did wrong is an answer");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_that_are_slow_show_overload_and_those_that_are_quick_say_nothing() {
        for (is_grpc, status, code) in [(false, 503, None), (true, 200, Some("14"))] {
            let shedder = shedder(false);
            for (latency, limit) in [(12 * MILLI, 1000), (500 * MILLI, 522)] {
                let mut all = Vec::new();
                for _ in 0..10 {
                    all.push(held(&shedder, is_grpc).await);
                }
                tokio::time::advance(latency).await;
                all.iter_mut().for_each(|held| held.answered(&response(status, code)));
                all.into_iter().for_each(|held| held.ended());
                tokio::time::advance(100 * MILLI).await;
                drop(held(&shedder, is_grpc).await);
                assert_eq!(shedder.report().limit, limit, "{status} {code:?} after {latency:?}");
            }
        }
    }
}
