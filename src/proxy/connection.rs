//! One accepted connection: find out what it speaks and who speaks it, then serve it.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pillion_wire::name::Destination;
use pillion_wire::spiffe::SpiffeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::attempt::Upstreams;
use super::client::{Client, Way};
use super::race::{Heard, Word, race};
use super::refused::{Refused, broken_protocol, tls_code};
use super::tcp::Opened;
use super::tunnel::End;
use super::{Worker, http, inbound, interception, tcp};
use crate::config::{Access, Age, AppProtocol, Lasts};
use crate::drain::Drain;
use crate::error::ProxyError;
use crate::http::{ServerSettings, serve as serve_http};
use crate::net::{Phase, Protocol, ReadAhead, Replay, Transport, reset_on_close};
use crate::snapshot::{InboundPort, Target};
use crate::tls::verify::{explained, spiffe_id_of};

/// How long a stop waits for connections that have said nothing yet.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// By which door a connection came in.
#[derive(Clone, Debug)]
pub enum Entry {
    /// The outbound HTTP port: any destination.
    OutboundHttp,
    /// The same port where connections are redirected to it as well, from the application to anywhere.
    Outbound,
    /// The port that connections to the application are redirected to.
    Inbound,
    /// A local port bound to one destination.
    OutboundTcp(Destination),
    /// The mesh port.
    Mesh,
    /// The front of an application port, for callers outside the mesh.
    Front(u16),
}

/// Serves one connection to its end.
pub(super) async fn serve(worker: Arc<Worker>, stream: TcpStream, address: SocketAddr, entry: Entry) {
    let listener = entry.name();
    let open = worker.shared.telemetry.metrics.connections_open(listener);
    open.inc();
    // Boxed, so that finding out takes no room while HTTP is served, which may be idle for long.
    let found = match entry {
        Entry::OutboundHttp => Box::pin(outbound_http(&worker, stream, Way::Outbound)).await,
        Entry::Outbound => Box::pin(interception::outbound(&worker, stream, address)).await,
        Entry::Inbound => Box::pin(interception::inbound(&worker, stream, address)).await,
        Entry::OutboundTcp(destination) => Box::pin(outbound_tcp(&worker, stream, address, destination)).await,
        Entry::Mesh => Box::pin(mesh(&worker, stream)).await,
        Entry::Front(port) => Box::pin(front(&worker, stream, address, port)).await,
    };
    let serving = found.map(|found| found.map(|found| Box::pin(http(&worker, address, found))));
    let served = match serving {
        Ok(Some(serving)) => serving.await,
        Ok(None) => Ok(()),
        Err(refused) => Err(refused),
    };
    open.dec();
    if let Err(refused) = served {
        worker.shared.telemetry.connection_refused(listener, address, refused.code(), &refused.to_string());
    }
}

/// A connection that carries HTTP, as it was found out. Others (`None`) have been served where they were found out.
pub(super) struct Http {
    /// Its stream.
    pub(super) transport: Transport,
    /// What it speaks.
    pub(super) protocol: Protocol,
    /// Which way its requests go.
    pub(super) way: Way,
    /// How old it becomes.
    pub(super) age: Option<Age>,
}

/// A connection of the application that carries HTTP and nothing else.
pub(super) async fn outbound_http(worker: &Worker, stream: TcpStream, way: Way) -> Result<Option<Http>, Refused> {
    let mut stream = Replay::new(stream);
    let detected = detect(worker, "outbound", &mut stream, &way.drain(worker)).await?;
    Ok(detected.map(|protocol| Http { transport: Transport::Accepted(stream), protocol, way, age: None }))
}

