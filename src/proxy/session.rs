//! Sessions: which cluster and host a request belongs to that brings one along, and what its client is given.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::SET_COOKIE;
use http::{HeaderMap, request};

use super::Worker;
use super::attempt::Upstreams;
use crate::config::Session;
use crate::error::ProxyError;
use crate::route::Bound;
use crate::route::session::{self, Came};
use crate::snapshot::{Choice, Split};
use crate::telemetry::Record;
use crate::upstream::Host;

/// The cluster that takes a request of a route that keeps sessions. A session stays in its cluster, however the weights
/// have changed, as long as that has any share.
///
/// New ones go by `hash` where that says which cluster.
///
/// # Errors
/// [`ProxyError::SessionLost`]: the route is strict, and the session belongs to a cluster that has no share any more.
pub(super) fn choose<'a>(
    worker: &Worker,
    rules: &Arc<Session>,
    split: &'a Split,
    hash: Option<u64>,
    request: &request::Parts,
) -> Result<(&'a Choice, Option<Bound>), ProxyError> {
    if !session::concerns(rules, request.uri.path()) {
        return Ok((split.choose_for(hash, rand::random), None));
    }
    let metrics = &worker.shared.telemetry.metrics;
    let token = match session::read(rules, request, now) {
        Came::Nothing => None,
        Came::Malformed => {
            metrics.session("malformed");
            None
        }
        Came::Expired => {
            metrics.session("expired");
            None
        }
        Came::Token(token) => Some(token),
    };
    let own = token.as_ref().and_then(|token| token.cluster.as_deref());
    let choice = match own {
        Some(name) => split.choices().map(|(_, choice)| choice).find(|choice| choice.cluster.config.name == name),
        None => Some(split.choose_for(hash, rand::random)),
    };
    let Some(choice) = choice else {
        if rules.strict {
            metrics.session("lost");
            // What the client wrote is not repeated.
            return Err(ProxyError::SessionLost(split.choose(0).cluster.config.name.clone()));
        }
        return Ok((
            split.choose_for(hash, rand::random),
            Some(Bound { rules: Arc::clone(rules), token, pinned: None }),
        ));
    };
    // One that is known by its name is the only host of its cluster, and at no address.
    let pinned = token.as_ref().map(|token| token.address).filter(|address| !address.ip().is_unspecified());
    Ok((choice, Some(Bound { rules: Arc::clone(rules), token, pinned })))
}

/// Gives the client what it comes back with, if `host` answered it in the cluster that its route chose.
pub(super) fn give(worker: &Worker, upstreams: &Upstreams, host: &Host, headers: &mut HeaderMap, record: &Record) {
    let Upstreams::Cluster(cluster, Some(affinity)) = upstreams else { return };
    let Some(bound) = &affinity.session else { return };
    // A fallback is no place to stay, and a host that is known by its name needs none: it is the only one.
    if record.cluster != *cluster.upstream.name() || host.key().name.is_some() {
        return;
    }
    let (address, name) = (host.key().address, cluster.config.name.as_str());
    worker.shared.telemetry.metrics.session(match &bound.token {
        None => "new",
        Some(_) if bound.keeps(address, name) => "kept",
        Some(_) => "moved",
    });
    if let Some((name, value)) = session::give(bound, address, name, now) {
        match name {
            SET_COOKIE => drop(headers.append(name, value)),
            _ => drop(headers.insert(name, value)),
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
