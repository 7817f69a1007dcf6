//! Inbound planning: which port of our application a caller means, and whether it may.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Worker;
use super::attempt::Upstreams;
use super::client::{Client, Way};
use super::http::{Plan, Said};
use super::message::{CHECK, PORT};
use super::{global_rate_limit, rate_limit, shedding};
use crate::bootstrap::Redirection;
use crate::config::{self, Access, AppProtocol};
use crate::error::ProxyError;
use crate::net::is_reachable;
use crate::snapshot::InboundPort;
use crate::telemetry::Record;
use http::request;

/// What to do with a request for our application.
pub(super) async fn plan(client: &Client, request: &request::Parts, record: &mut Record) -> Result<Plan, ProxyError> {
    let worker = &client.worker;
    let served = match &client.way {
        Way::Front { port, address, .. } => served(worker, *address, *port, client.address.ip())?,
        _ => {
            let name = named_port(request)?;
            let port = name.parse().map_err(|_none| ProxyError::UnknownPort(name.to_owned()))?;
            served(worker, None, port, client.address.ip())?
        }
    };
    note(record, &served);
    if client.way.peer().is_none() && served.config.access == Access::Strict {
        return Err(ProxyError::PlaintextRefused(served.config.port));
    }
    if served.config.protocol.is_opaque() {
        return Err(ProxyError::BadRequest("this port takes opaque TCP (CONNECT), not HTTP requests"));
    }
    let mut said = Said::default();
    if !served.limiters.is_empty() {
        said.places = Box::pin(rate_limit::admit(client, &served, request)).await?;
    }
    if let Some(limit) = &served.global {
        said.told = Box::pin(global_rate_limit::admit(client, limit, request)).await?;
    }
    if let Some(shedder) = served.shedder.as_ref().filter(|_| !is_check(client, request)) {
        let since = record.waits_for_limit();
        let held = Box::pin(shedding::admit(client, &served, shedder, request)).await;
        said.held = Some(record.waited_for_limit(since, held)?);
    }
    Ok(Plan::Forward(Upstreams::Application(served), said))
}

/// The application port that a `CONNECT` of a peer means: `CONNECT ip:port`, as HBONE has it.
pub(super) fn tunnel_port(
    client: &Client,
    request: &request::Parts,
    record: &mut Record,
) -> Result<Arc<InboundPort>, ProxyError> {
    let authority = request.uri.authority().ok_or(ProxyError::BadRequest("CONNECT without host:port"))?;
    let port = authority.port_u16().ok_or(ProxyError::BadRequest("CONNECT without a port"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address: IpAddr =
        host.parse().map_err(|_invalid| ProxyError::BadRequest("CONNECT to something else than ip:port"))?;
    let address = address.to_canonical(); // `::ffff:127.0.0.1` is loopback, too.
    let settings = &client.worker.shared.settings;
    let is_named = settings.mesh.is_none_or(|mesh| mesh.ip().is_unspecified() || mesh.ip() == address);
    // Behind interception a workload may have several addresses, and all of them lead here.
    let is_ours = || settings.intercept.is_some() && is_reachable(address);
    if !is_named && !is_ours() {
        return Err(ProxyError::UnknownPort(authority.to_string()));
    }
    let served = served(&client.worker, Some(address), port, client.address.ip())?;
    note(record, &served);
    Ok(served)
}

/// Is it a sidecar's health check? It is quick, and its end is waited for: held back it would fail, and what it takes says
/// nothing of requests.
fn is_check(client: &Client, request: &request::Parts) -> bool {
    matches!(client.way, Way::Mesh(_)) && request.headers.contains_key(&CHECK)
}

fn named_port(request: &request::Parts) -> Result<&str, ProxyError> {
    let mut ports = request.headers.get_all(&PORT).iter();
    let port = ports.next().ok_or(ProxyError::BadRequest("no x-pillion-port field"))?;
    if ports.next().is_some() {
        return Err(ProxyError::BadRequest("several x-pillion-port fields"));
    }
    port.to_str().map_err(|_invalid| ProxyError::BadRequest("x-pillion-port is not text"))
}

/// A port of our application, dialled at `address` (`None`: the workload's own) by `caller`.
///
/// Behind interception it need not be declared: it is then strict, and served at the address that was dialled. What
/// is bound to loopback alone is out of others' reach until its port is declared.
pub(super) fn served(
    worker: &Worker,
    address: Option<IpAddr>,
    port: u16,
    caller: IpAddr,
) -> Result<Arc<InboundPort>, ProxyError> {
    let settings = &worker.shared.settings;
    let unknown = || ProxyError::UnknownPort(port.to_string());
    let inbound = worker.shared.inbound.load();
    let declared = inbound.as_ref().as_ref().and_then(|inbound| inbound.ports.get(&port));
    let Some(redirection) = settings.redirection() else { return declared.cloned().ok_or_else(unknown) };
    if settings.is_own_port(port) {
        return Err(ProxyError::OwnPort(port));
    }
    let own = settings.mesh.map(|mesh| mesh.ip());
    let dialled = address.or(own).map(|ip| SocketAddr::new(ip, port)).ok_or_else(unknown)?;
    let served = match declared {
        None => Arc::new(InboundPort::new(undeclared(dialled), &[dialled])),
        // The workload has several addresses, and this is not the one that its document begins with.
        Some(declared) if declared.hosts.len() > 1 && own != Some(dialled.ip()) => {
            let addresses: Vec<_> = std::iter::once(dialled).chain(declared.addresses()).collect();
            Arc::new(declared.at(&addresses))
        }
        Some(declared) => Arc::clone(declared),
    };
    Ok(match redirection {
        Redirection::Redirect => served,
        Redirection::Tproxy => Arc::new(served.seen_from(caller)),
    })
}

fn undeclared(address: SocketAddr) -> config::InboundPort {
    config::InboundPort::new(address.port(), address, AppProtocol::Auto)
}

/// Notes the port of our application that is meant.
pub(super) fn note(record: &mut Record, served: &InboundPort) {
    record.chose(&served.chosen, None);
    record.destination = Arc::clone(served.label());
    record.cluster = Arc::clone(served.label());
}
