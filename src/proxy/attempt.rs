//! Sending a request: pick a host, take a connection, send, report. Again only when nothing can have been lost.
//!
//! What a policy says of retries is done around this, in `retry`. What is repeated is a request
//! of which certainly nothing reached an application: the connection could not be
//! made, it was closed before the request was written, the host says that it did
//! not look at it, or the host's own sidecar says that its application could not be
//! reached. Beyond that, an idempotent request without a body is sent once more when
//! a *kept* connection turned out to have been closed (RFC 9110, section 9.2.2).

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::SET_COOKIE;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use pillion_wire::mesh::TRACE_KEEP;
use tokio::time::Instant;

use super::guard::{self, Guard};
use super::message::{Head, REASON, TRACE, Version};
use super::{Worker, feedback, session};
use crate::config::{AppProtocol, Keep, UpstreamProtocol};
use crate::error::ProxyError;
use crate::http::{Body, HttpError, Unsent};
use crate::route::Affinity;
use crate::snapshot::{Cluster, InboundPort};
use crate::telemetry::Record;
use crate::telemetry::trace::Onward;
use crate::upstream::{Host, HostKey, InFlight, Kind, Lease1, Lease2, Watch};

/// Times that one host may refuse a request before we believe that it means it.
const MAX_REFUSALS: u32 = 3;
/// A host that answers with it is not well, by its own word (Envoy's health check filter): it is checked at once.
pub(super) const IMMEDIATE_FAIL: &str = "x-envoy-immediate-health-check-fail";
/// Hosts tried for one request, at most.
pub(super) const MAX_HOSTS: usize = 3;

/// What addresses that the control plane does not know are called in metrics, however many there are.
pub(super) const UNKNOWN: &str = "unknown";

/// Where a request may go.
#[derive(Clone, Debug)]
pub(super) enum Upstreams {
    /// Any host of a cluster, and what keeps the call with others.
    Cluster(Arc<Cluster>, Option<Box<Affinity>>),
    /// Our own application.
    Application(Arc<InboundPort>),
    /// An address outside the mesh, as the application dialled it.
    Unknown(Arc<Host>),
}

/// The connection that a response comes on.
#[derive(Debug)]
pub(super) enum Lease {
    /// To be given back at the end.
    Http1(Lease1),
    /// Given back by dropping.
    Http2(Lease2),
}

/// A response that has begun.
#[derive(Debug)]
pub(super) struct Sent {
    /// Head, and a body that is still coming.
    pub(super) response: Response<Body>,
    /// Who answered.
    pub(super) host: Arc<Host>,
    /// The connection it comes on.
    pub(super) lease: Lease,
    /// Counts the request until its response ends.
    pub(super) in_flight: InFlight,
    /// Its places within limits, and the duty to tell how it ended.
    pub(super) guard: Guard,
}

/// The hosts of a request's earlier tries, which later ones avoid as long as there are others.
#[derive(Debug, Default)]
pub(super) struct Tried {
    hosts: Vec<HostKey>,
    /// Who is being tried, noted only where somebody asks: a try may be dropped before its end.
    last: Option<Arc<Host>>,
    is_followed: bool,
}

/// A failed try, with the body when nothing of the request was written.
pub(super) struct Failed {
    /// Why.
    pub(super) error: ProxyError,
    /// The body, when nothing of the request was written.
    pub(super) unsent: Option<Body>,
}

