//! Inbound planning: which port of our application a caller means, and whether it may.

use std::net::IpAddr;
use std::sync::Arc;

use http::request;
use pillion_wire::mesh::PORT_HEADER;

use super::Worker;
use super::attempt::Upstreams;
use super::client::Way;
use super::http::Plan;
use crate::config::Access;
use crate::error::ProxyError;
use crate::snapshot::InboundPort;
use crate::telemetry::Record;

/// What to do with a request for our application.
pub(super) fn plan(
    worker: &Worker,
    way: &Way,
    request: &request::Parts,
    record: &mut Record,
) -> Result<Plan, ProxyError> {
    let port = match way {
        Way::Front { port, .. } => port.to_string(),
        _ => named_port(request)?.to_owned(),
    };
    let served = served(worker, &port)?;
    note(record, &served);
    if way.peer().is_none() && served.config.access == Access::Strict {
        return Err(ProxyError::PlaintextRefused(served.config.port));
    }
    if served.config.protocol.is_opaque() {
        return Err(ProxyError::BadRequest("this port takes opaque TCP (CONNECT), not HTTP requests"));
    }
    Ok(Plan::Forward(Upstreams::Application(served)))
}

/// The application port that a `CONNECT` of a peer means: `CONNECT ip:port`, as HBONE has it.
pub(super) fn tunnel_port(
    worker: &Worker,
    request: &request::Parts,
    record: &mut Record,
) -> Result<InboundPort, ProxyError> {
    let authority = request.uri.authority().ok_or(ProxyError::BadRequest("CONNECT without host:port"))?;
    let port = authority.port_u16().ok_or(ProxyError::BadRequest("CONNECT without a port"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let ours = worker.shared.settings.mesh.map(|mesh| mesh.ip());
    let address: IpAddr =
        host.parse().map_err(|_invalid| ProxyError::BadRequest("CONNECT to something else than ip:port"))?;
    if ours.is_some_and(|ours| !ours.is_unspecified() && ours != address) {
        return Err(ProxyError::UnknownPort(authority.to_string()));
    }
    let served = served(worker, &port.to_string())?;
    note(record, &served);
    Ok(served)
}

fn named_port(request: &request::Parts) -> Result<&str, ProxyError> {
    let mut ports = request.headers.get_all(PORT_HEADER).iter();
    let port = ports.next().ok_or(ProxyError::BadRequest("no x-pillion-port field"))?;
    if ports.next().is_some() {
        return Err(ProxyError::BadRequest("several x-pillion-port fields"));
    }
    port.to_str().map_err(|_invalid| ProxyError::BadRequest("x-pillion-port is not text"))
}

fn served(worker: &Worker, port: &str) -> Result<InboundPort, ProxyError> {
    let inbound = worker.shared.inbound.load();
    let known = inbound.as_ref().as_ref().zip(port.parse::<u16>().ok());
    known
        .and_then(|(inbound, port)| inbound.ports.get(&port).cloned())
        .ok_or_else(|| ProxyError::UnknownPort(port.to_owned()))
}

/// Notes the port of our application that is meant.
pub(super) fn note(record: &mut Record, served: &InboundPort) {
    record.destination = Arc::from(format!("inbound:{}", served.config.port));
    record.cluster = Arc::clone(&record.destination);
}
