//! The client's half of the incremental xDS protocol, without any I/O.
//!
//! ```text
//! subscribe ─┐                         ┌─> poll_request ─> server
//! unsubscribe┼─> Delta { per kind:     │
//! response ──┘   wanted, held, queue } ┴─> Update (accepted | removed)
//! ```
//! Each resource of a response is judged by itself: valid ones are used even
//! when their neighbours are refused. A refused one is not recorded as held, so
//! that the server sends it again after a reconnect. What is held survives a
//! broken stream: it stays in force, and the next stream says which versions we
//! have, so that only changes are sent
//! (<https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds>).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use pillion_wire::xds::core::Node;
use pillion_wire::xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use pillion_wire::xds::rpc::Status;
use pillion_wire::xds::type_url;

use super::translate::{self, Refusal};
use crate::discovery::{Change, Kind, Update};

/// Refusals that are spelt out in one NACK; the rest is counted.
const NAMED_REFUSALS: usize = 32;
/// gRPC's `INVALID_ARGUMENT`, as NACKs carry it.
const INVALID_ARGUMENT: i32 = 3;

/// State of all subscriptions. Outlives streams.
#[derive(Debug)]
pub(crate) struct Delta {
    node: Option<Node>,
    node_sent: bool,
    kinds: BTreeMap<Kind, Subscriptions>,
    answers: VecDeque<DeltaDiscoveryRequest>,
}

#[derive(Debug, Default)]
struct Subscriptions {
    /// What we want to know.
    wanted: BTreeSet<String>,
    /// Versions of what was accepted.
    held: HashMap<String, String>,
    /// Not yet told to the server of this stream.
    subscribe: BTreeSet<String>,
    unsubscribe: BTreeSet<String>,
    /// Has this stream already seen a request of this kind?
    opened: bool,
}

/// What a response amounted to.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// What changed, in the order sent.
    pub(crate) updates: Vec<Update>,
    /// What was accepted, as it came.
    pub(crate) accepted: Vec<(Kind, Resource)>,
    /// What was refused, and why.
    pub(crate) refused: Vec<(Kind, String, Refusal)>,
    /// The versions of those, in the same order.
    pub(crate) refused_versions: Vec<String>,
}

impl Delta {
    pub(crate) fn new(node: Node) -> Self {
        let kinds = Kind::ALL.into_iter().map(|kind| (kind, Subscriptions::default())).collect();
        Self { node: Some(node), node_sent: false, kinds, answers: VecDeque::new() }
    }

    /// Asks for `name` from now on.
    pub(crate) fn subscribe(&mut self, kind: Kind, name: &str) {
        let kind = self.kinds.entry(kind).or_default();
        if kind.wanted.insert(name.to_owned()) {
            // A name that was just given up is asked for afresh: the server sends it again.
            kind.subscribe.insert(name.to_owned());
        }
    }

    /// No longer asks for `name`, and forgets what was held of it.
    pub(crate) fn unsubscribe(&mut self, kind: Kind, name: &str) {
        let kind = self.kinds.entry(kind).or_default();
        if !kind.wanted.remove(name) {
            return;
        }
        kind.held.remove(name);
        if !kind.subscribe.remove(name) {
            kind.unsubscribe.insert(name.to_owned());
        }
    }

    /// A new stream has begun: the server knows nothing of us.
    pub(crate) fn handle_stream_start(&mut self) {
        self.node_sent = false;
        self.answers.clear(); // Nonces live only as long as their stream.
        for kind in self.kinds.values_mut() {
            kind.opened = false;
            kind.unsubscribe.clear();
            kind.subscribe.clone_from(&kind.wanted);
        }
    }

    /// Judges a response and queues its ACK or NACK.
    pub(crate) fn handle_response(&mut self, response: DeltaDiscoveryResponse) -> Received {
        let mut received = Received::default();
        let mut answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        match kind_of(&response.type_url) {
            Some(kind) => {
                let subscriptions = self.kinds.entry(kind).or_default();
                for resource in response.resources {
                    subscriptions.take(kind, resource, &mut received);
                }
                for name in response.removed_resources {
                    subscriptions.remove(kind, name, &mut received);
                }
                answer.error_detail = error_detail(&received.refused);
            }
            None => {
                let message = format!("type {} was not asked for", excerpt(&response.type_url));
                answer.error_detail = Some(Status { code: INVALID_ARGUMENT, message, details: Vec::new() });
            }
        }
        self.answers.push_back(answer);
        received
    }

