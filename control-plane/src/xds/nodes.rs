//! Who is connected, and what they said about what they were sent: for the admin
//! page and the metrics.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde::Serialize;

use super::{
    kind::{Kind, PerKind},
    server::Event,
};
use crate::metrics::Metrics;

/// The longest error text of a client that is kept.
const MAX_REASON_CHARS: usize = 500;

/// All connected nodes.
#[derive(Debug)]
pub struct Nodes {
    metrics: Arc<Metrics>,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    by_number: BTreeMap<u64, Status>,
}

/// Who opened a stream.
#[derive(Clone, Debug, Serialize)]
pub struct Identification {
    /// `Node.id`.
    pub node: String,
    /// The proven identity.
    pub identity: String,
    /// The client's family.
    pub dialect: &'static str,
    /// `delta` or `sotw`.
    pub variant: &'static str,
    /// Version of the client's program.
    pub version: String,
    /// Where it connected from.
    pub address: Option<SocketAddr>,
}

#[derive(Clone, Debug)]
struct Status {
    who: Identification,
    since: SystemTime,
    names: usize,
    kinds: PerKind<KindStatus>,
}

#[derive(Clone, Debug, Default, Serialize)]
struct KindStatus {
    responses: u64,
    resources: u64,
    removed: u64,
    acks: u64,
    nacks: u64,
    accepted: Option<String>,
    last_error: Option<String>,
}

impl Nodes {
    /// Nobody yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { metrics, streams: Mutex::default() })
    }

    /// Notes a new stream until the registration is dropped.
    pub fn register(self: &Arc<Self>, who: Identification) -> Registration {
        self.metrics.streams(who.dialect).inc();
        let mut streams = self.streams.lock();
        streams.next += 1;
        let number = streams.next;
        streams.by_number.insert(number, Status { who, since: SystemTime::now(), names: 0, kinds: PerKind::default() });
        Registration { nodes: Arc::clone(self), number }
    }

    /// Sidecars that are connected, by `Node.id` (`namespace/workload`), and whether each has refused something.
    #[must_use]
    pub fn sidecars(&self) -> BTreeMap<String, bool> {
        let streams = self.streams.lock();
        let ours = streams.by_number.values().filter(|status| status.who.dialect == "pillion");
        let refused = |status: &Status| status.kinds.iter().any(|(_, kind)| kind.nacks > 0);
        ours.map(|status| (status.who.node.clone(), refused(status))).collect()
    }

    /// All of it as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let streams = self.streams.lock();
        let nodes: Vec<serde_json::Value> = streams.by_number.values().map(Status::to_json).collect();
        serde_json::json!({ "nodes": nodes })
    }
}

impl Status {
    fn to_json(&self) -> serde_json::Value {
        let kinds: BTreeMap<&str, &KindStatus> =
            self.kinds.iter().map(|(kind, status)| (kind.name(), status)).collect();
        serde_json::json!({
            "node": self.who.node,
            "identity": self.who.identity,
            "dialect": self.who.dialect,
            "variant": self.who.variant,
            "version": self.who.version,
            "address": self.who.address,
            "connected_unix_seconds": self
                .since
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            "names": self.names,
            "kinds": kinds,
        })
    }
}

/// A stream in the list, until dropped.
#[derive(Debug)]
pub struct Registration {
    nodes: Arc<Nodes>,
    number: u64,
}

impl Registration {
    /// Notes what happened on the stream.
    pub fn note(&self, event: &Event) {
        let metrics = &self.nodes.metrics;
        match event {
            Event::Ack { kind, .. } => metrics.ack(*kind),
            Event::Nack { kind, .. } => metrics.nack(*kind),
            Event::Sent { kind, resources, .. } => metrics.response(*kind, *resources),
            Event::Refused { .. } => metrics.refused_resource(),
        }
        let mut streams = self.nodes.streams.lock();
        if let Some(status) = streams.by_number.get_mut(&self.number) {
            status.note(event);
        }
    }

    /// Notes how many names the stream asks for.
    pub fn names(&self, names: usize) {
        let mut streams = self.nodes.streams.lock();
        if let Some(status) = streams.by_number.get_mut(&self.number) {
            status.names = names;
        }
    }
}

impl Status {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Ack { kind, version } => {
                let status = self.kind(*kind);
                status.acks += 1;
                status.accepted = Some(version.clone());
            }
            Event::Nack { kind, version, reason } => {
                let status = self.kind(*kind);
                status.nacks += 1;
                let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
                status.last_error = Some(format!("{version}: {reason}"));
            }
            Event::Sent { kind, resources, removed } => {
                let status = self.kind(*kind);
                status.responses += 1;
                status.resources += u64::try_from(*resources).unwrap_or(u64::MAX);
                status.removed += u64::try_from(*removed).unwrap_or(u64::MAX);
            }
            Event::Refused { .. } => {}
        }
    }

    fn kind(&mut self, kind: Kind) -> &mut KindStatus {
        self.kinds.get_mut(kind)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let removed = self.nodes.streams.lock().by_number.remove(&self.number);
        if let Some(status) = removed {
            self.nodes.metrics.streams(status.who.dialect).dec();
        }
    }
}
