//! Who is connected, and what they said about what they were sent: for the admin
//! page and the metrics.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    catalog::{Catalog, Viewer},
    kind::{Kind, PerKind},
    server::Event,
    subscriptions::Standing,
};
use crate::metrics::Metrics;

/// The longest error text of a client that is kept.
const MAX_REASON_CHARS: usize = 500;
/// How long a stream may take to say how it stands. It does nothing but that meanwhile.
const ANSWER: Duration = Duration::from_secs(5);

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
    is_refused: bool,
    kinds: PerKind<KindStatus>,
    questions: mpsc::Sender<oneshot::Sender<Answer>>,
}

/// How everything stands that one client has asked for.
#[derive(Debug)]
pub struct Answer {
    /// Each resource.
    pub standings: Vec<Standing>,
    /// What it was compared with.
    pub catalog: Arc<Catalog>,
    /// What the client may see of it.
    pub viewer: Viewer,
}

/// A connected client.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Who it is.
    pub who: Identification,
    /// Since when.
    pub since: SystemTime,
    questions: mpsc::Sender<oneshot::Sender<Answer>>,
}

impl Connected {
    /// How everything stands that it has asked for. `None`: it has just gone.
    pub async fn ask(&self) -> Option<Answer> {
        let (asker, answer) = oneshot::channel();
        timeout(ANSWER, async {
            self.questions.send(asker).await.ok()?;
            answer.await.ok()
        })
        .await
        .ok()?
    }
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
    pub fn register(
        self: &Arc<Self>,
        who: Identification,
        questions: mpsc::Sender<oneshot::Sender<Answer>>,
    ) -> Registration {
        self.metrics.streams(who.dialect).inc();
        let mut streams = self.streams.lock();
        streams.next += 1;
        let number = streams.next;
        streams.by_number.insert(
            number,
            Status { who, since: SystemTime::now(), names: 0, is_refused: false, kinds: PerKind::default(), questions },
        );
        Registration { nodes: Arc::clone(self), number }
    }

    /// Who is connected, each node once: of several streams the newest counts.
    #[must_use]
    pub fn connected(&self) -> Vec<Connected> {
        let streams = self.streams.lock();
        let mut newest: BTreeMap<(&str, &str), &Status> = BTreeMap::new();
        for status in streams.by_number.values() {
            newest.insert((&status.who.node, &status.who.identity), status);
        }
        let connected = |status: &&Status| Connected {
            who: status.who.clone(),
            since: status.since,
            questions: status.questions.clone(),
        };
        newest.values().map(connected).collect()
    }

    /// Sidecars that are connected, by `Node.id` (`namespace/workload`), and whether each refuses something of the
    /// newest that it was sent.
    #[must_use]
    pub fn sidecars(&self) -> BTreeMap<String, bool> {
        let streams = self.streams.lock();
        let ours = streams.by_number.values().filter(|status| status.who.dialect == "pillion");
        ours.map(|status| (status.who.node.clone(), status.is_refused)).collect()
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

    /// Notes how many names the stream asks for, and whether something of the newest is refused.
    pub fn asks(&self, names: usize, is_refused: bool) {
        let mut streams = self.nodes.streams.lock();
        if let Some(status) = streams.by_number.get_mut(&self.number) {
            status.names = names;
            status.is_refused = is_refused;
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
