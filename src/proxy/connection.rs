//! One accepted connection: find out what it speaks and who speaks it, then serve it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pillion_wire::name::Destination;
use pillion_wire::spiffe::SpiffeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client::{Client, Way};
use super::tunnel::End;
use super::{Worker, http, tcp};
use crate::config::{Access, AppProtocol};
use crate::http::{ServerSettings, serve as serve_http};
use crate::net::{Phase, Protocol, Replay, SlowHead, Transport, reset_on_close};
use crate::snapshot::{InboundPort, Target};
use crate::tls::verify::{explained, spiffe_id_of};

/// How long a stop waits for connections that have said nothing yet.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// By which door a connection came in.
#[derive(Clone, Debug)]
pub enum Entry {
    /// The outbound HTTP port: any destination.
    OutboundHttp,
    /// A local port bound to one destination.
    OutboundTcp(Destination),
    /// The mesh port.
    Mesh,
    /// The front of an application port, for callers outside the mesh.
    Front(u16),
}

/// Why we ended a connection: before it carried anything, or because its client broke the protocol. Names the counter.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("nothing was said in time")]
    Silent,
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the TLS handshake was not done when the sidecar stopped")]
    Stopping,
    #[error("this port speaks HTTP; something else came")]
    NotHttp,
    #[error("the TLS handshake failed: {1}")]
    Tls(&'static str, io::Error),
    #[error("the TLS handshake took too long")]
    TlsTimeout,
    #[error("this sidecar has no certificate yet")]
    NoIdentity,
    #[error("plaintext on the strict port {0}; call through a sidecar, or make the port permissive")]
    Plaintext(u16),
    #[error("port {0} is no longer served")]
    UnknownPort(u16),
    #[error("{0}")]
    Destination(#[from] crate::error::ProxyError),
    #[error(transparent)]
    SlowHead(#[from] SlowHead),
    #[error("the request head is larger than allowed")]
    LargeHead,
    #[error("not valid HTTP: {0}")]
    BadHttp(String),
    #[error("more than one HTTP/2 client may cause: {0}")]
    Flood(String),
}

/// Serves one connection to its end.
pub(super) async fn serve(worker: Arc<Worker>, stream: TcpStream, address: SocketAddr, entry: Entry) {
    let listener = entry.name();
    let open = worker.shared.telemetry.metrics.connections_open(listener);
    open.inc();
    let served = match entry {
        Entry::OutboundHttp => outbound_http(&worker, stream, address).await,
        Entry::OutboundTcp(destination) => Box::pin(outbound_tcp(&worker, stream, address, destination)).await,
        Entry::Mesh => mesh(&worker, stream, address).await,
        Entry::Front(port) => Box::pin(front(&worker, stream, address, port)).await,
    };
    open.dec();
    if let Err(refused) = served {
        worker.shared.telemetry.connection_refused(listener, address, refused.code(), &refused.to_string());
    }
}

async fn outbound_http(worker: &Arc<Worker>, stream: TcpStream, address: SocketAddr) -> Result<(), Refused> {
    let mut stream = Replay::new(stream);
    let Some(protocol) = detect(worker, &mut stream).await? else { return Ok(()) };
    http(worker, Transport::Accepted(stream), protocol, address, Way::Outbound).await
}

async fn outbound_tcp(
    worker: &Arc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    destination: Destination,
) -> Result<(), Refused> {
    let target: Arc<Target> = match super::outbound::target(worker, &destination).await {
        Ok(target) => target,
        Err(error) => {
            reset_on_close(&stream); // The client must not take it for an empty answer.
            return Err(error.into());
        }
    };
    if let Some(split) = &target.tcp {
        tcp::outbound(worker, stream, address, &target, split).await;
        return Ok(());
    }
    let mut stream = Replay::new(stream);
    let Some(protocol) = detect(worker, &mut stream).await? else { return Ok(()) };
    http(worker, Transport::Accepted(stream), protocol, address, Way::Bound(destination)).await
}

async fn mesh(worker: &Arc<Worker>, stream: TcpStream, address: SocketAddr) -> Result<(), Refused> {
    let config = worker.shared.tls.mesh().ok_or(Refused::NoIdentity)?;
    let (stream, peer) = accept_tls(worker, config, Replay::new(stream)).await?;
    let mut stream = Replay::new(stream);
    match detect(worker, &mut stream).await? {
        None => Ok(()),
        Some(Protocol::Http2) => {
            let transport = Transport::Terminated(Box::new(stream));
            http(worker, transport, Protocol::Http2, address, Way::Mesh(peer)).await
        }
        Some(_) => Err(Refused::NotHttp),
    }
}

/// A caller outside the mesh: mutual TLS with a mesh identity always, plaintext where it is permitted.
async fn front(worker: &Arc<Worker>, stream: TcpStream, address: SocketAddr, port: u16) -> Result<(), Refused> {
    let inbound = worker.shared.inbound.load_full();
    let known = inbound.as_ref().as_ref().and_then(|inbound| inbound.ports.get(&port));
    let served = known.ok_or(Refused::UnknownPort(port))?;
    let is_tcp = served.config.protocol.is_opaque();
    let permissive = served.config.access == Access::Permissive;
    if is_tcp && permissive {
        return tcp_front(worker, stream, address, served).await;
    }
    let mut stream = Replay::new(stream);
    let Some(mut protocol) = detect(worker, &mut stream).await? else { return Ok(()) };
    let mut peer = None;
    let transport = if protocol == Protocol::Tls {
        let config = worker.shared.tls.front().ok_or(Refused::NoIdentity)?;
        let (tls, id) = accept_tls(worker, config, stream).await?;
        let mut tls = Replay::new(tls);
        peer = Some(id);
        if !is_tcp {
            let Some(inner) = detect(worker, &mut tls).await? else { return Ok(()) };
            protocol = inner;
        }
        Transport::Terminated(Box::new(tls))
    } else {
        Transport::Accepted(stream)
    };
    let is_opaque = is_tcp || (protocol == Protocol::Opaque && served.config.protocol == AppProtocol::Auto);
    if !is_opaque {
        // HTTP in plaintext on a strict port gets an answer that says why: `inbound` refuses it.
        return http(worker, transport, protocol, address, Way::Front { port, peer }).await;
    }
    if peer.is_none() && !permissive {
        reset_on_close(transport.tcp());
        return Err(Refused::Plaintext(port));
    }
    tcp::inbound(worker, End::Stream(transport), address, served, peer.as_ref()).await;
    Ok(())
}

/// Opaque TCP with or without TLS. A TLS client speaks first; when the application does, the client speaks none.
async fn tcp_front(
    worker: &Arc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    served: &InboundPort,
) -> Result<(), Refused> {
    let Some((mut record, opened)) = tcp::open_application(worker, address, served).await else {
        reset_on_close(&stream);
        return Ok(());
    };
    let mut stream = Replay::new(stream);
    let is_tls = tokio::select! {
        is_tls = stream.detect_tls() => is_tls?,
        () = opened.speaks() => false,
    };
    let client = if is_tls {
        let config = worker.shared.tls.front().ok_or(Refused::NoIdentity)?;
        let (tls, peer) = accept_tls(worker, config, stream).await?;
        record.other_end(Some(&peer));
        Transport::Terminated(Box::new(Replay::new(tls)))
    } else {
        Transport::Accepted(stream)
    };
    opened.join(End::Stream(client)).run(record, Phase::default().begin()).await;
    Ok(())
}

/// The first bytes, within the head deadline. `None`: the client closed without a word, or has none while we stop.
async fn detect<S>(worker: &Worker, stream: &mut Replay<S>) -> Result<Option<Protocol>, Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let deadline = worker.shared.settings.timeouts.head;
    tokio::select! {
        detected = timeout(deadline, stream.detect()) => Ok(detected.map_err(|_late| Refused::Silent)??),
        () = last_moment(worker) => Ok(None),
    }
}

/// When a client that has said nothing yet is not waited for any longer: a moment after stopping began, in which what
/// it sent before it could know of that still arrives.
async fn last_moment(worker: &Worker) {
    worker.shared.drain.stopping().await;
    sleep(LAST_MOMENT).await;
}

async fn accept_tls(
    worker: &Worker,
    config: Arc<rustls::ServerConfig>,
    stream: Replay<TcpStream>,
) -> Result<(TlsStream<Replay<TcpStream>>, SpiffeId), Refused> {
    let accept = TlsAcceptor::from(config).accept(stream);
    let deadline = worker.shared.settings.timeouts.tls;
    let accepted = tokio::select! {
        accepted = timeout(deadline, accept) => accepted.map_err(|_late| Refused::TlsTimeout)?,
        () = last_moment(worker) => return Err(Refused::Stopping),
    };
    let stream = accepted.map_err(|error| Refused::Tls(tls_code(&error), explained(error)))?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    // The verifier has seen it already; without one there is no session.
    let peer = leaf.and_then(|leaf| spiffe_id_of(leaf).ok()).ok_or(Refused::NoIdentity)?;
    Ok((stream, peer))
}

async fn http(
    worker: &Arc<Worker>,
    transport: Transport,
    protocol: Protocol,
    address: SocketAddr,
    way: Way,
) -> Result<(), Refused> {
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
    };
    let phase = Phase::default();
    let client = Arc::new(Client { worker: Arc::clone(worker), address, way, phase: phase.clone() });
    let serve = serve_http(transport, is_http2, &limits, &phase, &worker.shared.drain, |request| {
        // Begun here, not when the future is first polled: before that, hyper reads once more.
        http::serve(Arc::clone(&client), client.phase.begin(), request)
    });
    let Err(error) = Box::pin(serve).await else { return Ok(()) };
    tracing::debug!(client = %address, %error, "connection ended");
    broken_protocol(&error).map_or(Ok(()), Err)
}

