//! The data plane: the walk of a request, one step per file.
//!
//! ```text
//! listener    permit -> accept -> spawn(connection)
//! connection  detect / terminate TLS -> Client          -> http::serve | tcp::serve
//! interception  where was it going? race: who speaks first -> the same
//! http        plan (outbound | inbound) -> filters -> headers -> attempt::send -> filters -> reply
//! filters     what routes do: cors, fault, rewrite, headers, mirror
//! global_rate_limit  inbound: a question to a rate-limit service, by attempt::send
//! fallback    attempt::send -> the next backend, or a prescribed answer
//! retry       where a route says so: deadline( repeat( attempt::send ) )
//! shedding    is there room in our application, and for whom?
//! attempt     pick a host -> take a connection -> send -> report
//! tunnel      CONNECT and upgrades: two byte streams joined
//! tcp         the same order without routes and headers
//! health      active checks of hosts, beside all this
//! reply       the only place that turns a ProxyError into a response
//! ```

mod attempt;
mod authority;
mod call;
mod client;
mod connection;
mod fallback;
mod feedback;
mod filters;
mod global_rate_limit;
mod guard;
pub mod health;
mod http;
mod inbound;
mod interception;
mod limits;
pub mod listener;
mod message;
mod mirror;
mod outbound;
mod race;
mod rate_limit;
mod refused;
mod reply;
mod retry;
mod session;
mod shedding;
mod tcp;
mod tunnel;

pub use connection::Entry;
pub use race::Memory;

use std::sync::Arc;

use crate::bootstrap::Bootstrap;
use crate::dns::Resolutions;
use crate::drain::Drain;
use crate::filter::Active;
use crate::identity::Identity;
use crate::net::Dialer;
use crate::resilience::joined::Table;
use crate::slot::Slot;
use crate::snapshot::{Cluster, Directory, Inbound};
use crate::telemetry::{Recorder, Telemetry};
use crate::tls::{TlsClient, TlsServer};
use crate::upstream::Pool;

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// Settings.
    pub settings: Arc<Bootstrap>,
    /// Outbound configuration.
    pub directory: Directory,
    /// Inbound configuration; `None` until the first has come.
    pub inbound: Arc<Slot<Option<Inbound>>>,
    /// Our certificate; `None` until the first has come.
    pub identity: Arc<Slot<Option<Identity>>>,
    /// TLS that we terminate.
    pub tls: TlsServer,
    /// Metrics and access log.
    pub telemetry: Telemetry,
    /// Requests that are held back on purpose.
    pub faults: Active,
    /// Copies of requests on their way.
    pub mirrors: Active,
    /// Inbound requests that outbound calls may belong to.
    pub joined: Arc<Table>,
    /// What intercepted destinations turned out to be.
    pub detected: Memory,
    /// How the names of clusters stand.
    pub resolutions: Arc<Resolutions>,
    /// Tells everything to finish.
    pub drain: Drain,
}

impl Shared {
    /// Every cluster in use once, those that our own ports ask included.
    pub fn clusters(&self) -> Vec<Arc<Cluster>> {
        let mut clusters = self.directory.outbound().load_full().clusters();
        let inbound = self.inbound.load();
        for cluster in inbound.as_ref().iter().flat_map(Inbound::clusters) {
            if clusters.iter().all(|known| known.config.name != cluster.config.name) {
                clusters.push(Arc::clone(cluster));
            }
        }
        clusters
    }
}

/// One data-plane thread: what it shares with the others, and connections of its own.
#[derive(Debug)]
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// This worker's upstream connections.
    pub pool: Pool,
    recorder: Arc<Recorder>,
}

impl Worker {
    /// A worker without connections.
    pub fn new(shared: Arc<Shared>, tls: Arc<TlsClient>, dialer: Dialer) -> Self {
        let recorder = Arc::new(Recorder::new(shared.telemetry.clone()));
        Self { shared, pool: Pool::new(tls, dialer), recorder }
    }

    /// Is the application in another network namespace than we are?
    fn is_beside_application(&self) -> bool {
        self.shared.settings.intercept.as_ref().is_some_and(|intercept| intercept.namespace.is_some())
    }
}