async fn outbound_tcp(
    worker: &Arc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    destination: Destination,
) -> Result<Option<Http>, Refused> {
    let target: Arc<Target> = match super::outbound::target(worker, &destination).await {
        Ok(target) => target,
        Err(error) => {
            reset_on_close(&stream); // The client must not take it for an empty answer.
            return Err(error.into());
        }
    };
    if let Some(split) = &target.tcp {
        tcp::outbound(worker, stream, address, &target, split).await;
        return Ok(None);
    }
    Box::pin(outbound_http(worker, stream, Way::Bound(destination))).await
}

async fn mesh(worker: &Worker, stream: TcpStream) -> Result<Option<Http>, Refused> {
    let config = worker.shared.tls.mesh().ok_or(Refused::NoIdentity)?;
    let (mut stream, peer) = accept_tls(worker, config, Replay::new(stream)).await?;
    match detect(worker, "inbound", &mut stream, &worker.shared.drain).await? {
        None => Ok(None),
        Some(protocol @ Protocol::Http2) => {
            let transport = Transport::Terminated(stream);
            Ok(Some(Http { transport, protocol, way: Way::Mesh(peer), age: None }))
        }
        Some(_) => Err(Refused::NotHttp),
    }
}

/// A caller outside the mesh: mutual TLS with a mesh identity always, plaintext where it is permitted.
async fn front(
    worker: &Arc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    port: u16,
) -> Result<Option<Http>, Refused> {
    let served = inbound::served(worker, None, port, address.ip()).map_err(|_gone| Refused::UnknownPort(port))?;
    from_outside(worker, stream, address, None, &served).await
}

/// The same, for a connection to `dialled` (`None`: to the front port of `served`).
pub(super) async fn from_outside(
    worker: &Arc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    dialled: Option<IpAddr>,
    served: &Arc<InboundPort>,
) -> Result<Option<Http>, Refused> {
    let port = served.config.port;
    let is_tcp = served.config.protocol.is_opaque();
    let permissive = served.config.access == Access::Permissive;
    if served.config.protocol == AppProtocol::Tls {
        // The application's own TLS, which is never taken for the mesh's.
        if permissive {
            tcp::inbound(worker, End::Stream(Transport::Accepted(Replay::new(stream))), address, served, None).await;
            return Ok(None);
        }
        reset_on_close(&stream);
        return Err(Refused::ForeignTls(port));
    }
    if is_tcp && permissive {
        return tcp_front(worker, stream, address, served).await.map(|()| None);
    }
    if permissive && served.config.protocol == AppProtocol::Auto {
        return anything(worker, stream, address, dialled, served).await;
    }
    let mut stream = Replay::new(stream);
    let Some(mut protocol) = detect(worker, "inbound", &mut stream, &worker.shared.drain).await? else {
        return Ok(None);
    };
    let mut peer = None;
    let transport = if protocol == Protocol::Tls {
        let config = worker.shared.tls.front().ok_or(Refused::NoIdentity)?;
        let (mut tls, id) = accept_tls(worker, config, stream).await?;
        peer = Some(id);
        if !is_tcp {
            let Some(inner) = detect(worker, "inbound", &mut tls, &worker.shared.drain).await? else { return Ok(None) };
            protocol = inner;
        }
        Transport::Terminated(tls)
    } else {
        Transport::Accepted(stream)
    };
    let is_opaque = is_tcp || (protocol == Protocol::Opaque && served.config.protocol == AppProtocol::Auto);
    if !is_opaque {
        // HTTP in plaintext on a strict port gets an answer that says why: `inbound` refuses it.
        let way = Way::Front { port, address: dialled, peer };
        return Ok(Some(Http { transport, protocol, way, age: served.config.age }));
    }
    if peer.is_none() && !permissive {
        reset_on_close(transport.tcp());
        return Err(Refused::Plaintext(port));
    }
    tcp::inbound(worker, End::Stream(transport), address, served, peer.as_ref()).await;
    Ok(None)
}

