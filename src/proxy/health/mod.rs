//! Active health checks: each host of each destination in use, once for all workers, on the control runtime.
//!
//! Checks go the way that requests go (through mutual TLS to hosts in the mesh), over connections of their own, and count
//! neither as requests nor as connections of the application.
//!
//! ```text
//! run     every so often: which hosts are there? -> a task for each   (ends with the host, or with the demand for it)
//! watch   upstream::check_due -> check -> upstream::check_ended -> log, metrics
//! check   http | grpc | tcp, within the timeout
//! ```

mod exchange;
mod grpc;
mod http;
mod tcp;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use pillion_wire::health::{HealthCheck, Probe};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use crate::net::Dialer;
use crate::resilience::health::{Finding, State};
use crate::snapshot::Cluster;
use crate::tls::TlsClient;
use crate::upstream::{Found, Host, HostKey, Pool, Upstream};

/// How soon hosts that come are checked, and hosts that go no longer.
const TICK: Duration = Duration::from_millis(100);
/// How often unused connections are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Checks under way at a time, at most: more wait, and their own time begins after that.
const MOST_AT_ONCE: usize = 128;

/// What all checks share.
#[derive(Debug)]
struct Prober {
    shared: Arc<Shared>,
    tls: Arc<TlsClient>,
    dialer: Dialer,
    /// Connections that are kept for the next check.
    pool: Pool,
    places: Semaphore,
}

/// The checks of one cluster.
#[derive(Debug)]
struct Running {
    upstream: Arc<Upstream>,
    version: u64,
    hosts: HashMap<HostKey, (Arc<Host>, AbortOnDropHandle<()>)>,
}

/// Checks the hosts of all clusters in use that ask for it, for ever.
///
/// # Cancel safety
/// Dropping it ends all checks; what they found stays.
pub async fn run(shared: Arc<Shared>, tls: Arc<TlsClient>, dialer: Dialer) -> Infallible {
    let prober = Arc::new(Prober {
        pool: Pool::new(Arc::clone(&tls), dialer.clone()),
        places: Semaphore::new(MOST_AT_ONCE),
        shared,
        tls,
        dialer,
    });
    let mut outbound = prober.shared.directory.outbound().subscribe();
    let mut inbound = prober.shared.inbound.subscribe();
    let mut running: HashMap<String, Running> = HashMap::new();
    let mut swept = Instant::now();
    loop {
        outbound.mark_unchanged();
        inbound.mark_unchanged();
        let mut clusters = prober.shared.clusters();
        clusters.retain(|cluster| cluster.config.health.is_some());
        running.retain(|name, _| clusters.iter().any(|cluster| cluster.config.name == *name));
        loop {
            for cluster in &clusters {
                reconcile(&prober, cluster, &mut running);
            }
            if swept.elapsed() >= SWEEP_EVERY {
                swept = Instant::now();
                prober.pool.sweep(swept, prober.shared.settings.timeouts.upstream_idle);
            }
            // Endpoints change without a word.
            let pause = if clusters.is_empty() { SWEEP_EVERY } else { TICK };
            // Those that the application uses, or those that our own ports ask.
            let changed = async {
                tokio::select! { _ = outbound.changed() => {}, _ = inbound.changed() => {} }
            };
            if timeout(pause, changed).await.is_ok() {
                break;
            }
        }
    }
}

/// Starts checks of hosts that have come, and ends those of hosts that have gone.
fn reconcile(prober: &Arc<Prober>, cluster: &Cluster, running: &mut HashMap<String, Running>) {
    let upstream = &cluster.upstream;
    let version = upstream.version();
    let known = running.entry(cluster.config.name.clone()).or_insert_with(|| Running::new(upstream));
    if !Arc::ptr_eq(&known.upstream, upstream) {
        *known = Running::new(upstream);
    }
    if known.version == version {
        return;
    }
    let mut old = std::mem::take(&mut known.hosts);
    for host in upstream.hosts() {
        if known.hosts.contains_key(host.key()) {
            continue; // It stands in several places.
        }
        let same = old.remove(host.key()).filter(|(known, task)| Arc::ptr_eq(known, &host) && !task.is_finished());
        let start = || {
            let task = tokio::spawn(watch(Arc::clone(prober), Arc::clone(upstream), Arc::clone(&host)));
            (Arc::clone(&host), AbortOnDropHandle::new(task))
        };
        let entry = same.unwrap_or_else(start);
        known.hosts.insert(host.key().clone(), entry);
    }
    known.version = version;
}

