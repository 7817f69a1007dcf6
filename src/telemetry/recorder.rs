//! Where a worker's records go when they end, and what it has counted lately.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::explain::Ring;
use super::metrics::Series;
use super::{Record, RequestLabels, Telemetry};

/// Takes the [records](super::Record) of one worker.
///
/// A series is looked up by seven labels, most of them text. So those that were counted lately are kept by where their
/// labels lie in memory: labels are shared, and a request of a known kind comes with the very same ones.
#[derive(Debug)]
pub struct Recorder {
    pub(super) telemetry: Telemetry,
    recent: Mutex<Vec<Option<(RequestLabels, Series)>>>,
    nothing: Arc<str>,
    ring: Option<Arc<Ring>>,
}

/// Series that are kept, at most; those that fall on the same place displace each other.
const RECENT: usize = 64;

impl Recorder {
    /// For a worker that has counted nothing yet.
    pub fn new(telemetry: Telemetry) -> Self {
        let ring = telemetry.stories.ring();
        Self { telemetry, recent: Mutex::default(), nothing: Arc::from(""), ring }
    }

    /// Where stories are kept; `None` when nobody wants any.
    pub(super) fn ring(&self) -> Option<&Ring> {
        self.ring.as_deref()
    }

    /// A label that says nothing. The default of `Arc<str>` is one for the whole process, for which workers would fight.
    pub(super) fn nothing(&self) -> Arc<str> {
        Arc::clone(&self.nothing)
    }

    /// The HTTP request of `record` ended.
    pub(super) fn request(&self, record: &Record, duration: Duration) {
        let mut recent = self.recent.lock();
        if recent.is_empty() {
            recent.resize_with(RECENT, || None);
        }
        let Some(place) = recent.get_mut(place(record)) else { return };
        let (_, series) = match place {
            Some(kept) if is_same(&kept.0, record) => kept,
            place => {
                let labels = record.labels();
                let series = self.telemetry.metrics.series(&labels);
                place.insert((labels, series))
            }
        };
        series.count(duration);
    }
}

fn place(record: &Record) -> usize {
    let texts = [&record.destination, &record.cluster, &record.peer].map(|text| Arc::as_ptr(text).addr() as u64);
    let parts = texts.into_iter().chain([u64::from(record.status), record.reason.len() as u64]);
    // FNV-1a, by words; the top bits depend on all others.
    let hash = parts.fold(0xcbf2_9ce4_8422_2325, |hash: u64, part| (hash ^ part).wrapping_mul(0x0100_0000_01b3));
    (hash >> 32) as usize % RECENT
}

/// What is kept keeps its labels alive, so that nothing else can lie where they do.
fn is_same(kept: &RequestLabels, record: &Record) -> bool {
    Arc::ptr_eq(&kept.destination, &record.destination)
        && Arc::ptr_eq(&kept.cluster, &record.cluster)
        && Arc::ptr_eq(&kept.peer, &record.peer)
        && (kept.direction, kept.tls, kept.status, kept.reason)
            == (record.direction, record.tls, record.status, record.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap;
    use crate::telemetry::{AccessLog, Metrics};

    #[test]
    fn workers_count_in_the_same_series_however_many_there_are() {
        let metrics = Arc::new(Metrics::new());
        let access_log = AccessLog::start(bootstrap::AccessLog::Off, metrics.access_log_dropped());
        let telemetry = Telemetry { metrics: Arc::clone(&metrics), access_log, stories: Default::default() };
        let workers = [(); 2].map(|()| Arc::new(Recorder::new(telemetry.clone())));
        for round in 0..3 {
            for status in 200..500 {
                let mut record = Record::begin(&workers[round % 2], "outbound", ([127, 0, 0, 1], 1).into());
                record.destination = Arc::from("shop:80"); // Each time somewhere else in memory.
                record.status = status;
            }
        }
        let text = metrics.encode();
        let counted: Vec<_> = text.lines().filter(|line| line.starts_with("pillion_requests_total{")).collect();
        assert_eq!(counted.len(), 300);
        assert!(counted.iter().all(|line| line.ends_with(" 3")), "{counted:?}");
        assert!(text.contains("pillion_request_duration_seconds_count{direction=\"outbound\",destination=\"shop:80\",cluster=\"\"} 900"), "{text}");
    }
}
