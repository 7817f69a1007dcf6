//! The delta variant of the aggregated discovery service, without its I/O
//! (xDS protocol, "Incremental xDS").

use std::time::SystemTime;

use pillion_wire::xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};

use super::{
    catalog::{Catalog, Viewer},
    dialect::Dialect,
    kind::{Kind, PerKind},
    server::{Event, StreamCore, StreamError},
    subscriptions::{Outgoing, Standing, Subscriptions},
};

/// One delta stream.
#[derive(Debug, Default)]
pub struct Delta {
    subscriptions: Subscriptions,
    kinds: PerKind<KindState>,
    nonce: u64,
}

#[derive(Debug, Default)]
struct KindState {
    /// The client has asked for this kind before.
    known: bool,
    /// It waits for an answer even if that is empty: the end of a first wildcard.
    owes_answer: bool,
    /// The newest nonce sent.
    nonce: String,
}

impl StreamCore for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn node(request: &Self::Request) -> Option<&pillion_wire::xds::core::Node> {
        request.node.as_ref()
    }

    fn type_url(request: &Self::Request) -> &str {
        &request.type_url
    }

    fn handle_request(&mut self, kind: Kind, request: DeltaDiscoveryRequest) -> Result<Option<Event>, StreamError> {
        let event = self.answer(kind, &request);
        let state = self.kinds.get_mut(kind);
        let first = !std::mem::replace(&mut state.known, true);
        let subscribes = !request.resource_names_subscribe.is_empty();
        let takes_all = kind == Kind::Cluster || kind == Kind::Listener;
        if first && takes_all && !subscribes && request.resource_names_unsubscribe.is_empty() {
            state.owes_answer = true;
            self.subscriptions.subscribe_all(kind);
        }
        self.subscriptions.subscribe(kind, request.resource_names_subscribe)?;
        self.subscriptions.unsubscribe(kind, &request.resource_names_unsubscribe);
        if first {
            self.subscriptions.holds(kind, request.initial_resource_versions);
        }
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
    ) -> Option<DeltaDiscoveryResponse> {
        for kind in Kind::ALL {
            let changes = self.subscriptions.changes(kind, catalog, viewer);
            for (name, owner) in changes.refused.iter().cloned() {
                events.push(Event::Refused { name, owner });
            }
            let owed = std::mem::take(&mut self.kinds.get_mut(kind).owes_answer);
            if changes.is_empty() && !owed {
                continue;
            }
            if kind == Kind::Cluster && viewer.dialect == Dialect::Envoy {
                // Envoy warms a changed cluster only when its endpoints come again.
                let names = changes.resources.iter().map(|sent| sent.name.as_str());
                self.subscriptions.resend(Kind::Endpoints, names);
            }
            self.nonce += 1;
            let nonce = self.nonce.to_string();
            self.kinds.get_mut(kind).nonce.clone_from(&nonce);
            let names = changes.resources.iter().map(|sent| &sent.name).chain(&changes.removed);
            self.subscriptions.offered(kind, self.nonce, names.map(String::as_str));
            events.push(Event::Sent { kind, resources: changes.resources.len(), removed: changes.removed.len() });
            return Some(DeltaDiscoveryResponse {
                system_version_info: nonce.clone(),
                type_url: kind.type_url().to_owned(),
                removed_resources: changes.removed,
                resources: changes.resources.into_iter().map(resource).collect(),
                nonce,
                ..DeltaDiscoveryResponse::default()
            });
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

impl Delta {
    /// What the request says about an earlier response.
    fn answer(&mut self, kind: Kind, request: &DeltaDiscoveryRequest) -> Option<Event> {
        if request.response_nonce.is_empty() {
            return None;
        }
        if let Ok(nonce) = request.response_nonce.parse() {
            let detail = request.error_detail.as_ref().map(|detail| detail.message.as_str());
            self.subscriptions.answered(kind, nonce, detail);
        }
        Some(match &request.error_detail {
            Some(detail) => {
                Event::Nack { kind, version: request.response_nonce.clone(), reason: detail.message.clone() }
            }
            None => Event::Ack { kind, version: request.response_nonce.clone() },
        })
    }
}

fn resource(outgoing: Outgoing) -> Resource {
    Resource {
        name: outgoing.name,
        version: outgoing.version.to_string(),
        resource: Some(outgoing.body),
        ..Resource::default()
    }
}

#[cfg(test)]
mod tests;
