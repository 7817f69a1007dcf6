//! What a request or connection holds while it is under way where limits, a breaker or outlier detection are
//! configured: its place among those of the destination and of the host, and the duty to tell how it ended.
//!
//! Where nothing is configured it is `None`, and each step a branch.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response};
use pillion_wire::resilience::Failures;
use tokio::time::Instant;

use super::Worker;
use super::attempt::Upstreams;
use super::message::REASON;
use crate::config::Resilience;
use crate::error::ProxyError;
use crate::http::Body;
use crate::resilience::breaker::Outcome;
use crate::resilience::{Full, Permit};
use crate::snapshot::Cluster;
use crate::upstream::{Call, Denied, Event, Host, Kind, Shortage};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Guard(Option<Box<Held>>);

#[derive(Debug)]
struct Held {
    shared: Arc<super::Shared>,
    cluster: Arc<Cluster>,
    rules: Arc<Resilience>,
    kind: Kind,
    /// The place within the destination's limit.
    _place: Option<Permit>,
    /// The place of a retry.
    retry: Option<Permit>,
    call: Option<Call>,
}

impl Guard {
    /// Takes a place within the destination's limit, waiting for one if so configured.
    ///
    /// # Errors
    /// [`ProxyError::Overflow`] and [`ProxyError::PendingTimeout`].
    ///
    /// # Cancel safety
    /// A place in the queue is given up.
    pub(super) async fn enter(worker: &Worker, upstreams: &Upstreams, kind: Kind) -> Result<Self, ProxyError> {
        let Upstreams::Cluster(cluster, _) = upstreams else { return Ok(Self(None)) };
        let Some(rules) = &cluster.config.resilience else { return Ok(Self(None)) };
        Box::pin(Self::admit_to(worker, cluster, rules, kind)).await
    }

    async fn admit_to(
        worker: &Worker,
        cluster: &Arc<Cluster>,
        rules: &Arc<Resilience>,
        kind: Kind,
    ) -> Result<Self, ProxyError> {
        let load = cluster.upstream.load();
        let (limits, places) = (
            rules.limits.as_ref(),
            match kind {
                Kind::Request => &load.requests,
                Kind::Connection => &load.connections,
            },
        );
        let limit = limits.and_then(|limits| match kind {
            Kind::Request => limits.requests,
            Kind::Connection => limits.connections,
        });
        let place = match (limits, limit) {
            (Some(limits), Some(limit)) => {
                let place = places.acquire(limit, limits.pending, limits.pending_timeout).await;
                Some(place.map_err(|full| shortage(worker, cluster, kind.limit(), full))?)
            }
            _ => None,
        };
        Ok(Self(Some(Box::new(Held {
            shared: Arc::clone(&worker.shared),
            cluster: Arc::clone(cluster),
            rules: Arc::clone(rules),
            kind,
            _place: place,
            retry: None,
            call: None,
        }))))
    }

    /// Asks for leave to use `host`, after whichever host was used before.
    ///
    /// # Errors
    /// When the host has as much in hand as it may, or its breaker has just opened: another may be asked.
    pub(super) fn admit(&mut self, host: &Arc<Host>) -> Result<(), ProxyError> {
        let Some(held) = &mut self.0 else { return Ok(()) };
        held.call = None;
        let (upstream, now) = (&held.cluster.upstream, Instant::now());
        // What does not let a destination go out of service has nothing against its last hosts.
        let forced = || held.rules.keep() > 0 && !upstream.has_healthy();
        match Call::begin(upstream, host, &held.rules, held.kind, now, forced) {
            Ok(call) => {
                held.call = Some(call);
                Ok(())
            }
            Err(Denied::Full) => {
                let limit = held.kind.endpoint_limit();
                Err(ProxyError::Overflow { cluster: held.cluster.config.name.clone(), limit })
            }
            Err(Denied::Open) => Err(ProxyError::BreakerOpen(held.cluster.config.name.clone())),
        }
    }

