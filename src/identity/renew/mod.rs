//! Keeping a certificate: the first one as soon as the CA gives it, a new one at half of each one's life.
//!
//! A failure is tried again after 100 ms, then twice that, up to 30 s, always
//! with jitter, and never later than half of the life that is left. The old
//! certificate stays in use meanwhile. The file with the mesh's roots is looked
//! at every two seconds; when it changes, peers are verified by the new roots
//! from the next handshake on.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use tokio::time::{Instant, sleep_until};

use super::credentials::{self, CredentialsError};
use super::issue::{IssueError, Issued};
use super::{Identity, issue, kept};
use crate::backoff::Backoff;
use crate::bootstrap::Bootstrap;
use crate::slot::Slot;
use crate::store::Store;
use crate::telemetry::Metrics;

/// How often the file with the roots is looked at.
const ROOTS_POLL: Duration = Duration::from_secs(2);
/// Even a certificate of one second is not renewed more often than this.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Keeps a valid identity in `slot`, and in `store` if there is one. What was kept there is used until the control plane
/// has been reached, which is tried at once.
pub async fn run(
    bootstrap: Arc<Bootstrap>,
    slot: Arc<Slot<Option<Identity>>>,
    metrics: Arc<Metrics>,
    store: Option<Arc<Store>>,
) -> Infallible {
    let mut backoff = Backoff::default();
    let mut roots = RootsFile::default();
    if let Some(store) = &store {
        recall(store, &bootstrap, &slot, &metrics);
    }
    loop {
        let wait = match attempt(&bootstrap, &slot, backoff.failures()).await {
            Ok(issued) => {
                backoff.reset();
                metrics.certificate("ok");
                metrics.certificate_expiry(issued.identity.not_after);
                if let Some(store) = &store {
                    keep(store, &issued, &metrics);
                }
                renewal_wait(&issued.identity, SystemTime::now(), rand::random())
            }
            Err(error) => {
                metrics.certificate(error.reason());
                let current = slot.load_full();
                let wait = retry_wait(backoff.next(rand::random()), Option::as_ref(&current), SystemTime::now());
                tracing::warn!(%error, ?wait, has_valid = is_valid(Option::as_ref(&current)), "no new certificate");
                wait
            }
        };
        watch_roots(&bootstrap.control_plane.root, &mut roots, &slot, Instant::now() + wait).await;
    }
}

async fn attempt(bootstrap: &Bootstrap, slot: &Slot<Option<Identity>>, failures: u32) -> Result<Issued, IssueError> {
    let current = slot.load_full();
    let issued = issue::issue(bootstrap, Option::as_ref(&current), failures).await?;
    tracing::info!(id = %issued.identity.id, not_after = ?issued.identity.not_after, "certificate issued");
    slot.publish(Some(issued.identity.clone()));
    Ok(issued)
}

fn recall(store: &Store, bootstrap: &Bootstrap, slot: &Slot<Option<Identity>>, metrics: &Metrics) {
    match kept::recall(store, bootstrap) {
        Ok(None) => {}
        Ok(Some(identity)) => {
            tracing::info!(id = %identity.id, not_after = ?identity.not_after, "certificate found on disk");
            metrics.certificate("recalled");
            metrics.certificate_expiry(identity.not_after);
            slot.publish(Some(identity));
        }
        Err(error) => {
            metrics.certificate("recall_refused");
            tracing::warn!(%error, folder = %store.folder().display(), "the certificate on disk is not used");
        }
    }
}

fn keep(store: &Store, issued: &Issued, metrics: &Metrics) {
    if let Err(error) = kept::keep(store, issued) {
        metrics.store_failure();
        tracing::warn!(%error, folder = %store.folder().display(), "cannot keep the certificate on disk");
    }
}

/// Half of the certificate's life from its start, give or take a tenth of that: `chance` is uniform in `0.0..1.0`.
fn renewal_wait(identity: &Identity, now: SystemTime, chance: f64) -> Duration {
    let life = identity.not_after.duration_since(now).unwrap_or_default();
    (life / 2).mul_f64(0.9 + 0.2 * chance.clamp(0.0, 1.0)).max(SHORTEST_WAIT)
}

/// A back-off, but never more than half of what the current certificate still has to live.
fn retry_wait(backoff: Duration, current: Option<&Identity>, now: SystemTime) -> Duration {
    let left = current.and_then(|current| current.not_after.duration_since(now).ok());
    match left.filter(|left| !left.is_zero()) {
        Some(left) => backoff.min(left / 2).max(SHORTEST_WAIT),
        None => backoff,
    }
}

fn is_valid(identity: Option<&Identity>) -> bool {
    identity.is_some_and(|identity| identity.not_after > SystemTime::now())
}

/// What the file with the roots held when it was last looked at.
#[derive(Debug, Default)]
struct RootsFile {
    seen: Option<Vec<u8>>,
}

/// Publishes new roots as they come, until `deadline`.
async fn watch_roots(path: &Path, file: &mut RootsFile, slot: &Slot<Option<Identity>>, deadline: Instant) {
    loop {
        match file.changed(path) {
            Ok(Some(roots)) => publish_roots(roots, slot),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the mesh's roots changed, but not to something usable; keeping ours"),
        }
        let now = Instant::now();
        if now >= deadline {
            return;
        }
        sleep_until(deadline.min(now + ROOTS_POLL)).await;
    }
}

impl RootsFile {
    /// The roots, when the file has changed since the last look. A complaint is made once per change.
    fn changed(&mut self, path: &Path) -> Result<Option<Arc<RootCertStore>>, CredentialsError> {
        let text = match credentials::read_roots(path) {
            Ok(text) => text,
            Err(_missing) if self.seen.as_ref().is_some_and(Vec::is_empty) => return Ok(None),
            Err(error) => {
                self.seen = Some(Vec::new());
                return Err(error);
            }
        };
        if self.seen.as_ref() == Some(&text) {
            return Ok(None);
        }
        let roots = credentials::parse_roots(path, &text);
        self.seen = Some(text);
        roots.map(Some)
    }
}

fn publish_roots(roots: Arc<RootCertStore>, slot: &Slot<Option<Identity>>) {
    let current = slot.load_full();
    let Some(identity) = Option::as_ref(&current) else { return };
    if identity.roots.roots == roots.roots {
        return;
    }
    tracing::info!(roots = roots.len(), "the mesh's roots changed");
    slot.publish(Some(Identity { roots, ..identity.clone() }));
}

#[cfg(test)]
mod tests;
