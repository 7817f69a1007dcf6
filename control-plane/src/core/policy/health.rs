//! Which health checks can be made of which ports.

use pillion_wire::health::Probe;

use super::TrafficPolicy;
use crate::core::{protocol::Protocol, service::Service};

/// Can a port of this protocol be checked so? One that nobody looks into takes no requests from sidecars, and gRPC is
/// HTTP/2.
#[must_use]
pub fn fits(probe: &Probe, protocol: Protocol) -> bool {
    match probe {
        Probe::Tcp { .. } => true,
        Probe::Http(_) => protocol.carries_http(),
        Probe::Grpc { .. } => protocol.carries_http() && protocol != Protocol::Http,
    }
}

/// What is odd about a policy whose check can be made of no port that it applies to.
pub(super) fn unfit(policy: &TrafficPolicy, service: &Service, section: Option<&str>) -> Option<String> {
    let check = policy.policy.health.as_ref()?;
    let mut ports = service.ports.iter().filter(|port| section.is_none() || port.name.as_deref() == section);
    let is_unfit = ports.all(|port| port.app_protocol.is_some_and(|protocol| !fits(&check.probe, protocol)));
    let (name, needed) = match check.probe {
        Probe::Http(_) => ("http", "carries HTTP"),
        Probe::Grpc { .. } => ("grpc", "speaks HTTP/2 or gRPC"),
        Probe::Tcp { .. } => return None,
    };
    is_unfit.then(|| format!("no such port {needed}: healthChecks.{name} has no effect on it"))
}
