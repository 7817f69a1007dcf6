//! Where configuration may come from: a static list. A new source is one file and one line in [`SOURCES`].

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::ledger::Ledger;
use super::names::Naming;
use super::xds::{Link, Xds};
use crate::bootstrap::Bootstrap;
use crate::identity::Identity;
use crate::slot::Slot;
use crate::snapshot::{Demand, Inbound, Outbound};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::telemetry::load::Load;

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
#[derive(Debug)]
pub struct Context {
    /// Settings.
    pub bootstrap: Arc<Bootstrap>,
    /// Our certificate, shown to the control plane.
    pub identity: Arc<Slot<Option<Identity>>>,
    /// What is asked for.
    pub demand: mpsc::Receiver<Demand>,
    /// Where outbound configuration is published.
    pub outbound: Arc<Slot<Outbound>>,
    /// Where inbound configuration is published.
    pub inbound: Arc<Slot<Option<Inbound>>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What load reports tell.
    pub load: Arc<Load>,
    /// Where what was accepted is kept.
    pub store: Option<Arc<Store>>,
    /// Clusters that are found by name.
    pub naming: Naming,
    /// Where it is written how each resource stands.
    pub ledger: Arc<Ledger>,
    /// Who else may use the connection to the control plane, while there is one.
    pub link: watch::Sender<Option<Link>>,
}
