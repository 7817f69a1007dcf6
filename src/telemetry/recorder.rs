//! Where a worker's records go when they end, and what it has counted lately.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::metrics::Series;
use super::{RequestLabels, Telemetry};

/// Takes the [records](super::Record) of one worker.
///
/// A series is looked up by seven labels, most of them text. So those that were counted lately are kept by where their
/// labels lie in memory: labels are shared, and a request of a known kind comes with the very same ones.
#[derive(Debug)]
pub struct Recorder {
    pub(super) telemetry: Telemetry,
    recent: Mutex<Vec<Option<(RequestLabels, Series)>>>,
}

/// Series that are kept, at most; those that fall on the same place displace each other.
const RECENT: usize = 64;

impl Recorder {
    /// For a worker that has counted nothing yet.
    pub fn new(telemetry: Telemetry) -> Self {
        Self { telemetry, recent: Mutex::default() }
    }

    /// Does the access log want anything at all? If not, nothing need be noted for it alone.
    pub fn has_access_log(&self) -> bool {
        self.telemetry.access_log.wants(true)
    }

    /// An HTTP request ended.
    pub(super) fn request(&self, labels: &RequestLabels, duration: Duration) {
        let mut recent = self.recent.lock();
        if recent.is_empty() {
            recent.resize_with(RECENT, || None);
        }
        let Some(place) = recent.get_mut(place(labels)) else { return };
        let (_, series) = match place {
            Some(kept) if is_same(&kept.0, labels) => kept,
            place => place.insert((labels.clone(), self.telemetry.metrics.series(labels))),
        };
        series.count(duration);
    }
}

fn place(labels: &RequestLabels) -> usize {
    let texts = [&labels.destination, &labels.cluster, &labels.peer].map(|text| Arc::as_ptr(text).addr() >> 4);
    let parts = texts.into_iter().chain([usize::from(labels.status), labels.reason.len()]);
    // FNV-1a, by words.
    parts.fold(0xcbf2_9ce4_8422_2325, |hash: usize, part| (hash ^ part).wrapping_mul(0x0100_0000_01b3)) % RECENT
}

/// What is kept keeps its labels alive, so that nothing else can lie where they do.
fn is_same(kept: &RequestLabels, labels: &RequestLabels) -> bool {
    Arc::ptr_eq(&kept.destination, &labels.destination)
        && Arc::ptr_eq(&kept.cluster, &labels.cluster)
        && Arc::ptr_eq(&kept.peer, &labels.peer)
        && (kept.direction, kept.tls, kept.status, kept.reason)
            == (labels.direction, labels.tls, labels.status, labels.reason)
}