/// A permissive port of which nothing is declared: HTTP, or opaque bytes, which TLS is too: it is the application's own.
async fn anything(
    worker: &Arc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    dialled: Option<IpAddr>,
    served: &Arc<InboundPort>,
) -> Result<Option<Http>, Refused> {
    let mut stream = Replay::new(stream);
    let mut record = tcp::begin(worker, "inbound", address);
    inbound::note(&mut record, served);
    let upstreams = Upstreams::Application(Arc::clone(served));
    let key = SocketAddr::new(served.config.application.ip(), served.config.port);
    let dial = Box::pin(tcp::open(worker, &upstreams, Lasts::default(), &mut record));
    let (word, opened) = match Box::pin(heard(worker, "inbound", key, &worker.shared.drain, &mut stream, dial)).await {
        Ok(Some(heard)) => heard,
        nothing => {
            record.forget(); // It never became a connection to anybody.
            return nothing.map(|_none| None);
        }
    };
    if let Word::Client(protocol @ (Protocol::Http1 | Protocol::Http2)) = word {
        record.forget();
        let way = Way::Front { port: served.config.port, address: dialled, peer: None };
        return Ok(Some(Http { transport: Transport::Accepted(stream), protocol, way, age: served.config.age }));
    }
    tcp::join(stream, opened, record).await;
    Ok(None)
}

/// The outcome of the [`race`] for a connection to `key`, counted and remembered. `None`: we stop, and neither side has
/// said anything.
pub(super) async fn heard(
    worker: &Worker,
    direction: &'static str,
    key: SocketAddr,
    drain: &Drain,
    stream: &mut Replay<TcpStream>,
    dial: impl Future<Output = Result<Opened, ProxyError>>,
) -> Result<Option<Heard>, Refused> {
    let began = Instant::now();
    let expected = worker.shared.detected.recall(key, began);
    let heard = tokio::select! {
        heard = race(stream, expected, dial) => heard?,
        () = last_moment(drain) => return Ok(None),
    };
    worker.shared.telemetry.metrics.detection(direction, heard.0.name(), began.elapsed());
    worker.recorder.detected(direction, began.elapsed());
    worker.shared.detected.remember(key, heard.0, Instant::now());
    Ok(Some(heard))
}

/// Opaque TCP with or without TLS. A TLS client speaks first; when the application does, the client speaks none.
async fn tcp_front(
    worker: &Arc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    served: &Arc<InboundPort>,
) -> Result<(), Refused> {
    let Some((mut record, mut opened)) = tcp::open_application(worker, address, served).await else {
        reset_on_close(&stream);
        return Ok(());
    };
    let mut stream = Replay::new(stream);
    let is_tls = tokio::select! {
        is_tls = stream.detect_tls() => is_tls?,
        () = opened.speaks() => false,
        () = last_moment(&worker.shared.drain) => {
            record.forget();
            return Ok(());
        }
    };
    let client = if is_tls {
        let config = worker.shared.tls.front().ok_or(Refused::NoIdentity)?;
        let (tls, peer) = accept_tls(worker, config, stream).await?;
        record.other_end(Some(&peer));
        Transport::Terminated(tls)
    } else {
        Transport::Accepted(stream)
    };
    opened.join(End::Stream(client)).run(record, Phase::default().begin()).await;
    Ok(())
}

/// The first bytes, within the head deadline. `None`: the client closed without a word, or has none while we stop.
async fn detect<S>(
    worker: &Worker,
    direction: &'static str,
    stream: &mut Replay<S>,
    drain: &Drain,
) -> Result<Option<Protocol>, Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (deadline, began) = (worker.shared.settings.timeouts.head, Instant::now());
    tokio::select! {
        detected = timeout(deadline, stream.detect()) => {
            let detected = detected.map_err(|_late| Refused::Silent)??;
            worker.recorder.detected(direction, began.elapsed());
            Ok(detected)
        }
        () = last_moment(drain) => Ok(None),
    }
}

