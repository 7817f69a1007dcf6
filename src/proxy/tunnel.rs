//! Two byte streams joined: `CONNECT`, upgraded connections, opaque TCP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::attempt::{self, Lease, Upstreams};
use super::client::{Client, Way};
use super::guard::Guard;
use super::http::{self as walk, Outcome};
use super::message::{Head, UPGRADE_HEADER};
use super::reply::ReplyBody;
use super::{inbound, outbound, tcp};
use crate::config::{Lasts, Treatment};
use crate::error::ProxyError;
use crate::http::{Body, Duplex, Http2Tunnel, Switch, duplex};
use crate::net::{self, Broken, Copied, Expired, Lifetime, Replay, Serving, Transport, copy, reset_on_close};
use crate::telemetry::Record;
use crate::upstream::{InFlight, Kind};

/// One end of a tunnel, perhaps not open yet.
#[derive(Debug)]
pub(super) enum End {
    /// A connection.
    Stream(Transport),
    /// What becomes of an HTTP connection or stream once its response is out.
    Switch(Switch),
    /// A pair of bodies.
    Bodies(Box<Duplex>),
    /// One of the others, open already, and perhaps read from.
    Open(Box<Replay<Stream>>),
}

/// Both ends, and what has to last as long as they do.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// The client's end.
    pub(super) downstream: End,
    /// The host's end.
    pub(super) upstream: End,
    /// Counts the tunnel as in flight.
    pub(super) in_flight: InFlight,
    /// Its places within limits.
    pub(super) guard: Guard,
    /// The place on the upstream connection.
    pub(super) lease: Option<Lease>,
    /// How long it may last; `None`: as long as it likes.
    pub(super) lifetime: Option<Box<Lifetime>>,
}

impl Tunnel {
    /// Copies both ways until both ends are done. A failure of one end is a reset of the other.
    pub(super) async fn run(self: Box<Self>, mut record: Box<Record>, serving: Serving) {
        let Self { downstream, upstream, in_flight, guard, lease, lifetime } = *self;
        let open = async { (downstream.open().await, upstream.open().await) };
        let (mut downstream, mut upstream) = match Box::pin(open).await {
            (Ok(downstream), Ok(upstream)) => (downstream, upstream),
            (Err(error), _) => return record.fail("client_gone", "DC", error.to_string()),
            (_, Err(error)) => return record.fail("upstream_reset", "UC", error.to_string()),
        };
        record.opened();
        let flow = record.open_flow();
        let progress = |copied: Copied| {
            if let Some(flow) = &flow {
                flow.set(copied.forward, copied.backward);
            }
        };
        // Boxed: what every open connection is made of stays small.
        let (copied, result) = Box::pin(copy(&mut *downstream, &mut *upstream, lifetime, progress)).await;
        progress(copied);
        drop(flow);
        record.bytes_received = copied.forward;
        record.bytes_sent = copied.backward;
        if let Err(broken) = result {
            match broken {
                Broken::Failed(error) => record.fail("stream_reset", "UC", error.to_string()),
                Broken::Expired(Expired::Idle) => tcp::refuse(&ProxyError::StreamIdle, &mut record),
                Broken::Expired(Expired::Over) => tcp::refuse(&ProxyError::MaxDuration, &mut record),
            }
            downstream.get_mut().reset();
            upstream.get_mut().reset();
        }
        drop((in_flight, guard, lease, serving)); // Not before the last byte.
    }
}

/// `CONNECT`: from our application to a destination, or from a sidecar to our application.
pub(super) async fn connect(
    client: &Client,
    request: Request<Body>,
    switch: Switch,
    record: &mut Record,
) -> Result<Outcome, ProxyError> {
    let (parts, _body) = request.into_parts();
    let worker = &client.worker;
    "TCP".clone_into(&mut record.method);
    record.is_tcp = true;
    record.begin_connection_trace();
    let (upstreams, lasts) = match &client.way {
        Way::Outbound => {
            let destination = outbound::destination(&parts)?;
            let target = outbound::target(worker, &destination).await?;
            record.destination = std::sync::Arc::clone(target.label());
            let split = target.tcp.as_ref().ok_or(ProxyError::WrongProtocol(destination, "CONNECT (opaque TCP)"))?;
            tcp::choose(split, record)
        }
        Way::Mesh(_) => {
            let served = inbound::tunnel_port(client, &parts, record)?;
            (Upstreams::Application(served), Lasts::default())
        }
        Way::Bound(_) | Way::Front { .. } => return Err(ProxyError::BadRequest("CONNECT is not served on this port")),
    };
    let opened = tcp::open(worker, &upstreams, lasts, record).await?;
    Ok(Outcome::Switched(Response::new(ReplyBody::local(Body::default())), opened.join(End::Switch(switch))))
}

