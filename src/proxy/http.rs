//! One request, in the order in which things happen.

use std::pin::Pin;
use std::sync::Arc;

use http::header::{SERVER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, request};

use super::attempt::{self, Sent, Tried, Upstreams};
use super::authority::Authority;
use super::call::Call;
use super::client::{Client, Way};
use super::message::{Head, REASON};
use super::reply::{self, ReplyBody};
use super::tunnel::{self, Tunnel};
use super::{Worker, inbound, outbound, retry};
use crate::config::Treatment;
use crate::error::ProxyError;
use crate::http::{Body, Switch, clean_response};
use crate::net::Serving;
use crate::resilience::joined::{Facts, Member};
use crate::telemetry::Record;

/// Reason code of an answer that a route prescribes.
const DIRECT_RESPONSE: &str = "direct_response";

/// What was decided for a request.
pub(super) enum Plan {
    /// Send it there, as the route says.
    Forward(Upstreams, Option<Arc<Treatment>>),
    /// Answer at once, as the route says.
    Answer {
        /// Status to answer with.
        status: StatusCode,
        /// Body, often empty.
        body: String,
    },
}

/// What became of a request.
pub(super) enum Outcome {
    /// A response; the request is over with its body.
    Reply(Response<ReplyBody>),
    /// A response after which the connection or stream carries bytes of another protocol.
    Switched(Response<ReplyBody>, Box<Tunnel>),
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
    let outcome = if request.method() == Method::CONNECT {
        Box::pin(tunnel::connect(&client, request, switch, &mut record)).await
    } else {
        forward(&client, request, switch, &mut record).await
    };
    let mut response = match outcome {
        Ok(Outcome::Reply(response)) => response,
        Ok(Outcome::Switched(response, tunnel)) => {
            record.status = response.status().as_u16();
            client.worker.shared.drain.spawn(tunnel.run(record, serving));
            return response;
        }
        Err(error) => reply::failure(&error, is_grpc, &mut record),
    };
    record.status = response.status().as_u16();
    *response.version_mut() = Version::HTTP_11; // Which version goes out is a matter of the connection.
    response.map(|body| body.finish_with(record, serving))
}

async fn forward(
    client: &Client,
    request: Request<Body>,
    switch: Switch,
    record: &mut Record,
) -> Result<Outcome, ProxyError> {
    let (parts, body) = request.into_parts();
    let worker = &client.worker;
    let authority = Authority::of(&parts);
    let plan = match &client.way {
        Way::Outbound => {
            let destination = client.destination(authority.as_ref().map_err(|why| ProxyError::BadAuthority(why))?)?;
            outbound::plan(worker, &destination, &parts, record).await?
        }
        Way::Bound(destination) => outbound::plan(worker, destination, &parts, record).await?,
        Way::Mesh(_) | Way::Front { .. } => inbound::plan(client, &parts, record)?,
    };
    let (upstreams, treatment) = match plan {
        Plan::Forward(upstreams, treatment) => (upstreams, treatment),
        Plan::Answer { status, body } => return Ok(Outcome::Reply(answer(status, body, record))),
    };
    let mut head = head(client, parts, authority.map_err(ProxyError::BadAuthority)?)?;
    if head.upgrade.is_some() {
        let upgrade = tunnel::upgrade(client, &upstreams, &head, body, switch, record);
        return Box::pin(upgrade).await;
    }
    let is_inbound = matches!(client.way, Way::Mesh(_) | Way::Front { .. });
    let member = if is_inbound { join(worker, &head, record) } else { None };
    let call = if is_inbound { None } else { Call::of(worker, treatment, &head, record.started()) };
    let Some(call) = call else {
        let sent = attempt::send(worker, &upstreams, &head, body, &mut Tried::default(), record).await?;
        return reply(sent, record).map(|reply| Outcome::Reply(reply.map(|body| body.joined(member))));
    };
    let sent = Box::pin(retry::send(worker, &call, &upstreams, &mut head, body, record)).await?;
    let limits = call.limits();
    reply(sent, record).map(|reply| Outcome::Reply(reply.map(|body| body.limited(limits))))
}

/// Keeps an inbound request, with what its caller's sidecar said of it, for the calls that belong to it.
fn join(worker: &Worker, head: &Head, record: &Record) -> Option<Member> {
    let deadline = head.caller.timeout.and_then(|left| record.started().checked_add(left));
    worker.shared.joined.enter(&head.headers, Facts { deadline, is_retry: head.caller.is_retry })
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
    let Sent { response, host, lease, in_flight } = sent;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let detail = "it switched protocols unasked".to_owned();
        return Err(ProxyError::UpstreamProtocol { address: host.key().dial(), detail });
    }
    let (mut parts, body) = response.into_parts();
    clean(&mut parts.headers, host.key().mesh.is_some(), record);
    Ok(Response::from_parts(parts, ReplyBody::upstream(body, lease, in_flight)))
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

/// A response that the route itself asks for.
fn answer(status: StatusCode, body: String, record: &mut Record) -> Response<ReplyBody> {
    record.fail(DIRECT_RESPONSE, "", "the route says to answer so".to_owned());
    let mut response = Response::new(ReplyBody::local(Body::full(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("pillion"));
    headers.insert(REASON, HeaderValue::from_static(DIRECT_RESPONSE));
    response
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
    if recorder.has_access_log() {
        request.method().as_str().clone_into(&mut record.method);
        request.uri().path().clone_into(&mut record.path);
        record.authority = match request.uri().authority() {
            Some(authority) => authority.to_string(),
            None => request
                .headers()
                .get(http::header::HOST)
                .map_or_else(String::new, |host| String::from_utf8_lossy(host.as_bytes()).into_owned()),
        };
    }
    record
}