/// When a client that has said nothing yet is not waited for any longer: a moment after stopping began, in which what
/// it sent before it could know of that still arrives.
pub(super) async fn last_moment(drain: &Drain) {
    drain.stopping().await;
    sleep(LAST_MOMENT).await;
}

async fn accept_tls(
    worker: &Worker,
    config: Arc<rustls::ServerConfig>,
    stream: Replay<TcpStream>,
) -> Result<(Box<Replay<TlsStream<ReadAhead<Replay<TcpStream>>>>>, SpiffeId), Refused> {
    let accept = Box::pin(TlsAcceptor::from(config).accept(ReadAhead::new(stream))); // Large, and soon over.
    let (deadline, began) = (worker.shared.settings.timeouts.tls, Instant::now());
    let accepted = tokio::select! {
        accepted = timeout(deadline, accept) => accepted.map_err(|_late| Refused::TlsTimeout)?,
        () = last_moment(&worker.shared.drain) => return Err(Refused::Stopping),
    };
    let stream = accepted.map_err(|error| Refused::Tls(tls_code(&error), explained(error)))?;
    worker.recorder.secured("inbound", began.elapsed());
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    // The verifier has seen it already; without one there is no session.
    let peer = leaf.and_then(|leaf| spiffe_id_of(leaf).ok()).ok_or(Refused::NoIdentity)?;
    Ok((Box::new(Replay::new(stream)), peer))
}

/// Serves HTTP to the end of the connection.
async fn http(worker: &Arc<Worker>, address: SocketAddr, found: Http) -> Result<(), Refused> {
    let Http { transport, protocol, way, age } = found;
    let is_http2 = match protocol {
        Protocol::Http2 => true,
        // What is not quite HTTP/1 gets its 400 from the parser.
        Protocol::Http1 | Protocol::Opaque => false,
        Protocol::Tls => return Err(Refused::NotHttp),
    };
    let settings = &worker.shared.settings;
    let limits = ServerSettings {
        head_timeout: settings.timeouts.head,
        idle_timeout: settings.timeouts.idle,
        max_streams: settings.limits.h2_max_concurrent_streams,
        max_header_bytes: settings.limits.max_header_bytes,
        max_headers: settings.limits.max_headers.get(),
        age: age.map(|age| age.with(rand::random())),
    };
    let drain = way.drain(worker);
    let client = Arc::new(Client::new(Arc::clone(worker), address, way));
    let serve = serve_http(transport, is_http2, &limits, &client.phase, &drain, |request, switch| {
        // Begun here, not when the future is first polled: before that, hyper reads once more.
        http::serve(Arc::clone(&client), client.phase.begin(), request, switch)
    });
    let Err(error) = serve.await else { return Ok(()) };
    tracing::debug!(client = %address, %error, "connection ended");
    broken_protocol(&error).map_or(Ok(()), Err)
}

impl Entry {
    /// What ends the accepting of connections: what the application uses ends last.
    pub(super) fn drain(&self, worker: &Worker) -> Drain {
        match self {
            Self::OutboundHttp | Self::Outbound | Self::OutboundTcp(_) => worker.shared.drain.of_application(),
            Self::Inbound | Self::Mesh | Self::Front(_) => worker.shared.drain.clone(),
        }
    }

    /// For metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OutboundHttp => "outbound_http",
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::OutboundTcp(_) => "outbound_tcp",
            Self::Mesh => "mesh",
            Self::Front(_) => "front",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tunnel::Tunnel;

    fn size3<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    fn size4<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// What every open connection takes besides its buffers: the first always, the others for their entry.
    #[test]
    fn a_connection_is_small() {
        assert!(size4(serve) <= 320);
        let size = size4::<&Arc<Worker>, _, _, _, _>(outbound_tcp);
        assert!(size <= 800, "{size}");
        assert!(size3::<&Worker, _, _, _>(outbound_http) <= 800);
        assert!(size3(Tunnel::run) <= 384);
    }
}