/// A request that asks to change the protocol. When the upstream declines, its answer is passed on as any other.
pub(super) async fn upgrade(
    client: &Client,
    upstreams: &Upstreams,
    head: &Head,
    body: Body,
    switch: Switch,
    treatment: Option<&Treatment>,
    record: &mut Record,
) -> Result<Outcome, ProxyError> {
    let (to_upstream, upstream_duplex) = duplex();
    let mut guard = Guard::enter(&client.worker, upstreams, Kind::Request).await?;
    let mut tried = attempt::Tried::default();
    let sent = attempt::send(&client.worker, upstreams, head, to_upstream, &mut tried, &mut guard, record).await;
    let sent = sent.map_err(|failed| failed.error)?;
    let from_sidecar = sent.host.key().mesh.is_some();
    let agreed = sent.response.status() == StatusCode::SWITCHING_PROTOCOLS
        || (from_sidecar && sent.response.headers().contains_key(&UPGRADE_HEADER));
    let Some(token) = head.upgrade.clone().filter(|_| agreed) else {
        let host = std::sync::Arc::clone(&sent.host);
        let mut response = walk::reply(sent, record)?;
        upstreams.give_cookie(&client.worker, &host, response.headers_mut(), record);
        return Ok(Outcome::Reply(response));
    };
    let mut response = sent.response;
    let switched = hyper::upgrade::on(&mut response);
    let (mut parts, incoming) = response.into_parts();
    walk::clean(&mut parts.headers, from_sidecar, record);
    upstreams.give_cookie(&client.worker, &sent.host, &mut parts.headers, record);
    let upstream = if from_sidecar {
        End::Bodies(Box::new(upstream_duplex(incoming)))
    } else {
        End::Switch(Switch::Dialled(switched))
    };
    let (downstream, to_client) = if matches!(client.way, Way::Mesh(_)) {
        parts.status = StatusCode::OK;
        parts.headers.insert(UPGRADE_HEADER, token);
        let (to_client, downstream_duplex) = duplex();
        (End::Bodies(Box::new(downstream_duplex(body))), to_client)
    } else {
        parts.status = StatusCode::SWITCHING_PROTOCOLS;
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, token);
        (End::Switch(switch), Body::default())
    };
    parts.version = http::Version::HTTP_11;
    let tunnel = Box::new(Tunnel {
        downstream,
        upstream,
        in_flight: sent.in_flight,
        guard: sent.guard,
        lease: Some(sent.lease),
        lifetime: treatment.and_then(|treatment| lifetime(treatment, record.started())),
    });
    Ok(Outcome::Switched(Response::from_parts(parts, ReplyBody::local(to_client)), tunnel))
}

/// What a route says of streams holds for one that has changed its protocol, too (Envoy).
fn lifetime(treatment: &Treatment, received: Instant) -> Option<Box<Lifetime>> {
    let until = treatment.max_duration.and_then(|most| received.checked_add(most));
    Lifetime::new(treatment.stream_idle, until)
}

impl End {
    /// A tunnel through a sidecar.
    pub(super) fn tunnel(tunnel: Http2Tunnel) -> Self {
        Self::Open(Box::new(Replay::new(Stream::Http2(tunnel))))
    }

    async fn open(self) -> io::Result<Box<Replay<Stream>>> {
        let stream = match self {
            Self::Stream(transport) => Stream::Transport(Replay::new(transport)),
            Self::Switch(switch) => Stream::switched(switch).await?,
            Self::Bodies(bodies) => Stream::Bodies(bodies),
            Self::Open(stream) => return Ok(stream),
        };
        Ok(Box::new(Replay::new(stream)))
    }

    /// Waits until there is something to read: bytes, the end, or an error, which show again when it is read from.
    ///
    /// # Cancel safety
    /// What was read is kept.
    pub(super) async fn readable(&mut self) {
        match self {
            Self::Stream(transport) => drop(transport.tcp().readable().await),
            Self::Open(stream) => stream.fill().await,
            Self::Bodies(_) | Self::Switch(_) => {} // Nothing to wait for.
        }
    }
}

/// An end that is open.
#[derive(Debug)]
pub(super) enum Stream {
    Transport(Replay<Transport>),
    Http2(Http2Tunnel),
    Bodies(Box<Duplex>),
}

impl Stream {
    async fn switched(switch: Switch) -> io::Result<Self> {
        match switch {
            Switch::Accepted(connection) => connection.await.map(Self::Transport).map_err(io::Error::other),
            Switch::Dialled(upgrade) => upgrade.await.map_err(io::Error::other).and_then(Self::dialled),
            Switch::Http2(tunnel) => tunnel.await.map(Self::Http2).map_err(io::Error::other),
            Switch::None => Err(io::Error::other("this request cannot change the protocol")),
        }
    }

    /// The connection that hyper's HTTP/1.1 has left to us.
    fn dialled(upgraded: Upgraded) -> io::Result<Self> {
        match upgraded.downcast::<TokioIo<Transport>>() {
            Ok(parts) => Ok(Self::Transport(Replay::after(parts.read_buf, parts.io.into_inner()))),
            Err(_other) => Err(io::Error::other("this connection is none of ours")),
        }
    }

    /// Makes dropping it a reset.
    fn reset(&mut self) {
        match self {
            Self::Transport(transport) => reset_on_close(transport.get_ref().tcp()),
            Self::Http2(tunnel) => tunnel.reset(),
            Self::Bodies(bodies) => bodies.abort(),
        }
    }
}

macro_rules! each {
    ($self:expr, $stream:ident => $do:expr) => {
        match $self.get_mut() {
            Self::Transport($stream) => $do,
            Self::Http2($stream) => $do,
            Self::Bodies($stream) => $do,
        }
    };
}

impl net::Stream for Stream {
    fn hands_over(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match self {
            Self::Http2(tunnel) => tunnel.poll_bytes(cx),
            Self::Transport(_) | Self::Bodies(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    fn takes_over(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    fn poll_write_bytes(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        match self {
            Self::Http2(tunnel) => tunnel.poll_write_bytes(cx, bytes),
            Self::Transport(_) | Self::Bodies(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