impl Running {
    fn new(upstream: &Arc<Upstream>) -> Self {
        Self { upstream: Arc::clone(upstream), version: u64::MAX, hosts: HashMap::new() }
    }
}

/// Checks one host for as long as that is configured.
async fn watch(prober: Arc<Prober>, upstream: Arc<Upstream>, host: Arc<Host>) {
    while let Some((rules, is_urgent)) = host.check_due(|| !upstream.was_asked()).await {
        let Ok(_place) = prober.places.acquire().await else { return };
        if is_urgent {
            prober.shared.telemetry.metrics.health.event(upstream.name(), "passive_failure");
        }
        let start = Instant::now();
        let found = prober.check(&upstream, &host, &rules).await;
        let now = Instant::now();
        tell(&prober, &upstream, &host, &found);
        let why = found.why.clone();
        if let Some(change) = host.check_ended(found, start, now) {
            log(&upstream, &host, change, &why);
        }
    }
}

impl Prober {
    async fn check(&self, upstream: &Upstream, host: &Host, rules: &HealthCheck) -> Found {
        // A pool that goes with the check keeps nothing.
        let own = (!rules.reuse).then(|| Pool::new(Arc::clone(&self.tls), self.dialer.clone()));
        let pool = own.as_ref().unwrap_or(&self.pool);
        let check = async {
            match &rules.probe {
                Probe::Http(probe) => http::check(pool, upstream.name(), host, probe, rules.timeout).await,
                Probe::Grpc { service, authority } => {
                    grpc::check(pool, upstream.name(), host, service, authority, rules.timeout).await
                }
                Probe::Tcp { send, receive } => tcp::check(pool, host, send, receive, rules.timeout).await,
            }
        };
        let late = || network(format!("no answer within {:?}", rules.timeout));
        timeout(rules.timeout, check).await.unwrap_or_else(|_late| late())
    }
}

/// In the metrics, under Envoy's names.
fn tell(prober: &Prober, upstream: &Upstream, host: &Host, found: &Found) {
    let count = |event| prober.shared.telemetry.metrics.health.event(upstream.name(), event);
    count("attempt");
    match found.finding {
        Finding::Passed => count("success"),
        Finding::Unknown => {}
        Finding::Failed | Finding::Refused => {
            count("failure");
            if found.is_network {
                count("network_failure");
            }
            tracing::debug!(cluster = %upstream.name(), host = %host.key().address, why = found.why, "a health check failed");
        }
    }
}

fn log(upstream: &Upstream, host: &Host, change: (State, State), why: &str) {
    let (cluster, address) = (upstream.name(), host.key().address);
    match change {
        (_, State::Unhealthy) => tracing::info!(%cluster, host = %address, why, "an endpoint is unhealthy"),
        (State::Unchecked, _) => {
            tracing::debug!(%cluster, host = %address, "an endpoint passes its first health check")
        }
        _ => tracing::info!(%cluster, host = %address, "an endpoint is healthy again"),
    }
}

/// A check that passed.
fn passed() -> Found {
    Found { finding: Finding::Passed, why: String::new(), is_network: false }
}

/// A check that got no answer.
fn network(why: String) -> Found {
    Found { finding: Finding::Failed, why, is_network: true }
}

/// A check that got another answer than it should.
fn failed(why: String) -> Found {
    Found { finding: Finding::Failed, why, is_network: false }
}
