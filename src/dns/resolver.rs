//! The walk of a query: the mesh, then the upstreams, then what they said before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::forward::forward;
use super::message::{Malformed, Meaning, Query, Transport, meaning};
use super::names::may_be_of_mesh;
use super::stale::Stale;
use super::upstream::Upstream;
use crate::snapshot::{Directory, Unresolved};
use crate::telemetry::Metrics;

/// How long the control plane may take to say whether a name is one of the mesh.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same for a while after it has failed to, so that not every name of the world waits so long while it is away.
const IMPATIENCE: Duration = Duration::from_millis(100);
const AWAY: Duration = Duration::from_secs(5);
/// When an old answer is there, it is given after this long: clients commonly ask again after 5 s.
const STALE_AFTER: Duration = Duration::from_secs(4);

/// All that answering needs. One for all sockets.
#[derive(Debug)]
pub(super) struct Resolver {
    names: Directory,
    upstream: Upstream,
    /// Where we listen ourselves.
    own: Vec<SocketAddr>,
    stale: Mutex<Stale>,
    /// When the control plane last did not answer in time.
    failed: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

impl Resolver {
    pub(super) fn new(names: Directory, upstream: Upstream, own: Vec<SocketAddr>, metrics: Arc<Metrics>) -> Self {
        Self { names, upstream, own, stale: Mutex::default(), failed: Mutex::default(), metrics }
    }

    /// The answer to a client's message; none: it deserves none. Counts it.
    ///
    /// # Cancel safety
    /// Nothing is left behind, and nothing is counted.
    pub(super) async fn answer(&self, message: Vec<u8>, transport: Transport) -> Option<Vec<u8>> {
        let start = Instant::now();
        let (result, answer) = match Query::parse(message) {
            Ok(query) => self.resolve(&query, transport).await,
            Err(Malformed { answer }) => ("malformed", answer),
        };
        self.metrics.dns_query(result, transport.as_str(), start.elapsed());
        answer
    }

    /// A client's message was dropped, because too many are under way.
    pub(super) fn overloaded(&self, transport: Transport) {
        self.metrics.dns_query("overload", transport.as_str(), Duration::ZERO);
    }

    async fn resolve(&self, query: &Query, transport: Transport) -> (&'static str, Option<Vec<u8>>) {
        let limit = query.limit(transport);
        if let Some(answer) = self.of_mesh(query, limit).await {
            return ("mesh", Some(answer));
        }
        let key = query.key();
        let stale = self.stale.lock().get(&key, Instant::now()).map(<[u8]>::to_vec);
        let stale = stale.and_then(|raw| query.stale_answer(&raw, limit));
        let asked = forward(query, transport, &self.upstream, &self.own);
        let patience = if stale.is_some() { STALE_AFTER } else { Duration::MAX };
        match timeout(patience, asked).await.unwrap_or(Err(None)) {
            Ok(answer) => {
                self.remember(key, &answer);
                ("forwarded", Some(answer))
            }
            Err(_) if stale.is_some() => ("stale", stale),
            Err(failure) => ("servfail", failure.or_else(|| query.servfail())),
        }
    }

    /// None: it is not for us to answer.
    async fn of_mesh(&self, query: &Query, limit: u16) -> Option<Vec<u8>> {
        query.family()?;
        if !may_be_of_mesh(query.name()) {
            return None;
        }
        let is_away = self.failed.lock().is_some_and(|failed| failed.elapsed() < AWAY);
        let found = self.names.host(query.name(), if is_away { IMPATIENCE } else { PATIENCE }).await;
        if matches!(found, Err(Unresolved::Timeout)) && !is_away {
            *self.failed.lock() = Some(Instant::now());
        }
        query.answer(&found.ok()?, limit)
    }

    fn remember(&self, key: Box<[u8]>, answer: &[u8]) {
        match meaning(answer) {
            Meaning::Positive => self.stale.lock().keep(key, answer, Instant::now()),
            Meaning::Negative => self.stale.lock().forget(&key),
            Meaning::Failure | Meaning::Other => {}
        }
    }
}