    /// May the request be sent once more? Takes a place among the retries.
    pub(super) fn may_retry(&mut self) -> bool {
        let Some(held) = &mut self.0 else { return true };
        let Some(limit) = held.rules.limits.as_ref().and_then(|limits| limits.retries) else { return true };
        if held.retry.is_none() {
            held.retry = held.cluster.upstream.load().retries.try_acquire(limit);
        }
        if held.retry.is_none() {
            held.shared.telemetry.metrics.limit_overflow(held.cluster.upstream.name(), "retries");
        }
        held.retry.is_some()
    }

    /// Tells how the attempt ended: the head of a response.
    pub(super) fn answered(&mut self, response: &Response<Body>) {
        let Some(held) = self.judging() else { return };
        let Some(call) = &held.call else { return };
        let now = Instant::now();
        let failures = failures(&held.rules);
        let is_slow = failures.slow.is_some_and(|slow| now.saturating_duration_since(call.since) > slow);
        let status = of_head(failures, call.host(), response);
        let outcome = if is_slow { Some(Outcome::Failure) } else { status };
        if let Some(outcome) = outcome {
            held.settle(outcome, now); // Else the trailers tell.
        }
    }

    /// Tells how it ended: gRPC's status, which comes at the end.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        let Some(held) = self.judging() else { return };
        let outcome = grpc_status(trailers).map(|status| verdict(failures(&held.rules).grpc.contains(&status)));
        held.settle(outcome.unwrap_or(Outcome::Unknown), Instant::now());
    }

    /// Tells how the attempt ended: badly, by somebody's fault.
    pub(super) fn failed(&mut self, error: &ProxyError) {
        let Some(held) = self.judging() else { return };
        held.settle(of_error(failures(&held.rules), error), Instant::now());
    }

    /// Tells that the response was cut short, for whoever waits for its end to judge by.
    pub(super) fn broke(&mut self) {
        let Some(held) = self.judging() else { return };
        let outcome = if failures(&held.rules).reset { Outcome::Failure } else { Outcome::Unknown };
        held.settle(outcome, Instant::now());
    }

    /// Tells that a connection stands.
    pub(super) fn connected(&mut self) {
        let Some(held) = self.judging() else { return };
        held.settle(Outcome::Success, Instant::now());
    }

    fn judging(&mut self) -> Option<&mut Held> {
        self.0.as_deref_mut().filter(|held| held.rules.judges() && held.call.is_some())
    }
}

impl Held {
    /// Only the first word on a call counts.
    fn settle(&mut self, outcome: Outcome, now: Instant) {
        let Some(call) = &mut self.call else { return };
        if let Some(change) = call.settle(outcome, now) {
            Event::Breaker(change).tell(&self.cluster.upstream, call.host(), &self.shared.telemetry.metrics);
        }
    }
}

/// Why no host of `upstreams` is left to be tried.
pub(super) fn no_host(worker: &Worker, upstreams: &Upstreams, kind: Kind) -> ProxyError {
    let name = upstreams.name().to_owned();
    if upstreams.is_strict() {
        worker.shared.telemetry.metrics.session("lost");
        return ProxyError::SessionLost(name);
    }
    let Upstreams::Cluster(cluster, _) = upstreams else { return ProxyError::NoHealthyUpstream(name) };
    match cluster.upstream.shortage() {
        Shortage::None => match worker.shared.resolutions.trouble(&cluster.config.endpoints) {
            Some((host, why)) if cluster.upstream.hosts().is_empty() => {
                ProxyError::NoAddress { cluster: name, name: host.to_string(), why }
            }
            _ => ProxyError::NoHealthyUpstream(name),
        },
        Shortage::Open => ProxyError::BreakerOpen(name),
        Shortage::Full => shortage(worker, cluster, kind.endpoint_limit(), Full::Overflow),
    }
}

fn shortage(worker: &Worker, cluster: &Cluster, limit: &'static str, full: Full) -> ProxyError {
    worker.shared.telemetry.metrics.limit_overflow(cluster.upstream.name(), limit);
    let cluster = cluster.config.name.clone();
    match full {
        Full::Overflow => ProxyError::Overflow { cluster, limit },
        Full::TimedOut => ProxyError::PendingTimeout { cluster, limit },
    }
}

