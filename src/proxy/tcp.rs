//! Opaque TCP: the same order as a request, without routes and headers.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode, Uri};
use pillion_wire::mesh::REASON_HEADER;
use pillion_wire::spiffe::SpiffeId;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Worker;
use super::attempt::{self, Lease, Upstreams};
use super::guard::{self, Guard};
use super::tunnel::{End, Tunnel};
use crate::config::{Keep, Lasts};
use crate::error::ProxyError;
use crate::net::{Lifetime, Phase, Replay, Transport, reset_on_close};
use crate::route::{Affinity, connection_affinity};
use crate::snapshot::{InboundPort, Split, Target};
use crate::telemetry::Record;
use crate::upstream::{Host, HostKey, InFlight, Kind};

/// A connection to a host, or a tunnel to one behind its sidecar.
#[derive(Debug)]
pub(super) struct Opened {
    end: End,
    in_flight: InFlight,
    guard: Guard,
    lease: Option<Lease>,
    lifetime: Option<Box<Lifetime>>,
}

impl Opened {
    /// Both ends together.
    pub(super) fn join(self, downstream: End) -> Box<Tunnel> {
        Box::new(Tunnel {
            downstream,
            upstream: self.end,
            in_flight: self.in_flight,
            guard: self.guard,
            lease: self.lease,
            lifetime: self.lifetime,
        })
    }

    /// Waits until the host has said something, or closed.
    ///
    /// # Cancel safety
    /// What was read is kept for whoever copies.
    pub(super) async fn speaks(&mut self) {
        self.end.readable().await;
    }
}

/// From our application, on a port bound to `target`.
pub(super) async fn outbound(
    worker: &Arc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    target: &Target,
    split: &Split,
) {
    let mut record = begin(worker, "outbound", address);
    record.destination = Arc::clone(target.label());
    record.chose(&target.chosen, None);
    // Boxed, as what comes of it: over before the connection is of use.
    let opened = Box::pin(async {
        let (upstreams, lasts) = choose(split, &mut record);
        open(worker, &upstreams, lasts, &mut record).await.map(Box::new)
    });
    match opened.await {
        Ok(opened) => {
            let downstream = End::Stream(Transport::Accepted(Replay::new(stream)));
            opened.join(downstream).run(record, Phase::default().begin()).await;
        }
        Err(error) => {
            refuse(&error, &mut record);
            reset_on_close(&stream);
        }
    }
}

/// To our application, from a caller that has been let in.
pub(super) async fn inbound(
    worker: &Arc<Worker>,
    downstream: End,
    address: SocketAddr,
    served: &Arc<InboundPort>,
    peer: Option<&SpiffeId>,
) {
    let Some((mut record, opened)) = open_application(worker, address, served).await else { return };
    record.other_end(peer);
    opened.join(downstream).run(record, Phase::default().begin()).await;
}

/// A connection to our application, and the story of what it is for. `None`: it could not be made, and that is told.
pub(super) async fn open_application(
    worker: &Arc<Worker>,
    address: SocketAddr,
    served: &Arc<InboundPort>,
) -> Option<(Box<Record>, Opened)> {
    let mut record = begin(worker, "inbound", address);
    super::inbound::note(&mut record, served);
    let application = Upstreams::Application(Arc::clone(served));
    match Box::pin(open(worker, &application, Lasts::default(), &mut record)).await {
        Ok(opened) => Some((record, opened)),
        Err(error) => {
            refuse(&error, &mut record);
            None
        }
    }
}

/// The cluster that the next connection goes to, and how long it may last.
pub(super) fn choose(split: &Split, record: &mut Record) -> (Upstreams, Lasts) {
    let cluster = split.pick(rand::random());
    record.cluster = Arc::clone(cluster.upstream.name());
    let hash = connection_affinity(split.hash(), record.downstream.ip());
    let affinity = hash.map(|hash| Box::new(Affinity { hash: Some(hash), ..Affinity::default() }));
    (Upstreams::Cluster(Arc::clone(cluster), affinity), split.lasts())
}