    /// The next request to send, if there is one: answers first, then changed subscriptions.
    pub(crate) fn poll_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        let mut request = match self.answers.pop_front() {
            Some(answer) => answer,
            None => self.kinds.iter_mut().find_map(|(kind, subscriptions)| subscriptions.poll(*kind))?,
        };
        if !self.node_sent {
            self.node_sent = true;
            request.node.clone_from(&self.node);
        }
        Some(request)
    }
}

impl Subscriptions {
    fn take(&mut self, kind: Kind, resource: Resource, received: &mut Received) {
        if !self.wanted.contains(&resource.name) {
            return; // It crossed with our unsubscribe.
        }
        let judged = match (&resource.resource, &resource.ttl) {
            (_, Some(_)) => Err(Refusal::unsupported("ttl")),
            (None, None) => Err(Refusal::missing("resource")),
            (Some(content), None) => translate::resource(kind, &resource.name, content),
        };
        let name = resource.name.clone();
        match judged {
            Ok(config) => {
                self.held.insert(name.clone(), resource.version.clone());
                received.updates.push(Update { kind, name, change: Change::Accepted(config) });
                received.accepted.push((kind, resource));
            }
            Err(refusal) => {
                received.refused.push((kind, name, refusal));
                received.refused_versions.push(resource.version);
            }
        }
    }

    fn remove(&mut self, kind: Kind, name: String, received: &mut Received) {
        if self.wanted.contains(&name) {
            self.held.remove(&name);
            received.updates.push(Update { kind, name, change: Change::Removed });
        }
    }

    fn poll(&mut self, kind: Kind) -> Option<DeltaDiscoveryRequest> {
        if self.subscribe.is_empty() && self.unsubscribe.is_empty() {
            return None;
        }
        // The first request of a kind must name something, for an empty one would subscribe to everything.
        if !self.opened && self.subscribe.is_empty() {
            self.unsubscribe.clear();
            return None;
        }
        let initial = if self.opened { HashMap::new() } else { self.held.clone() };
        self.opened = true;
        // Given up and wanted again before we could say so: the server has to hear both, and hears
        // the unsubscription first (both may stand in one request only when the names differ).
        let both: BTreeSet<String> = self.subscribe.intersection(&self.unsubscribe).cloned().collect();
        let subscribe = if both.is_empty() { std::mem::take(&mut self.subscribe) } else { BTreeSet::new() };
        Some(DeltaDiscoveryRequest {
            type_url: url_of(kind).to_owned(),
            resource_names_subscribe: subscribe.into_iter().collect(),
            resource_names_unsubscribe: std::mem::take(&mut self.unsubscribe).into_iter().collect(),
            initial_resource_versions: initial,
            ..DeltaDiscoveryRequest::default()
        })
    }
}

pub(super) fn url_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Listener => type_url::LISTENER,
        Kind::Route => type_url::ROUTE,
        Kind::Cluster => type_url::CLUSTER,
        Kind::Endpoints => type_url::ENDPOINTS,
    }
}

/// `resources` of one kind as a server would send them.
pub(crate) fn response(kind: Kind, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse { type_url: url_of(kind).to_owned(), resources, ..DeltaDiscoveryResponse::default() }
}

fn kind_of(url: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|&kind| url_of(kind) == url)
}

/// What a NACK says: each refused resource with the path of the field, within reason.
fn error_detail(refused: &[(Kind, String, Refusal)]) -> Option<Status> {
    if refused.is_empty() {
        return None;
    }
    let mut lines: Vec<String> =
        refused.iter().take(NAMED_REFUSALS).map(|(_, name, refusal)| format!("{}: {refusal}", excerpt(name))).collect();
    if refused.len() > NAMED_REFUSALS {
        lines.push(format!("and {} more", refused.len() - NAMED_REFUSALS));
    }
    Some(Status { code: INVALID_ARGUMENT, message: lines.join("; "), details: Vec::new() })
}

/// Enough of a foreign text to recognise it.
fn excerpt(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests;