/// Sends a request to a host of `upstreams` and waits for the head of its response. The `guard` goes with the response;
/// it is the caller's until then, so that who drops this because it takes too long can still say so of the host.
///
/// # Cancel safety
/// Dropping it cancels the request: the stream is reset, or the connection closed.
pub(super) async fn send(
    worker: &Worker,
    upstreams: &Upstreams,
    head: &Head,
    body: Body,
    tried: &mut Tried,
    guard: &mut Guard,
    record: &mut Record,
) -> Result<Sent, Failed> {
    let repeatable = body.is_empty();
    let mut body = Some(body);
    let mut hosts = 0;
    let second = Cell::new(None);
    let picked = upstreams.pick_beside(&tried.hosts, &second).or_else(|| upstreams.pick(&[]));
    let Some(mut next) = picked else {
        return Err(Failed { error: guard::no_host(worker, upstreams, Kind::Request), unsent: body });
    };
    loop {
        let (host, other) = (next, second.take());
        if let Err(denied) = guard.admit(&host) {
            record.trace_event("endpoint_denied", denied.reason().code);
            record.step_at(Some(host.address()), "passed_over", denied.reason().code);
            tried.hosts.push(host.key().clone());
            let Some(host) = upstreams.pick_beside(&tried.hosts, &second) else {
                return Err(Failed { error: denied, unsent: body });
            };
            next = host;
            continue;
        }
        note(record, &host);
        record.decisions.other_host = other; // Of this pick: that is who is told of.
        let onward = record.begin_attempt(host.address());
        tried.follow(&host);
        let watch = upstreams.watch(&host);
        let result = once(worker, upstreams, &host, head, body.take().unwrap_or_default(), onward, record).await;
        if let Some(watch) = watch {
            watch.end(feedback::failure(result.as_ref().map(|sent| &sent.response).map_err(|failed| &failed.error)));
        }
        let mut another = || {
            hosts += 1;
            tried.hosts.push(host.key().clone());
            (hosts < MAX_HOSTS).then(|| upstreams.pick_beside(&tried.hosts, &second)).flatten()
        };
        match result {
            Ok(sent) => {
                record.attempt_answered(&sent.response, is_marked(upstreams, &sent));
                guard.answered(&sent.response);
                if host.is_checked() && sent.response.headers().contains_key(IMMEDIATE_FAIL) {
                    host.alarm(Instant::now());
                }
                if !application_unreachable(&sent) {
                    host.mark_reachable();
                    if !sent.response.status().is_server_error() {
                        host.admit();
                    }
                    return Ok(Sent { guard: std::mem::take(guard), ..sent });
                }
                host.mark_unreachable(Instant::now());
                match another().filter(|_| repeatable && guard.may_retry()) {
                    Some(host) => next = host,
                    None => return Ok(Sent { guard: std::mem::take(guard), ..sent }), // Its sidecar has already said why.
                }
                record.attempt_over("application_unreachable");
                record.trace_event("retry", "application_unreachable");
                record.step("another_host", "connect_failure");
                worker.shared.telemetry.metrics.upstream_retry("application_unreachable");
            }
            Err(Failed { error, unsent }) => {
                if error.never_sent() {
                    host.mark_unreachable(Instant::now());
                }
                guard.failed(&error);
                record.attempt_over(error.reason().code);
                let Some(host) = another().filter(|_| unsent.is_some() && guard.may_retry()) else {
                    return Err(Failed { error, unsent });
                };
                record.trace_event("retry", error.reason().code);
                record.step("another_host", error.reason().code);
                tracing::debug!(%error, "trying another host");
                worker.shared.telemetry.metrics.upstream_retry(error.reason().code);
                next = host;
                body = unsent;
            }
        }
    }
}

/// One try with one host. A kept connection that turns out to be closed is replaced, once.
async fn once(
    worker: &Worker,
    upstreams: &Upstreams,
    host: &Arc<Host>,
    head: &Head,
    mut body: Body,
    onward: Option<Onward>,
    record: &mut Record,
) -> Result<Sent, Failed> {
    let (deadline, keep) = (upstreams.connect_timeout(worker), upstreams.keep());
    let repeatable = body.is_empty();
    let in_flight = host.begin();
    let mut fresh = false;
    let mut refusals = 0;
    loop {
        let taken = match upstreams.version(host, head) {
            Version::Http1 => worker.pool.http1(host, fresh, deadline, keep).await.map(Lease::Http1),
            Version::Http2 => worker.pool.http2(host, deadline, keep).await.map(Lease::Http2),
        };
        let mut lease = match taken {
            Ok(lease) => lease,
            Err(error) => return Err(Failed { error, unsent: Some(body) }),
        };
        record.sending();
        let (sent, reused) = match &mut lease {
            Lease::Http1(lease) => (lease.send(traced(head.to_http1(body), onward)).await, lease.reused),
            Lease::Http2(lease) => {
                let request = traced(head.to_http2(host, body), onward);
                (lease.connection().send(request).await, lease.reused)
            }
        };
        let Unsent { error, body: unsent } = match sent {
            Ok(response) => {
                record.answered(class(response.status()));
                return Ok(Sent { response, host: Arc::clone(host), lease, in_flight, guard: Guard::default() });
            }
            Err(unsent) => unsent,
        };
        let refused = was_refused(&error);
        record.failed_to_answer(if refused { "upstream_refused" } else { "upstream_reset" });
        let again = if refused { refusals < MAX_REFUSALS } else { reused && !fresh };
        body = match unsent {
            Some(unsent) if again => unsent,
            None if again && repeatable && (refused || may_repeat(&error, &head.method)) => Body::default(),
            unsent if refused => return Err(Failed { error: ProxyError::UpstreamRefused(host.dial()), unsent }),
            unsent => return Err(Failed { error: verdict(&error, host, reused), unsent }),
        };
        worker.shared.telemetry.metrics.upstream_retry(if refused { "refused" } else { "idle_race" });
        refusals += u32::from(refused);
        fresh |= !refused;
    }
}