/// Connects to a host of `upstreams`; to the next one when that fails, since nothing has been sent yet. What may pass
/// between the two for as long as `lasts` says begins when it is open.
///
/// # Cancel safety
/// What was being opened is closed.
pub(super) async fn open(
    worker: &Worker,
    upstreams: &Upstreams,
    lasts: Lasts,
    record: &mut Record,
) -> Result<Opened, ProxyError> {
    let mut tried: Vec<HostKey> = Vec::new();
    let mut guard = Box::pin(Guard::enter(worker, upstreams, Kind::Connection)).await?;
    let mut last = None;
    let mut failed = None;
    while tried.len() < attempt::MAX_HOSTS {
        let second = Cell::new(None);
        let Some(host) = upstreams.pick_beside(&tried, &second) else { break };
        if let Some((host, cause)) = failed.take() {
            record.step_at(Some(host), "another_host", cause); // Now that there is another.
        }
        tried.push(host.key().clone());
        if let Err(denied) = guard.admit(&host) {
            record.trace_event("endpoint_denied", denied.reason().code);
            record.step_at(Some(host.address()), "passed_over", denied.reason().code);
            last = Some(denied);
            continue;
        }
        attempt::note(record, &host);
        record.decisions.other_host = second.take();
        // Boxed: it is large, and over before the connection is of use.
        let watch = upstreams.watch(&host);
        let result = Box::pin(once(worker, upstreams, &host)).await;
        if let Some(watch) = watch {
            watch.end(result.is_err().then_some(Duration::ZERO));
        }
        match result {
            Ok(opened) => {
                host.mark_reachable();
                guard.connected();
                let until = lasts.most.and_then(|most| Instant::now().checked_add(most));
                return Ok(Opened { guard, lifetime: Lifetime::new(lasts.idle, until), ..opened });
            }
            Err(error) => {
                if error.never_sent() {
                    host.mark_unreachable(Instant::now());
                }
                guard.failed(&error);
                record.trace_event("retry", error.reason().code);
                failed = Some((host.address(), error.reason().code));
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| guard::no_host(worker, upstreams, Kind::Connection)))
}

async fn once(worker: &Worker, upstreams: &Upstreams, host: &Arc<Host>) -> Result<Opened, ProxyError> {
    let in_flight = host.begin();
    let deadline = upstreams.connect_timeout(worker);
    if host.key().mesh.is_none() {
        let transport = worker.pool.dial(host, deadline).await?;
        return Ok(Opened {
            end: End::Stream(transport),
            in_flight,
            guard: Guard::default(),
            lease: None,
            lifetime: None,
        });
    }
    let address = host.key().dial();
    let lease = worker.pool.http2(host, deadline, Keep::default()).await?;
    let (response, tunnel) = lease
        .connection()
        .connect(connect_request(host))
        .await
        .map_err(|error| ProxyError::UpstreamReset { address, detail: error.detail() })?;
    if response.status() != StatusCode::OK {
        let reason = response.headers().get(REASON_HEADER).map(http::HeaderValue::as_bytes);
        return Err(match reason {
            Some(b"connect_failure" | b"connect_timeout") => ProxyError::Connect {
                address: host.key().address,
                source: std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "its sidecar cannot reach it"),
            },
            _ => ProxyError::TunnelRefused { address, status: response.status() },
        });
    }
    Ok(Opened {
        end: End::tunnel(tunnel),
        in_flight,
        guard: Guard::default(),
        lease: Some(Lease::Http2(lease)),
        lifetime: None,
    })
}

/// `CONNECT ip:port` with the application's own address, as HBONE has it.
pub(super) fn connect_request(host: &Host) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    // An IP address and a port are always an authority.
    *request.uri_mut() = host.key().address.to_string().parse::<Uri>().unwrap_or_default();
    *request.version_mut() = http::Version::HTTP_2;
    request
}

/// Carries bytes both ways, or says why there is nobody to carry them to.
pub(super) async fn join(
    stream: Replay<TcpStream>,
    opened: Option<Result<Opened, ProxyError>>,
    mut record: Box<Record>,
) {
    match opened {
        Some(Ok(opened)) => {
            opened.join(End::Stream(Transport::Accepted(stream))).run(record, Phase::default().begin()).await;
        }
        Some(Err(error)) => {
            refuse(&error, &mut record);
            reset_on_close(stream.get_ref());
        }
        None => record.forget(),
    }
}

/// The story of a connection.
pub(super) fn begin(worker: &Worker, direction: &'static str, address: SocketAddr) -> Box<Record> {
    let mut record = Box::new(Record::begin(&worker.recorder, direction, address));
    "TCP".clone_into(&mut record.method);
    record.is_tcp = true;
    record.begin_connection_trace();
    record
}

/// Notes why a connection comes to nothing.
pub(super) fn refuse(error: &ProxyError, record: &mut Record) {
    let reason = error.reason();
    record.fail(reason.code, reason.flag, error.to_string());
}