/// Without a breaker the defaults say what a failure is: outlier detection needs it, too.
fn failures(rules: &Resilience) -> &Failures {
    static DEFAULT: std::sync::LazyLock<Failures> = std::sync::LazyLock::new(Failures::default);
    rules.breaker.as_ref().map_or(&DEFAULT, |breaker| &breaker.failures)
}

/// `None`: gRPC says it at the end.
fn of_head(failures: &Failures, host: &Host, response: &Response<Body>) -> Option<Outcome> {
    let (status, headers) = (response.status().as_u16(), response.headers());
    let reason = headers.get(REASON).filter(|_| host.key().mesh.is_some()).map(http::HeaderValue::as_bytes);
    if matches!(reason, Some(b"connect_failure" | b"connect_timeout")) {
        return Some(verdict(failures.connect)); // Its own sidecar could not reach it.
    }
    let is_failure = failures.statuses.contains(&status)
        || (failures.server_errors && (500..600).contains(&status))
        || (failures.gateway_errors && (502..=504).contains(&status));
    if is_failure {
        return Some(Outcome::Failure);
    }
    let is_grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc {
        return Some(Outcome::Success);
    }
    grpc_status(headers).map(|status| verdict(failures.grpc.contains(&status)))
}

fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn of_error(failures: &Failures, error: &ProxyError) -> Outcome {
    let is_failure = match error {
        error if error.never_sent() => failures.connect,
        ProxyError::UpstreamReset { .. } | ProxyError::UpstreamProtocol { .. } | ProxyError::TunnelRefused { .. } => {
            failures.reset
        }
        other => failures.timeout && other.reason().flag == "UT",
    };
    if is_failure { Outcome::Failure } else { Outcome::Unknown }
}

fn verdict(is_failure: bool) -> Outcome {
    if is_failure { Outcome::Failure } else { Outcome::Success }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::HeaderValue;

    use super::*;
    use crate::upstream::HostKey;

    fn response(status: u16, fields: &[(&'static str, &'static str)]) -> Response<Body> {
        let mut response = Response::new(Body::default());
        *response.status_mut() = http::StatusCode::from_u16(status).expect("literal");
        for (name, value) in fields {
            response.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        response
    }

    #[test]
    fn what_counts_as_a_failure_is_what_was_said() {
        const GRPC: (&str, &str) = ("content-type", "application/grpc");
        let host = Host::new(HostKey::remote("127.0.0.1:1".parse().expect("literal"), None));
        let usual = Failures::default();
        let gateway = Failures { server_errors: false, statuses: BTreeSet::from([429]), ..Failures::default() };
        let (good, bad) = (Some(Outcome::Success), Some(Outcome::Failure));
        for (failures, status, fields, wanted) in [
            (&usual, 200, &[][..], good),
            (&usual, 500, &[], bad),
            (&usual, 429, &[], good),
            (&usual, 404, &[], good),
            (&gateway, 500, &[], good),
            (&gateway, 503, &[], bad),
            (&gateway, 429, &[], bad),
            (&usual, 200, &[GRPC], None),
            (&usual, 200, &[GRPC, ("grpc-status", "14")], bad),
            (&usual, 200, &[GRPC, ("grpc-status", "8")], good),
            (&usual, 200, &[GRPC, ("grpc-status", "0")], good),
        ] {
            assert_eq!(of_head(failures, &host, &response(status, fields)), wanted, "{status} {fields:?}");
        }
        let address = "127.0.0.1:1".parse().expect("literal");
        assert_eq!(of_error(&usual, &ProxyError::ConnectTimeout(address)), Outcome::Failure);
        assert_eq!(of_error(&usual, &ProxyError::ClientGone), Outcome::Unknown);
        assert_eq!(of_error(&usual, &ProxyError::IdleRace(address)), Outcome::Unknown);
        let none = Failures { connect: false, ..Failures::default() };
        assert_eq!(of_error(&none, &ProxyError::ConnectTimeout(address)), Outcome::Unknown);
    }
}