/// The request with our hop's span as the parent of what comes next.
fn traced(mut request: Request<Body>, onward: Option<Onward>) -> Request<Body> {
    if let Some(onward) = onward {
        onward.write(request.headers_mut());
    }
    request
}

/// Is the request's trace to be kept, as another sidecar says, or our application?
fn is_marked(upstreams: &Upstreams, sent: &Sent) -> bool {
    let is_believed = sent.host.key().mesh.is_some() || matches!(upstreams, Upstreams::Application(_));
    is_believed && sent.response.headers().get(TRACE).is_some_and(|mark| mark == TRACE_KEEP)
}

/// The class of a status, as a label.
fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}

/// Did the host's sidecar answer in its stead, because it could not reach it? To gRPC it says so in a 200.
pub(super) fn application_unreachable(sent: &Sent) -> bool {
    sent.host.key().mesh.is_some()
        && sent
            .response
            .headers()
            .get(REASON)
            .is_some_and(|reason| matches!(reason.as_bytes(), b"connect_failure" | b"connect_timeout"))
}

/// May a request without a body that was perhaps written be sent once more?
///
/// When the connection is gone, the request is idempotent and no answer began (RFC 9110, section 9.2.2). A stream
/// that was reset is an answer.
fn may_repeat(error: &HttpError, method: &Method) -> bool {
    let is_gone = match error {
        HttpError::Http1(error) => !error.is_parse() && !error.is_user(),
        HttpError::Http2(error) => !error.is_reset(),
        HttpError::Io(_) | HttpError::Lost => true,
    };
    method.is_idempotent() && is_gone
}

/// Does the peer say that it did not look at the request (RFC 9113, sections 6.8 and 8.7)? A peer that retires a
/// connection says so of all that was sent after the last request that it took.
fn was_refused(error: &HttpError) -> bool {
    let HttpError::Http2(error) = error else { return false };
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => error.is_reset(),
        Some(h2::Reason::NO_ERROR) => error.is_go_away() && error.is_remote(),
        _ => false,
    }
}

fn verdict(error: &HttpError, host: &Host, reused: bool) -> ProxyError {
    let (address, detail) = (host.dial(), error.detail());
    let (is_ours, is_broken, may_be_idle) = match error {
        HttpError::Http1(error) => (error.is_user(), error.is_parse(), !error.is_body_write_aborted()),
        HttpError::Http2(error) => (
            is_our_reset(error),
            error.reason().is_some_and(|reason| BROKEN.contains(&reason)),
            error.reason().is_none(),
        ),
        HttpError::Io(_) | HttpError::Lost => (false, false, true),
    };
    if is_ours {
        return ProxyError::ClientGone; // Only the body that we pass on can fail so.
    }
    if is_broken {
        return ProxyError::UpstreamProtocol { address, detail };
    }
    if reused && may_be_idle {
        return ProxyError::IdleRace(address);
    }
    ProxyError::UpstreamReset { address, detail }
}

/// What HTTP/2 calls a peer that breaks its rules.
const BROKEN: [h2::Reason; 3] =
    [h2::Reason::PROTOCOL_ERROR, h2::Reason::FRAME_SIZE_ERROR, h2::Reason::COMPRESSION_ERROR];

/// A stream is reset when the body that we send in it fails.
fn is_our_reset(error: &h2::Error) -> bool {
    error.is_reset() && !error.is_remote() && !error.is_library()
}

/// Notes the host that is tried next; outbound, it is the other end.
pub(super) fn note(record: &mut Record, host: &Host) {
    record.attempts += 1;
    record.upstream = Some(host.address());
    if record.direction == "outbound" {
        record.proven_end(host.peer());
    }
}

impl Tried {
    /// None yet; those that are tried are noted as soon as they are picked.
    pub(super) fn followed() -> Self {
        Self { is_followed: true, ..Self::default() }
    }

    fn follow(&mut self, host: &Arc<Host>) {
        if self.is_followed {
            self.last = Some(Arc::clone(host));
        }
    }

