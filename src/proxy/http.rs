//! One request, in the order in which things happen.

use std::pin::Pin;
use std::sync::Arc;

use http::header::{LOCATION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, request};
use pillion_wire::mesh::TRACE_KEEP;

use super::attempt::{self, Sent, Tried, Upstreams};
use super::authority::Authority;
use super::call::Call;
use super::client::{Client, Way};
use super::filters::{Filtered, local};
use super::guard::Guard;
use super::message::{Head, REASON, TRACE};
use super::reply::{self, ReplyBody};
use super::shedding::Held;
use super::tunnel::{self, Tunnel};
use super::{Worker, fallback, global_rate_limit, inbound, outbound, retry};
use crate::config::Treatment;
use crate::error::ProxyError;
use crate::http::{Body, Switch, clean_response};
use crate::net::Serving;
use crate::policy::global_rate_limit::Told;
use crate::policy::rate_limit::Place;
use crate::resilience::joined::{Facts, Member};
use crate::snapshot::Fallback;
use crate::telemetry::{Flow, Record, method_label};
use crate::upstream::Kind;

/// Reason code of an answer that a route prescribes.
const DIRECT_RESPONSE: &str = "direct_response";
/// Reason code of a redirect that a route prescribes.
const REDIRECT: &str = "redirect";

/// What was decided for a request.
pub(super) enum Plan {
    /// Send it there, as the route says.
    Forward(Upstreams, Said),
    /// Answer at once, as the route says.
    Answer {
        /// Status to answer with.
        status: StatusCode,
        /// Body, often empty.
        body: String,
    },
    /// Send the client elsewhere, as the route says.
    Redirect {
        /// Status to answer with.
        status: StatusCode,
        /// Where it is to go.
        location: HeaderValue,
    },
}

/// What a route says of the way there; mostly nothing.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Where it goes if nobody can take it.
    pub(super) fallback: Option<Arc<Fallback>>,
    /// How long it may take, and when it is repeated.
    pub(super) treatment: Option<Arc<Treatment>>,
    /// What an inbound request holds of its port's limits.
    pub(super) places: Vec<Place>,
    /// What a rate-limit service adds to an inbound request and its answer.
    pub(super) told: Option<Box<Told>>,
    /// Its place among what our application can do at once.
    pub(super) held: Option<Box<Held>>,
}

impl Said {
    /// The request goes on with this content.
    fn begin(&mut self, upstreams: &Upstreams, head: &mut Head, body: Body) -> Body {
        match (&mut self.held, upstreams) {
            (Some(held), Upstreams::Application(port)) => held.begin(port, head, body),
            _ => body,
        }
    }

    /// A request to change the protocol is answered. One that is declined holds its places as any other.
    fn upgraded(mut self, mut outcome: Outcome) -> Outcome {
        if let Some(told) = &self.told {
            global_rate_limit::add(outcome.response().headers_mut(), &told.response);
        }
        match outcome {
            Outcome::Reply(response) => {
                if let Some(held) = &mut self.held {
                    held.answered(&response);
                }
                Outcome::Reply(response.map(|body| body.holding(self.places, self.held)))
            }
            Outcome::Switched(..) => {
                if let Some(held) = self.held {
                    held.switched();
                }
                outcome
            }
        }
    }
}

/// What became of a request.
pub(super) enum Outcome {
    /// A response; the request is over with its body.
    Reply(Response<ReplyBody>),
    /// A response after which the connection or stream carries bytes of another protocol.
    Switched(Response<ReplyBody>, Box<Tunnel>),
}

impl Outcome {
    fn response(&mut self) -> &mut Response<ReplyBody> {
        let (Self::Reply(response) | Self::Switched(response, _)) = self;
        response
    }
}

/// Serves one request. Never fails: a failure is a response that says why.
///
/// # Cancel safety
/// Dropped when the client goes away: the request to the upstream host is cancelled, and the record says so.
pub(super) fn serve(
    client: Arc<Client>,
    serving: Serving,
    request: Request<Body>,
    switch: Switch,
) -> Pin<Box<impl Future<Output = Response<ReplyBody>>>> {
    // Boxed here, since who serves the connection moves it about, and keeps the room while the connection is idle.
    Box::pin(walk(client, serving, request, switch))
}

async fn walk(client: Arc<Client>, serving: Serving, request: Request<Body>, switch: Switch) -> Response<ReplyBody> {
    let mut record = Box::new(begin(&client, &request));
    let is_grpc = reply::is_grpc(request.headers());
    record.is_grpc = is_grpc;
    let mut filters = Filtered::default();
    let outcome = if request.method() == Method::CONNECT {
        Box::pin(tunnel::connect(&client, request, switch, &mut record)).await
    } else {
        forward(&client, request, switch, &mut filters, &mut record).await
    };
    let mut response = match outcome {
        Ok(Outcome::Reply(response)) => response,
        Ok(Outcome::Switched(mut response, tunnel)) => {
            answered(&client, &mut response, &mut record);
            client.worker.shared.drain.spawn(tunnel.run(record, serving));
            return response;
        }
        Err(error) => {
            let mut response = reply::failure(&error, is_grpc, &mut record);
            filters.permit(response.headers_mut());
            response
        }
    };
    answered(&client, &mut response, &mut record);
    *response.version_mut() = Version::HTTP_11; // Which version goes out is a matter of the connection.
    response.map(|body| body.finish_with(record, serving))
}

