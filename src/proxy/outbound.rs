//! Outbound planning: which destination a request of our application means, and where it goes from there.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, request};
use pillion_wire::mesh::INVALID_BACKEND;
use pillion_wire::name::Destination;

use super::Worker;
use super::attempt::Upstreams;
use super::authority::Authority;
use super::filters::Filtered;
use super::http::{Plan, Said};
use super::session;
use crate::config::Redirect;
use crate::error::ProxyError;
use crate::filter::redirect;
use crate::route::{self, Affinity, affinity};
use crate::snapshot::{Action, Target, Unresolved};
use crate::telemetry::Record;

/// What to do with a request of our application, at the address `client`, that is for `destination`.
pub(super) async fn plan(
    worker: &Worker,
    destination: &Destination,
    request: &request::Parts,
    client: IpAddr,
    record: &mut Record,
) -> Result<(Plan, Filtered), ProxyError> {
    let target = target(worker, destination).await?;
    record.destination = Arc::clone(target.label());
    let Some(routes) = &target.http else {
        record.chose(&target.chosen, None);
        return Err(ProxyError::WrongProtocol(destination.clone(), "HTTP"));
    };
    let found = match record.is_explained() {
        true => routes.select_with_next(request),
        false => routes.select(request).map(|route| (route, None)),
    };
    let Some((route, next)) = found else {
        record.chose(&target.chosen, None);
        return Err(ProxyError::NoRoute(destination.clone()));
    };
    record.chose(&route.chosen, next.map(|next| &next.chosen));
    record.route = Arc::clone(&route.name);
    record.trace_route(&route.paths);
    let filters = route.filters.as_ref();
    let answer = match &route.action {
        Action::Forward(split) => {
            let affinity = match split.hash() {
                [] => None,
                policies => Some(affinity(policies, request, client, rand::random)),
            };
            let hash = affinity.as_ref().and_then(|affinity| affinity.hash);
            let (choice, session) = match filters.and_then(|filters| filters.session.as_ref()) {
                Some(rules) => session::choose(worker, rules, split, hash, request)?,
                None => (split.choose_for(hash, rand::random), None),
            };
            let cluster = &choice.cluster;
            if cluster.config.name == INVALID_BACKEND {
                return Err(ProxyError::InvalidBackend(route.name.to_string()));
            }
            record.cluster = Arc::clone(cluster.upstream.name());
            let filters = Filtered::new(filters, choice.changes.as_ref());
            let affinity = match (affinity, session) {
                (None, None) => None,
                (affinity, session) => Some(Box::new(Affinity { session, ..affinity.unwrap_or_default() })),
            };
            let upstreams = Upstreams::Cluster(Arc::clone(cluster), affinity);
            // A strict session has no other place.
            let fallback = route.fallback.clone().filter(|_| !upstreams.is_strict());
            let treatment = route.treatment.clone();
            let said = Said { fallback, treatment, ..Said::default() };
            return Ok((Plan::Forward(upstreams, said), filters));
        }
        Action::Redirect(redirect) => {
            let location = location(redirect, destination, request);
            let location = location.ok_or_else(|| ProxyError::BadRewrite(route.name.to_string()))?;
            Plan::Redirect { status: redirect.status, location }
        }
        Action::DirectResponse { status, body } => Plan::Answer { status: *status, body: body.clone() },
    };
    Ok((answer, Filtered::new(filters, None)))
}

/// Where a redirect leads.
fn location(redirect: &Redirect, destination: &Destination, request: &request::Parts) -> Option<HeaderValue> {
    let authority = match route::authority(request) {
        empty if empty.is_empty() => Cow::Owned(destination.to_string()),
        authority => authority,
    };
    let root = PathAndQuery::from_static("/");
    let path = request.uri.path_and_query().unwrap_or(&root);
    redirect::location(redirect, request.uri.scheme_str().unwrap_or("http"), &authority, path)
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
