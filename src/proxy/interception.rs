//! Connections that were not meant for us: the kernel sent them here, and knows where they were going.
//!
//! The key of everything is the address *and* port that were dialled, never the port alone: two Services that happen
//! to share a port have nothing else in common. What a request calls its host does not change where it goes, only
//! which of the destination's routes it takes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pillion_wire::name::Destination;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::attempt::{UNKNOWN, Upstreams};
use super::client::Way;
use super::connection::{Http, from_outside, heard, last_moment, outbound_http};
use super::race::Word;
use super::refused::Refused;
use super::{Worker, inbound as planning, outbound as directory, tcp};
use crate::bootstrap::UnknownDestinations;
use crate::config::Lasts;
use crate::error::ProxyError;
use crate::net::{ClientHello, Protocol, Replay, Transport, is_local, original_destination, reset_on_close};
use crate::snapshot::Target;
use crate::telemetry::Record;
use crate::upstream::{Host, HostKey};

/// From our application, to wherever it dialled. Who dialled our own port names a destination in each request.
pub(super) async fn outbound(
    worker: &Arc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<Option<Http>, Refused> {
    let settings = &worker.shared.settings;
    let port = settings.outbound_http.map_or(0, |own| own.port());
    let Some(dialled) = original_destination(&stream, port)? else {
        return outbound_http(worker, stream, Way::Outbound).await;
    };
    // Beside the application's network namespace, our own machine's other addresses are somebody else's.
    let is_here = |ip: IpAddr| ip.is_loopback() || (!worker.is_beside_application() && is_local(ip));
    let served = if settings.is_own_port(dialled.port()) && is_here(dialled.ip()) {
        Err(Refused::Loop(dialled))
    } else {
        let destination = Destination::from(dialled);
        match directory::target(worker, &destination).await {
            Ok(target) => return known(worker, stream, address, dialled, destination, &target).await,
            Err(ProxyError::UnknownDestination(_)) if passes_unknown(worker) => {
                return unknown(worker, stream, address, dialled).await.map(|()| None);
            }
            Err(error) => Err(error.into()),
        }
    };
    reset_on_close(&stream); // The application must not take it for an empty answer.
    served
}

/// To our application, from outside the mesh.
pub(super) async fn inbound(
    worker: &Arc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<Option<Http>, Refused> {
    let own = worker.shared.settings.intercept.as_ref().map_or(0, |intercept| intercept.inbound.port());
    let dialled = original_destination(&stream, own)?;
    let served = match dialled {
        None => Err(Refused::Loop(stream.local_addr()?)),
        Some(dialled) => {
            planning::served(worker, Some(dialled.ip()), dialled.port(), address.ip()).map_err(|error| match error {
                ProxyError::OwnPort(_) => Refused::Loop(dialled),
                other => other.into(),
            })
        }
    };
    match served {
        Ok(served) => from_outside(worker, stream, address, dialled.map(|dialled| dialled.ip()), &served).await,
        Err(refused) => {
            reset_on_close(&stream);
            Err(refused)
        }
    }
}

fn passes_unknown(worker: &Worker) -> bool {
    let policy = worker.shared.settings.intercept.as_ref().map(|intercept| intercept.unknown);
    policy == Some(UnknownDestinations::Pass)
}

/// To a destination of the mesh: as HTTP where it takes that and that is what comes, else as opaque bytes.
async fn known(
    worker: &Arc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    dialled: SocketAddr,
    destination: Destination,
    target: &Target,
) -> Result<Option<Http>, Refused> {
    let way = Way::Bound(destination);
    let split = match (&target.http, &target.tcp) {
        (None, Some(split)) if target.tls.all().is_empty() => {
            tcp::outbound(worker, stream, address, target, split).await;
            return Ok(None);
        }
        (_, None) => return outbound_http(worker, stream, way).await,
        (_, Some(split)) => split,
    };
    let drain = way.drain(worker);
    let mut stream = Replay::new(stream);
    let mut record = tcp::begin(worker, "outbound", address);
    record.destination = Arc::clone(target.label());
    record.chose(&target.chosen, None);
    let (upstreams, lasts) = tcp::choose(split, &mut record);
    let dial = Box::pin(tcp::open(worker, &upstreams, lasts, &mut record));
    let (word, mut opened) = match Box::pin(heard(worker, "outbound", dialled, &drain, &mut stream, dial)).await {
        Ok(Some(heard)) => heard,
        nothing => {
            record.forget(); // It never became a connection to anybody.
            return nothing.map(|_none| None);
        }
    };
    if word == Word::Client(Protocol::Tls) {
        // Only where the name decides something is the rest of a hello waited for.
        let hello = match target.tls.all() {
            [] => stream.client_hello_so_far(),
            _ => stream.client_hello().await?,
        };
        let hello = hello.unwrap_or_default();
        let named = target.tls_split(hello.sni.as_deref());
        note_hello(&mut record, hello);
        if let Some(named) = named.filter(|named| !std::ptr::eq(*named, split)) {
            drop(opened); // Other names than this one go there.
            let (upstreams, lasts) = tcp::choose(named, &mut record);
            opened = Some(tcp::open(worker, &upstreams, lasts, &mut record).await);
        }
    }
    if let (Word::Client(protocol @ (Protocol::Http1 | Protocol::Http2)), Some(_)) = (word, &target.http) {
        record.forget();
        drop(opened);
        return Ok(Some(Http { transport: Transport::Accepted(stream), protocol, way, age: None }));
    }
    if opened.is_none() {
        opened = Some(tcp::open(worker, &upstreams, lasts, &mut record).await); // HTTP, to what takes opaque bytes alone.
    }
    tcp::join(stream, opened, record).await;
    Ok(None)
}

/// What the application's own TLS asks for, for the access log.
fn note_hello(record: &mut Record, hello: ClientHello) {
    record.protocol = "TLS";
    record.authority = hello.sni.unwrap_or_default();
    let names: Vec<_> = hello.alpn.iter().map(|name| String::from_utf8_lossy(name)).collect();
    record.alpn = names.join(",");
}

/// To an address that nobody knows, as it is.
async fn unknown(
    worker: &Arc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    dialled: SocketAddr,
) -> Result<(), Refused> {
    let mut stream = Replay::new(stream);
    let mut record = tcp::begin(worker, "outbound", address);
    record.destination = Arc::from(UNKNOWN);
    record.cluster = Arc::clone(&record.destination);
    let upstreams = Upstreams::Unknown(Arc::new(Host::new(HostKey::remote(dialled, None))));
    let began = Instant::now();
    let mut opened = match tcp::open(worker, &upstreams, Lasts::default(), &mut record).await {
        Ok(opened) => opened,
        Err(error) => {
            tcp::refuse(&error, &mut record);
            reset_on_close(stream.get_ref());
            return Ok(());
        }
    };
    let drain = worker.shared.drain.of_application();
    let word = tokio::select! {
        biased;
        () = stream.fill() => Word::Client(stream.guess()),
        () = opened.speaks() => Word::Server,
        () = last_moment(&drain) => {
            record.forget();
            return Ok(());
        }
    };
    worker.shared.telemetry.metrics.detection("outbound", word.name(), began.elapsed());
    if let (Word::Client(Protocol::Tls), Some(hello)) = (word, stream.client_hello_so_far()) {
        note_hello(&mut record, hello);
    }
    tcp::join(stream, Some(Ok(opened)), record).await;
    Ok(())
}