async fn forward(
    client: &Client,
    request: Request<Body>,
    switch: Switch,
    filters: &mut Filtered,
    record: &mut Record,
) -> Result<Outcome, ProxyError> {
    let (parts, body) = request.into_parts();
    let worker = &client.worker;
    let authority = Authority::of(&parts);
    let (plan, found) = plan(client, &parts, authority.as_ref(), record).await?;
    *filters = found;
    if filters.route.is_some()
        && let Some(response) = Box::pin(filters.on_request(worker, &parts, record)).await?
    {
        return Ok(Outcome::Reply(response));
    }
    let (upstreams, mut said) = match plan {
        Plan::Forward(upstreams, said) => (upstreams, said),
        Plan::Answer { status, body } => {
            let response = local(status, DIRECT_RESPONSE, "the route says to answer so", Body::full(body), record);
            return Ok(Outcome::Reply(filters.on_answer(response)));
        }
        Plan::Redirect { status, location } => {
            let mut response = local(status, REDIRECT, "the route sends clients elsewhere", Body::default(), record);
            response.headers_mut().insert(LOCATION, location);
            return Ok(Outcome::Reply(filters.on_answer(response)));
        }
    };
    let mut head = head(client, parts, authority.map_err(ProxyError::BadAuthority)?)?;
    record.clean_trace(&mut head.headers);
    filters.on_head(&mut head, record)?;
    if let Some(told) = &said.told {
        global_rate_limit::add(&mut head.headers, &told.request);
    }
    let body = said.begin(&upstreams, &mut head, body);
    if head.upgrade.is_some() {
        let treatment = said.treatment.take();
        let outcome = Box::pin(upgrade(client, &upstreams, &head, body, switch, treatment, record)).await?;
        let mut outcome = said.upgraded(outcome);
        filters.on_response(outcome.response().headers_mut());
        return Ok(outcome);
    }
    let body = filters.copy(worker, &head, measured(body, record), record);
    let is_inbound = matches!(client.way, Way::Mesh(_) | Way::Front { .. });
    let member = if is_inbound { join(worker, &head, record) } else { None };
    let call = if is_inbound { None } else { Call::of(worker, said.treatment, &head, record) };
    record.decided();
    let sent = match (&said.fallback, &call) {
        (None, None) => {
            let since = record.waits_for_limit();
            let entered = Guard::enter(worker, &upstreams, Kind::Request).await;
            let mut guard = record.waited_for_limit(since, entered)?;
            let sent = attempt::send(worker, &upstreams, &head, body, &mut Tried::default(), &mut guard, record).await;
            sent.map_err(|failed| failed.error)?
        }
        // Rare, and large.
        (None, Some(call)) => {
            let sent = Box::pin(retry::send(worker, call, &upstreams, &mut head, body, record)).await;
            sent.map_err(|failed| failed.error)?
        }
        (Some(fallback), call) => {
            let way = fallback::Way { first: &upstreams, fallback, call: call.as_ref() };
            match Box::pin(fallback::send(worker, &way, &mut head, body, record)).await? {
                fallback::Answer::Sent(sent) => *sent,
                fallback::Answer::Prescribed(status, body, reason) => {
                    let response = local(status, reason, "the route says to answer so", Body::full(body), record);
                    return Ok(Outcome::Reply(filters.on_answer(response)));
                }
            }
        }
    };
    let host = upstreams.has_affinity().then(|| Arc::clone(&sent.host));
    let mut response = reply(sent, record)?;
    if let Some(host) = host {
        upstreams.give_cookie(worker, &host, response.headers_mut(), record);
    }
    if let Some(held) = &mut said.held {
        held.answered(&response);
    }
    filters.on_response(response.headers_mut());
    if let Some(told) = &said.told {
        global_rate_limit::add(response.headers_mut(), &told.response);
    }
    let limits = call.and_then(Call::limits);
    Ok(Outcome::Reply(response.map(|body| body.joined(member).limited(limits).holding(said.places, said.held))))
}

/// Counts what comes of a request's content, whatever its head says of that.
fn measured(body: Body, record: &mut Record) -> Body {
    if body.is_empty() {
        return body;
    }
    body.counted(record.flow.insert(Flow::default()), record.is_grpc)
}