    /// The try is over, however it ended.
    pub(super) fn leave(&mut self) {
        let last = self.last.take().map(|host| host.key().clone());
        self.hosts.extend(last.filter(|last| !self.hosts.contains(last)));
    }
}

impl Upstreams {
    /// A host that has not been tried.
    pub(super) fn pick(&self, tried: &[HostKey]) -> Option<Arc<Host>> {
        self.pick_beside(tried, &Cell::new(None))
    }

    /// The same; `second` is set to the host that it was compared with.
    pub(super) fn pick_beside(&self, tried: &[HostKey], second: &Cell<Option<SocketAddr>>) -> Option<Arc<Host>> {
        match self {
            Self::Cluster(cluster, None) => cluster.upstream.pick_beside(tried, None, Instant::now, second),
            Self::Cluster(cluster, Some(affinity)) => {
                if let Some(bound) = &affinity.session
                    && let Some(address) = bound.pinned
                {
                    let strict = bound.rules.strict;
                    let host = cluster.upstream.session_host(address, strict, Instant::now);
                    let host = host.filter(|host| !tried.contains(host.key()));
                    if host.is_some() || strict {
                        return host;
                    }
                }
                cluster.upstream.pick_beside(tried, affinity.hash, Instant::now, second)
            }
            Self::Application(port) => {
                let untried = || port.hosts.iter().filter(|host| !tried.contains(host.key()));
                untried().find(|host| host.is_usable(Instant::now)).or_else(|| untried().next()).cloned()
            }
            Self::Unknown(host) => tried.is_empty().then(|| Arc::clone(host)),
        }
    }

    /// Is only one host good enough?
    pub(super) fn is_strict(&self) -> bool {
        let Self::Cluster(_, Some(affinity)) = self else { return false };
        affinity.session.as_ref().is_some_and(|bound| bound.rules.strict && bound.pinned.is_some())
    }

    /// For messages.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Cluster(cluster, _) => &cluster.config.name,
            Self::Application(_) => "application",
            Self::Unknown(_) => UNKNOWN,
        }
    }

    /// Measures the next answer of `host`, if the balancer wants to know.
    pub(super) fn watch(&self, host: &Arc<Host>) -> Option<Watch> {
        match self {
            Self::Cluster(cluster, _) => host.watch(cluster.config.lb.policy),
            Self::Application(_) | Self::Unknown(_) => None,
        }
    }

    /// Does anything keep the call with others?
    pub(super) fn has_affinity(&self) -> bool {
        matches!(self, Self::Cluster(_, Some(_)))
    }

    /// Gives the client what it comes back with, of which `host` was to answer.
    pub(super) fn give_cookie(&self, worker: &Worker, host: &Host, headers: &mut HeaderMap, record: &Record) {
        let Self::Cluster(_, Some(affinity)) = self else { return };
        if let Some(cookie) = &affinity.cookie {
            headers.append(SET_COOKIE, cookie.clone());
        }
        session::give(worker, self, host, headers, record);
    }

    /// Longest wait for a connection, TLS included.
    pub(super) fn connect_timeout(&self, worker: &Worker) -> Duration {
        match self {
            Self::Cluster(cluster, _) => cluster.config.connect_timeout,
            Self::Application(_) | Self::Unknown(_) => worker.shared.settings.timeouts.connect,
        }
    }

    /// How long its connections are kept.
    fn keep(&self) -> Keep {
        match self {
            Self::Cluster(cluster, _) => cluster.config.keep,
            Self::Application(_) | Self::Unknown(_) => Keep::default(),
        }
    }

    /// The version to speak with `host`: HTTP/2 between sidecars, else what is configured, else what the client spoke.
    pub(super) fn version(&self, host: &Host, head: &Head) -> Version {
        if host.key().mesh.is_some() {
            return Version::Http2;
        }
        match self {
            Self::Cluster(cluster, _) => match cluster.config.protocol {
                UpstreamProtocol::Http1 => Version::Http1,
                UpstreamProtocol::Http2 => Version::Http2,
                UpstreamProtocol::Downstream => head.client_version,
            },
            Self::Application(port) => match port.config.protocol {
                AppProtocol::Http1 | AppProtocol::Tcp | AppProtocol::Tls => Version::Http1,
                AppProtocol::Http2 => Version::Http2,
                AppProtocol::Auto => head.client_version,
            },
            Self::Unknown(_) => head.client_version,
        }
    }
}
