//! Where configuration may come from: a static list. A new source is one file and one line in [`SOURCES`].

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::xds::Xds;
use crate::bootstrap::Bootstrap;
use crate::identity::Identity;
use crate::slot::Slot;
use crate::snapshot::{Demand, Inbound, Outbound};
use crate::store::Store;
use crate::telemetry::Metrics;

/// Takes demand in, publishes snapshots.
pub(super) trait ConfigSource: Send + Sync {
    /// Its name in settings.
    fn name(&self) -> &'static str;
    /// Runs for as long as the process does. Keeps what it published in force whatever happens to its own source.
    fn run(&self, context: Context) -> Pin<Box<dyn Future<Output = Infallible> + Send>>;
}

/// All sources.
pub(super) static SOURCES: &[&dyn ConfigSource] = &[&Xds];

/// What every source works with.
pub(super) struct Context {
    pub(super) bootstrap: Arc<Bootstrap>,
    pub(super) identity: Arc<Slot<Option<Identity>>>,
    pub(super) demand: mpsc::Receiver<Demand>,
    pub(super) outbound: Arc<Slot<Outbound>>,
    pub(super) inbound: Arc<Slot<Option<Inbound>>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) store: Option<Arc<Store>>,
}