/// What is to become of a request, and what is done to it on the way.
async fn plan(
    client: &Client,
    parts: &request::Parts,
    authority: Result<&Authority, &&'static str>,
    record: &mut Record,
) -> Result<(Plan, Filtered), ProxyError> {
    let from = client.address.ip();
    match &client.way {
        Way::Outbound => {
            let destination = client.destination(authority.map_err(|why| ProxyError::BadAuthority(why))?)?;
            outbound::plan(&client.worker, &destination, parts, from, record).await
        }
        Way::Bound(destination) => outbound::plan(&client.worker, destination, parts, from, record).await,
        Way::Mesh(_) | Way::Front { .. } => Ok((inbound::plan(client, parts, record).await?, Filtered::default())),
    }
}

/// A request that asks to change the protocol: until that is answered, it may take as long as any request.
async fn upgrade(
    client: &Client,
    upstreams: &Upstreams,
    head: &Head,
    body: Body,
    switch: Switch,
    treatment: Option<Arc<Treatment>>,
    record: &mut Record,
) -> Result<Outcome, ProxyError> {
    let is_inbound = matches!(client.way, Way::Mesh(_) | Way::Front { .. });
    let call = if is_inbound { None } else { Call::of(&client.worker, treatment.clone(), head, record) };
    let upgrade = tunnel::upgrade(client, upstreams, head, body, switch, treatment.as_deref(), record);
    match call {
        Some(call) => call.in_time(upgrade).await?,
        None => upgrade.await,
    }
}

/// Keeps an inbound request, with what its caller's sidecar said of it, for the calls that belong to it.
fn join(worker: &Worker, head: &Head, record: &Record) -> Option<Member> {
    let deadline = head.caller.timeout.and_then(|left| record.started().checked_add(left));
    worker.shared.joined.enter(
        |headers| record.is_of(headers),
        &head.headers,
        Facts { deadline, is_retry: head.caller.is_retry },
    )
}

/// The request as it goes on: cleaned, and for our application with the word of who called.
fn head(client: &Client, parts: request::Parts, authority: Authority) -> Result<Head, ProxyError> {
    let authority = match &client.way {
        // HTTP/2 has no requests without one (RFC 9113, section 8.3.1).
        Way::Bound(destination) if authority.as_str().is_empty() => Authority::from(destination),
        _ => authority,
    };
    // hyper takes `chunked` off; whatever else was applied would be forwarded as if it were the content.
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    if codings.next().is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
        || codings.next().is_some()
    {
        return Err(ProxyError::BadRequest("it has a transfer coding other than chunked"));
    }
    let mut head = Head::new(parts, authority, matches!(client.way, Way::Mesh(_)));
    if let Some(caller) = &client.caller {
        caller.tell(&mut head.headers, head.authority.as_str());
    }
    Ok(head)
}

/// An upstream response on its way back.
///
/// # Errors
/// When the host changes the protocol although nobody asked it to.
pub(super) fn reply(sent: Sent, record: &mut Record) -> Result<Response<ReplyBody>, ProxyError> {
    let Sent { response, host, lease, in_flight, guard } = sent;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let detail = "it switched protocols unasked".to_owned();
        return Err(ProxyError::UpstreamProtocol { address: host.dial(), detail });
    }
    let (mut parts, body) = response.into_parts();
    clean(&mut parts.headers, host.key().mesh.is_some(), record);
    Ok(Response::from_parts(parts, ReplyBody::upstream(body, lease, in_flight, guard)))
}

/// Removes what concerned the upstream connection. What a sidecar says of its own failure stays.
pub(super) fn clean(headers: &mut HeaderMap, from_mesh: bool, record: &mut Record) {
    let reason = from_mesh.then(|| headers.get(REASON).cloned()).flatten();
    clean_response(headers);
    if let Some(reason) = reason {
        record.fail(
            "peer_sidecar",
            "UC",
            format!("the peer's sidecar answered: {}", String::from_utf8_lossy(reason.as_bytes())),
        );
        headers.insert(REASON, reason);
    }
}

/// The answer is about to go out. A sidecar that waits for it is told when the spans of its request are to be kept.
fn answered(client: &Client, response: &mut Response<ReplyBody>, record: &mut Record) {
    record.status = response.status().as_u16();
    if record.answer_trace(response.headers()) && matches!(client.way, Way::Mesh(_)) {
        response.headers_mut().insert(TRACE, HeaderValue::from_static(TRACE_KEEP));
    }
}

fn begin(client: &Client, request: &Request<Body>) -> Record {
    let recorder = &client.worker.recorder;
    let mut record = Record::begin(recorder, client.way.direction(), client.address);
    record.protocol = match request.version() {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    record.proven_end(&client.peer);
    record.method_label = method_label(request.method());
    if request.method() != Method::CONNECT {
        record.begin_trace(request.headers());
    }
    record.hear(request.method(), request.uri(), request.headers());
    record
}