/// What the client did wrong, if it was that which ended the connection.
fn broken_protocol(error: &hyper::Error) -> Option<Refused> {
    let cause = std::error::Error::source(error);
    let detail = || cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
    if error.is_parse_too_large() {
        return Some(Refused::LargeHead);
    }
    if error.is_parse() {
        return Some(Refused::BadHttp(detail()));
    }
    let cause = cause?;
    if let Some(slow) = cause.downcast_ref::<io::Error>().and_then(|error| error.get_ref()?.downcast_ref::<SlowHead>())
    {
        return Some(Refused::SlowHead(*slow));
    }
    let error = cause.downcast_ref::<h2::Error>().filter(|error| error.is_library())?;
    match error.reason() {
        Some(h2::Reason::ENHANCE_YOUR_CALM) => Some(Refused::Flood(error.to_string())),
        _ => Some(Refused::BadHttp(detail())),
    }
}

impl Entry {
    /// For metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OutboundHttp => "outbound_http",
            Self::OutboundTcp(_) => "outbound_tcp",
            Self::Mesh => "mesh",
            Self::Front(_) => "front",
        }
    }
}

impl Refused {
    fn code(&self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Broken(_) => "broken",
            Self::Stopping => "stopping",
            Self::NotHttp => "not_http",
            Self::Tls(code, _) => code,
            Self::TlsTimeout => "tls_timeout",
            Self::NoIdentity => "no_identity",
            Self::Plaintext(_) => "plaintext_refused",
            Self::UnknownPort(_) => "unknown_port",
            Self::Destination(error) => error.reason().code,
            Self::SlowHead(_) => "head_timeout",
            Self::LargeHead => "head_too_large",
            Self::BadHttp(_) => "bad_http",
            Self::Flood(_) => "http2_flood",
        }
    }
}

/// Failed handshakes by what an operator has to look at.
fn tls_code(error: &io::Error) -> &'static str {
    use rustls::{CertificateError, Error};
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        Some(Error::NoCertificatesPresented) => "tls_no_certificate",
        Some(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "tls_expired"
        }
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => "tls_unknown_issuer",
        Some(Error::InvalidCertificate(CertificateError::Other(_))) => "tls_wrong_identity",
        Some(Error::InvalidCertificate(_)) => "tls_bad_certificate",
        Some(Error::AlertReceived(_)) => "tls_refused_by_peer",
        Some(Error::InvalidMessage(_)) => "tls_not_tls",
        Some(Error::PeerIncompatible(_)) => "tls_incompatible",
        _ => "tls_failed",
    }
}
