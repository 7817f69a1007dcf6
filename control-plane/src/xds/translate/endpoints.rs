//! `ClusterLoadAssignment` of a Service port.

use std::collections::{BTreeMap, BTreeSet};

use pillion_wire::{
    mesh::MeshEndpoint,
    spiffe::{SpiffeId, TrustDomain},
    xds::{
        UInt32Value,
        core::{HealthStatus, Locality},
        endpoint::{ClusterLoadAssignment, Endpoint as XdsEndpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint},
    },
};

use super::socket_address;
use crate::{
    core::view::{Endpoint, PortView},
    xds::dialect::Dialect,
};

/// The endpoints of `view`, by zone, for a caller in the zone `own`.
pub(crate) fn assignment(
    view: &PortView,
    own: Option<&str>,
    dialect: Dialect,
    trust_domain: &TrustDomain,
) -> ClusterLoadAssignment {
    let order = view.policy.load_balancing.as_ref().and_then(|section| section.zones.as_ref());
    let mut zones: BTreeMap<&str, Vec<LbEndpoint>> = BTreeMap::new();
    for endpoint in visible(view, dialect) {
        zones
            .entry(endpoint.zone.as_deref().unwrap_or_default())
            .or_default()
            .push(lb_endpoint(endpoint, trust_domain));
    }
    let rank = |name: &str| order.map_or(0, |order| order.rank(Some(name).filter(|name| !name.is_empty()), own));
    // Priorities have no gaps (gRFC A27).
    let ranks: BTreeSet<usize> = zones.keys().map(|name| rank(name)).collect();
    let priority = |name: &str| ranks.range(..rank(name)).count();
    ClusterLoadAssignment {
        cluster_name: view.key.to_string(),
        endpoints: zones
            .into_iter()
            .map(|(zone, lb_endpoints)| LocalityLbEndpoints {
                priority: priority(zone).try_into().unwrap_or(u32::MAX),
                locality: Some(Locality { zone: zone.to_owned(), ..Locality::default() }),
                // gRPC skips a locality without a weight, and shares by it: so that all endpoints share alike.
                load_balancing_weight: Some(UInt32Value { value: weight(&lb_endpoints) }),
                lb_endpoints,
                ..LocalityLbEndpoints::default()
            })
            .collect(),
        ..ClusterLoadAssignment::default()
    }
}

fn weight(endpoints: &[LbEndpoint]) -> u32 {
    endpoints.iter().filter_map(|endpoint| Some(endpoint.load_balancing_weight.as_ref()?.value)).sum()
}

/// Clients whose clusters are either all TLS or all plaintext see only the
/// endpoints inside the mesh where there are any.
pub(crate) fn visible(view: &PortView, dialect: Dialect) -> impl Iterator<Item = &Endpoint> {
    let only_mesh = dialect != Dialect::Pillion && view.in_mesh();
    view.endpoints.iter().filter(move |endpoint| !only_mesh || endpoint.mesh.is_some())
}

fn lb_endpoint(endpoint: &Endpoint, trust_domain: &TrustDomain) -> LbEndpoint {
    let metadata = endpoint.mesh.as_ref().and_then(|inside| {
        let identity = SpiffeId::new(trust_domain, &inside.namespace, &inside.service_account).ok()?;
        let endpoint = MeshEndpoint { port: inside.port, identity };
        Some(endpoint.to_metadata())
    });
    LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(XdsEndpoint {
            address: Some(socket_address(endpoint.address)),
            ..XdsEndpoint::default()
        })),
        health_status: HealthStatus::Healthy.into(),
        metadata,
        load_balancing_weight: Some(UInt32Value { value: endpoint.weight }),
    }
}
