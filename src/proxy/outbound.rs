//! Outbound planning: which destination a request of our application means, and where it goes from there.

use std::sync::Arc;

use http::request;
use pillion_wire::mesh::INVALID_BACKEND;
use pillion_wire::name::Destination;

use super::Worker;
use super::attempt::Upstreams;
use super::authority::Authority;
use super::http::Plan;
use crate::error::ProxyError;
use crate::snapshot::{Action, Target, Unresolved};
use crate::telemetry::Record;

/// What to do with a request of our application that is for `destination`.
pub(super) async fn plan(
    worker: &Worker,
    destination: &Destination,
    request: &request::Parts,
    record: &mut Record,
) -> Result<Plan, ProxyError> {
    let target = target(worker, destination).await?;
    record.destination = Arc::clone(target.label());
    let routes = target.http.as_ref().ok_or_else(|| ProxyError::WrongProtocol(destination.clone(), "HTTP"))?;
    let route = routes.select(request).ok_or_else(|| ProxyError::NoRoute(destination.clone()))?;
    record.route = Arc::clone(&route.name);
    match &route.action {
        Action::Forward(split) => {
            let cluster = split.pick(rand::random());
            if cluster.config.name == INVALID_BACKEND {
                return Err(ProxyError::InvalidBackend(route.name.to_string()));
            }
            record.cluster = Arc::clone(cluster.upstream.name());
            Ok(Plan::Forward(Upstreams::Cluster(Arc::clone(cluster)), route.treatment.clone()))
        }
        Action::DirectResponse { status, body } => Ok(Plan::Answer { status: *status, body: body.clone() }),
    }
}

/// The destination that a request names.
pub(super) fn destination(request: &request::Parts) -> Result<Destination, ProxyError> {
    Authority::of(request).map_err(ProxyError::BadAuthority)?.destination()
}

/// Looks a destination up, asking the control plane when it is new.
pub(super) async fn target(worker: &Worker, destination: &Destination) -> Result<Arc<Target>, ProxyError> {
    let directory = &worker.shared.directory;
    let found = match directory.lookup(destination) {
        Some(found) => found,
        None => Box::pin(directory.resolve(destination, worker.shared.settings.timeouts.discovery)).await,
    };
    found.map_err(|why| match why {
        Unresolved::Unknown => ProxyError::UnknownDestination(destination.clone()),
        Unresolved::Timeout => ProxyError::DiscoveryTimeout(destination.clone()),
        Unresolved::Overloaded => ProxyError::DiscoveryOverloaded(destination.clone()),
    })
}
