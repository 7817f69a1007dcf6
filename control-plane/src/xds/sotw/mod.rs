//! The state-of-the-world variant of the aggregated discovery service, without
//! its I/O (xDS protocol, "SotW"): what gRPC's own client speaks.
//!
//! A response of listeners or clusters holds all that were asked for, and what is
//! not in it does not exist. One of routes or endpoints holds what changed.

use std::time::SystemTime;

use pillion_wire::xds::{
    Any,
    discovery::{DiscoveryRequest, DiscoveryResponse},
};

use super::{
    catalog::{Catalog, Viewer},
    kind::{Kind, PerKind},
    server::{Event, StreamCore, StreamError},
    subscriptions::{Outgoing, Standing, Subscriptions},
    version::version,
};

/// One state-of-the-world stream.
#[derive(Debug, Default)]
pub struct Sotw {
    subscriptions: Subscriptions,
    kinds: PerKind<KindState>,
    nonce: u64,
}

#[derive(Debug, Default)]
struct KindState {
    /// The client has asked for this kind before.
    known: bool,
    /// It waits for an answer even if that is empty.
    owes_answer: bool,
    /// The newest nonce sent.
    nonce: String,
}

impl StreamCore for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn node(request: &Self::Request) -> Option<&pillion_wire::xds::core::Node> {
        request.node.as_ref()
    }

    fn type_url(request: &Self::Request) -> &str {
        &request.type_url
    }

    fn handle_request(&mut self, kind: Kind, request: DiscoveryRequest) -> Result<Option<Event>, StreamError> {
        let state = self.kinds.get_mut(kind);
        let nonce = &request.response_nonce;
        if !nonce.is_empty() && *nonce != state.nonce {
            // Says nothing about the newest response: another request follows.
            return Ok(None);
        }
        let first = !std::mem::replace(&mut state.known, true);
        let event = (!nonce.is_empty()).then(|| match &request.error_detail {
            Some(detail) => Event::Nack { kind, version: request.version_info.clone(), reason: detail.message.clone() },
            None => Event::Ack { kind, version: request.version_info.clone() },
        });
        if !nonce.is_empty() {
            let detail = request.error_detail.as_ref().map(|detail| detail.message.as_str());
            self.subscriptions.answered(kind, nonce.parse().unwrap_or_default(), detail);
        }
        let takes_all = whole(kind);
        if request.resource_names.is_empty() && takes_all && (first || self.subscriptions.is_wildcard(kind)) {
            if first {
                self.kinds.get_mut(kind).owes_answer = true;
                self.subscriptions.subscribe_all(kind);
            }
            return Ok(event);
        }
        self.subscriptions.replace(kind, request.resource_names)?;
        Ok(event)
    }

    fn mark_changed(&mut self) {
        self.subscriptions.mark_changed();
    }

    fn poll_response(
        &mut self,
        catalog: &Catalog,
        viewer: &Viewer,
        events: &mut Vec<Event>,
    ) -> Option<DiscoveryResponse> {
        for kind in Kind::ALL {
            let changes = self.subscriptions.changes(kind, catalog, viewer);
            for (name, owner) in changes.refused.iter().cloned() {
                events.push(Event::Refused { name, owner });
            }
            let owed = std::mem::take(&mut self.kinds.get_mut(kind).owes_answer);
            let nothing_new = changes.resources.is_empty();
            if nothing_new && !owed && (changes.removed.is_empty() || !whole(kind)) {
                continue;
            }
            if kind == Kind::Cluster {
                // Envoy warms a changed cluster only when its endpoints come again.
                let names = changes.resources.iter().map(|sent| sent.name.as_str());
                self.subscriptions.resend(Kind::Endpoints, names);
            }
            let resources = if whole(kind) {
                while !self.subscriptions.changes(kind, catalog, viewer).is_empty() {}
                self.subscriptions.all(kind, catalog, viewer)
            } else {
                changes.resources
            };
            events.push(Event::Sent { kind, resources: resources.len(), removed: changes.removed.len() });
            let names = resources.iter().map(|sent| &sent.name).chain(&changes.removed);
            self.subscriptions.offered(kind, self.nonce + 1, names.map(String::as_str));
            return Some(self.response(kind, resources));
        }
        None
    }

    fn names(&self) -> usize {
        self.subscriptions.count()
    }

    fn handle_time(&mut self, now: SystemTime) {
        self.subscriptions.handle_time(now);
    }

    fn standings(&self, catalog: &Catalog, viewer: &Viewer) -> Vec<Standing> {
        self.subscriptions.standings(catalog, viewer)
    }

    fn is_refused(&self) -> bool {
        self.subscriptions.is_refused()
    }
}

impl Sotw {
    fn response(&mut self, kind: Kind, resources: Vec<Outgoing>) -> DiscoveryResponse {
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        self.kinds.get_mut(kind).nonce.clone_from(&nonce);
        let held: Vec<(&str, &str)> =
            resources.iter().map(|outgoing| (outgoing.name.as_str(), &*outgoing.version)).collect();
        DiscoveryResponse {
            version_info: version(&held),
            type_url: kind.type_url().to_owned(),
            nonce,
            resources: resources.into_iter().map(|outgoing| -> Any { outgoing.body }).collect(),
            ..DiscoveryResponse::default()
        }
    }
}

/// Whether a response of `kind` says all there is.
const fn whole(kind: Kind) -> bool {
    matches!(kind, Kind::Cluster | Kind::Listener)
}

#[cfg(test)]
mod tests;
