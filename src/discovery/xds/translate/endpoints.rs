//! Endpoints.

use std::num::NonZeroU32;
use std::sync::Arc;

use pillion_wire::mesh::MeshEndpoint;
use pillion_wire::xds::UInt32Value;
use pillion_wire::xds::core::HealthStatus;
use pillion_wire::xds::endpoint as pb;
use pillion_wire::xds::endpoint::lb_endpoint::HostIdentifier;

use super::at::{At, Reason, Refusal, pass_over, refuse, same_name, socket_address};
use super::subsets;
use crate::config::{Endpoint, Endpoints, Health, Labels, Locality};

/// As Envoy: priorities from 0 to 128.
const LAST_PRIORITY: u32 = 128;

/// `ClusterLoadAssignment`. Linear in its hosts.
pub(super) fn assignment(at: &At<'_>, name: &str, assignment: pb::ClusterLoadAssignment) -> Result<Endpoints, Refusal> {
    refuse!(at, assignment; named_endpoints);
    let name = same_name(&at.field("cluster_name"), name, assignment.cluster_name)?;
    let overprovisioning = overprovisioning(at, assignment.policy)?;
    let localities = localities(at, assignment.endpoints, endpoint)?;
    Ok(Endpoints { name, localities, overprovisioning })
}

/// `ClusterLoadAssignment.policy`.
pub(super) fn overprovisioning(
    at: &At<'_>,
    policy: Option<pb::cluster_load_assignment::Policy>,
) -> Result<Option<NonZeroU32>, Refusal> {
    let Some(policy) = policy else { return Ok(None) };
    let at = &at.field("policy");
    refuse!(at, policy; drop_overloads, endpoint_stale_after);
    pass_over!(at, policy; weighted_priority_health);
    let at = &at.field("overprovisioning_factor");
    policy.overprovisioning_factor.map(|given| at.required(NonZeroU32::new(given.value))).transpose()
}

/// `ClusterLoadAssignment.endpoints`, each host read by `endpoint`.
pub(super) fn localities<E>(
    at: &At<'_>,
    groups: Vec<pb::LocalityLbEndpoints>,
    endpoint: impl Fn(&At<'_>, pb::LbEndpoint) -> Result<E, Refusal>,
) -> Result<Vec<Locality<E>>, Refusal> {
    let places = &at.field("endpoints");
    let mut localities = Vec::with_capacity(groups.len());
    for (index, group) in groups.into_iter().enumerate() {
        localities.extend(locality(&places.index(index), group, &endpoint)?);
    }
    Ok(localities)
}

/// `None`: its weight is 0, so that it gets nothing.
fn locality<E>(
    at: &At<'_>,
    group: pb::LocalityLbEndpoints,
    endpoint: impl Fn(&At<'_>, pb::LbEndpoint) -> Result<E, Refusal>,
) -> Result<Option<Locality<E>>, Refusal> {
    refuse!(at, group; lb_config);
    pass_over!(at, group; metadata, proximity);
    if group.priority > LAST_PRIORITY {
        return Err(at.field("priority").invalid("is more than 128"));
    }
    let Some(weight) = weight(group.load_balancing_weight) else { return Ok(None) };
    let places = &at.field("lb_endpoints");
    let mut endpoints = Vec::with_capacity(group.lb_endpoints.len());
    for (index, host) in group.lb_endpoints.into_iter().enumerate() {
        endpoints.push(endpoint(&places.index(index), host)?);
    }
    let zone = group.locality.map(|locality| locality.zone).unwrap_or_default();
    Ok(Some(Locality { zone, priority: group.priority, weight, endpoints }))
}

fn endpoint(at: &At<'_>, host: pb::LbEndpoint) -> Result<Endpoint, Refusal> {
    let Said { weight, health, mesh, labels } = said(at, &host)?;
    let at = &at.field("endpoint");
    let Some(HostIdentifier::Endpoint(endpoint)) = host.host_identifier else {
        return Err(at.refuse(Reason::Missing));
    };
    refuse!(at, endpoint; additional_addresses);
    pass_over!(at, endpoint; hostname, observability_name);
    if let Some(checked) = endpoint.health_check_config {
        let at = &at.field("health_check_config");
        refuse!(at, checked; port_value, hostname, address, disable_active_health_check);
    }
    let address = socket_address(&at.field("address"), endpoint.address)?;
    Ok(Endpoint { address, weight, health, mesh, labels, named: None })
}

/// What is said of a host besides its address.
pub(super) struct Said {
    pub(super) weight: NonZeroU32,
    pub(super) health: Health,
    pub(super) mesh: Option<MeshEndpoint>,
    pub(super) labels: Option<Arc<Labels>>,
}

pub(super) fn said(at: &At<'_>, host: &pb::LbEndpoint) -> Result<Said, Refusal> {
    let weight = weight(host.load_balancing_weight)
        .ok_or_else(|| at.field("load_balancing_weight").invalid("has to be at least 1"))?;
    let mesh = host.metadata.as_ref().map(MeshEndpoint::from_metadata).transpose();
    let mesh = mesh.map_err(|error| at.field("metadata").refuse(error))?.flatten();
    let labels = host.metadata.as_ref().map(subsets::labels).filter(|labels| !labels.is_empty()).map(Arc::new);
    Ok(Said { weight, health: health(host.health_status), mesh, labels })
}

/// `HealthStatus`.
fn health(status: i32) -> Health {
    match HealthStatus::try_from(status) {
        Ok(HealthStatus::Unknown | HealthStatus::Healthy) => Health::Healthy,
        Ok(HealthStatus::Draining) => Health::Draining,
        Ok(HealthStatus::Unhealthy | HealthStatus::Timeout | HealthStatus::Degraded) | Err(_) => Health::Unhealthy,
    }
}

/// Not said: 1.
fn weight(given: Option<UInt32Value>) -> Option<NonZeroU32> {
    given.map_or(Some(NonZeroU32::MIN), |given| NonZeroU32::new(given.value))
}
