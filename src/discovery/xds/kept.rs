//! The last good configuration, kept on disk: each accepted resource as it came.
//!
//! Resources are written some time after they came, so that a storm of changes costs one write each; what is not
//! written when we are killed, the control plane knows.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;
use pillion_wire::xds::discovery::Resource;
use prost::Message as _;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::discovery::Kind;
use crate::store::Store;
use crate::telemetry::Metrics;

/// How long changes are gathered.
const GATHER: Duration = Duration::from_millis(200);

/// Writes what it is told behind our back, for as long as it lives.
#[derive(Debug)]
pub(super) struct Kept {
    store: Arc<Store>,
    pending: Arc<Pending>,
    task: tokio::task::JoinHandle<()>,
}

/// What is to be written; `None`: to be removed.
#[derive(Debug, Default)]
struct Pending {
    values: Mutex<BTreeMap<String, Option<Resource>>>,
    changed: Notify,
}

impl Kept {
    pub(super) fn new(store: Arc<Store>, metrics: Arc<Metrics>) -> Self {
        let pending = Arc::new(Pending::default());
        let task = tokio::spawn(write_on(Arc::clone(&store), Arc::clone(&pending), metrics));
        Self { store, pending, task }
    }

    /// Keeps a resource that was accepted.
    pub(super) fn keep(&self, kind: Kind, resource: Resource) {
        self.set(file_name(kind, &resource.name), Some(resource));
    }

    /// Forgets a resource.
    pub(super) fn forget(&self, kind: Kind, name: &str) {
        self.set(file_name(kind, name), None);
    }

    /// Where things are kept.
    pub(super) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// We live on what was kept, or no longer.
    pub(super) fn set_in_use(&self, in_use: bool) {
        self.store.set_in_use(in_use);
    }

    fn set(&self, name: String, value: Option<Resource>) {
        self.pending.values.lock().insert(name, value);
        self.pending.changed.notify_one();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All that was kept, by kind. What is damaged is left out, and said so. Blocks.
pub(super) fn read(store: &Store) -> BTreeMap<Kind, Vec<Resource>> {
    let mut all: BTreeMap<Kind, Vec<Resource>> = BTreeMap::new();
    let folder = store.folder().display();
    let names = store.names().unwrap_or_else(|error| {
        tracing::warn!(%error, %folder, "cannot read what was kept");
        Vec::new()
    });
    for name in names {
        let Some(kind) = Kind::ALL.into_iter().find(|kind| is_of(*kind, &name)) else { continue };
        match resource(store, kind, &name) {
            Ok(resource) => all.entry(kind).or_default().extend(resource),
            Err(error) => tracing::warn!(%error, %folder, name, "cannot use what was kept"),
        }
    }
    all
}

fn resource(store: &Store, kind: Kind, name: &str) -> io::Result<Option<Resource>> {
    let Some(bytes) = store.read(name)? else { return Ok(None) };
    let resource = Resource::decode(bytes.as_slice())?;
    if file_name(kind, &resource.name) != name {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is called otherwise"));
    }
    Ok(Some(resource))
}

async fn write_on(store: Arc<Store>, pending: Arc<Pending>, metrics: Arc<Metrics>) {
    loop {
        pending.changed.notified().await;
        sleep(GATHER).await;
        let values = std::mem::take(&mut *pending.values.lock());
        let store = Arc::clone(&store);
        let written = tokio::task::spawn_blocking(move || write(&store, values)).await;
        if let Ok(Err(error)) = written {
            metrics.store_failure();
            tracing::warn!(%error, "cannot keep the configuration on disk");
        }
    }
}

/// The first failure, after all was tried.
fn write(store: &Store, values: BTreeMap<String, Option<Resource>>) -> io::Result<()> {
    let mut outcome = Ok(());
    for (name, value) in values {
        let done = match value {
            Some(resource) => store.write(&name, &resource.encode_to_vec()),
            None => store.remove(&name),
        };
        outcome = outcome.and(done);
    }
    outcome
}

/// Names of resources are longer than those of files may be.
fn file_name(kind: Kind, name: &str) -> String {
    use std::fmt::Write as _;
    let mut text = prefix(kind);
    for byte in digest(&SHA256, name.as_bytes()).as_ref() {
        // Writing to a string never fails.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

fn is_of(kind: Kind, file: &str) -> bool {
    file.starts_with(&prefix(kind))
}

fn prefix(kind: Kind) -> String {
    format!("{}-", kind.label())
}
