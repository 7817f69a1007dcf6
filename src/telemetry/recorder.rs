//! Where a worker's records go when they end, and what it has counted lately.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::HeaderMap;
use parking_lot::Mutex;
use pillion_wire::observe::Field;
use pillion_wire::spiffe::SpiffeId;
use tokio::time::Instant;

use super::explain;
use super::load::Counter;
use super::metrics::{AttemptKey, Local, Part, RequestKey, StepKey, at, place};
use super::trace::Ring;
use super::{Record, Telemetry};

/// Of so many requests the parts of one's time are measured.
const MEASURED: u32 = 16;
/// Identities of callers that a worker remembers.
const MOST_IDENTITIES: usize = 1024;

/// Takes the [records](super::Record) of one worker.
#[derive(Debug)]
pub struct Recorder {
    pub(super) telemetry: Telemetry,
    local: Arc<Mutex<Local>>,
    pub(super) load: Option<Arc<Counter>>,
    /// Requests that may become spans yet; `None`: none will.
    pub(super) ring: Option<Arc<Mutex<Ring>>>,
    nothing: Arc<str>,
    /// Identities of who called lately: counts are found by where their labels lie.
    identities: Mutex<HashSet<Arc<str>>>,
    has_overhead: bool,
    /// Counts requests, of which some are measured.
    turn: AtomicU32,
    has_exemplars: bool,
    stories: Option<Arc<explain::Ring>>,
}

impl Recorder {
    /// For a worker that has counted nothing yet.
    pub fn new(telemetry: Telemetry) -> Self {
        let settings = telemetry.metrics.settings();
        let (has_overhead, has_exemplars) = (settings.overhead, settings.exemplars);
        let local = telemetry.metrics.local();
        let load = telemetry.load.counter();
        let stories = telemetry.stories.ring();
        let ring = telemetry.tracer.as_ref().and_then(|tracer| tracer.ring());
        Self {
            telemetry,
            local,
            load,
            ring,
            nothing: Arc::from(""),
            identities: Mutex::default(),
            has_overhead,
            turn: AtomicU32::new(0),
            has_exemplars,
            stories,
        }
    }

    /// Where stories are kept; `None` when nobody wants any.
    pub(super) fn stories(&self) -> Option<&explain::Ring> {
        self.stories.as_deref()
    }

    /// Is it measured where time goes?
    pub fn has_overhead(&self) -> bool {
        self.has_overhead
    }

    /// Are the parts of the next request's time measured? Of one in [`MEASURED`], spread so that no rhythm of requests
    /// hides from it; the first is one.
    pub(super) fn measures_parts(&self) -> bool {
        if !self.has_overhead {
            return false;
        }
        let turn = self.turn.load(Ordering::Relaxed);
        self.turn.store(turn.wrapping_add(1), Ordering::Relaxed); // One worker's: none is lost that matters.
        turn.wrapping_mul(0x9E37_79B9) < u32::MAX / MEASURED
    }

    /// Does somebody want to see requests as they end? If not, nothing need be noted for that.
    pub fn is_tapped(&self) -> bool {
        self.telemetry.taps.any()
    }

    /// What taps want of a request's head, when they want anything of it.
    #[inline]
    pub fn tapped_fields(&self, headers: &HeaderMap) -> Option<Box<[Field]>> {
        let taps = &self.telemetry.taps;
        if taps.wants_fields() { Some(taps.fields(headers)) } else { None }
    }

    /// A label that says nothing. The default of `Arc<str>` is one for the whole process, for which workers would fight.
    pub(super) fn nothing(&self) -> Arc<str> {
        Arc::clone(&self.nothing)
    }

    /// The text of an identity, the same one for all connections of this worker; empty for nobody that is known.
    pub fn identity(&self, id: Option<&SpiffeId>) -> Arc<str> {
        let Some(id) = id else { return self.nothing() };
        let text = id.to_string();
        let mut known = self.identities.lock();
        if let Some(known) = known.get(text.as_str()) {
            return Arc::clone(known);
        }
        if known.len() >= MOST_IDENTITIES {
            known.clear(); // Who is connected keeps what it has; it is but counted apart until it is added up.
        }
        let text: Arc<str> = Arc::from(text);
        known.insert(Arc::clone(&text));
        text
    }

    /// A connection took so long to be understood, or to be secured.
    pub fn detected(&self, direction: &'static str, took: Duration) {
        self.connection(direction, Part::Detect, took);
    }

    /// A client's handshake took so long.
    pub fn secured(&self, direction: &'static str, took: Duration) {
        self.connection(direction, Part::Tls, took);
    }

    fn connection(&self, direction: &'static str, part: Part, took: Duration) {
        if !self.has_overhead {
            return;
        }
        let mut local = self.local.lock();
        let key = || StepKey { direction, route: self.nothing() };
        let is_same = |key: &StepKey| Arc::ptr_eq(&key.route, &self.nothing) && key.direction == direction;
        if let Some(steps) = local.steps.get(place([at(&self.nothing), direction.len() as u64]), is_same, key) {
            steps.took(part, took);
        }
    }

    /// A try of a host of `record`'s cluster ended.
    pub(super) fn attempt(&self, record: &Record, result: &'static str, took: Duration) {
        Self::count_attempt(&mut self.local.lock(), record, result, took);
    }

    fn count_attempt(local: &mut Local, record: &Record, result: &'static str, took: Duration) {
        let parts = [at(&record.cluster), record.direction.len() as u64, result.as_ptr().addr() as u64];
        let is_same = |key: &AttemptKey| {
            Arc::ptr_eq(&key.cluster, &record.cluster) && key.direction == record.direction && key.result == result
        };
        let key = || AttemptKey { direction: record.direction, cluster: Arc::clone(&record.cluster), result };
        if let Some(attempts) = local.attempts.get(place(parts), is_same, key) {
            attempts.took(took);
        }
    }

    /// Both ends of the connection of `record` are open.
    pub(super) fn opened(&self, record: &Record) {
        let mut local = self.local.lock();
        if let Some(counted) = local.requests.get(request_place(record), |key| is_same(key, record), || record.labels())
        {
            counted.opened += 1;
        }
    }

    /// The request or connection of `record` ended.
    pub(super) fn ended(&self, record: &Record, now: Instant) {
        let duration = now.saturating_duration_since(record.started());
        let mut local = self.local.lock();
        let local = &mut *local;
        if let Some(counted) = local.requests.get(request_place(record), |key| is_same(key, record), || record.labels())
        {
            counted.count += 1;
            let sampled = record.trace.filter(|trace| trace.sampled && self.has_exemplars);
            counted.took(duration, sampled.map(|trace| trace.trace_id.to_bytes()));
            let (received, messages) = record.received();
            counted.sizes(received, record.bytes_sent);
            counted.request_messages += messages;
            counted.response_messages += record.response_messages;
        }
        let (spent, unanswered) = record.spent(now);
        if let Some(took) = unanswered.filter(|_| self.has_overhead) {
            Self::count_attempt(local, record, "unanswered", took); // Its time was over, or its client left.
        }
        if let Some([policy, queue, wait, total]) = spent {
            let parts = [at(&record.route), record.direction.len() as u64];
            let is_same = |key: &StepKey| Arc::ptr_eq(&key.route, &record.route) && key.direction == record.direction;
            let key = || StepKey { direction: record.direction, route: Arc::clone(&record.route) };
            if let Some(steps) = local.steps.get(place(parts), is_same, key) {
                steps.took(Part::Policy, policy);
                steps.took(Part::Queue, queue);
                steps.took(Part::UpstreamWait, wait);
                steps.took(Part::Total, total);
            }
        }
        self.telemetry.metrics.relieve(local, now);
    }
}

fn request_place(record: &Record) -> u64 {
    let texts = [&record.destination, &record.cluster, &record.route, &record.peer].map(at);
    let grpc = record.grpc_status().map_or(0, |status| u64::from(status) + 1);
    let lengths = (record.reason.len() << 8 | record.direction.len()) as u64;
    let rest = [u64::from(record.status) | grpc << 16 | lengths << 32, record.method_label.as_ptr().addr() as u64];
    place(texts.into_iter().chain(rest))
}

/// What is kept keeps its labels alive, so that nothing else can lie where they do.
fn is_same(kept: &RequestKey, record: &Record) -> bool {
    Arc::ptr_eq(&kept.destination, &record.destination)
        && Arc::ptr_eq(&kept.cluster, &record.cluster)
        && Arc::ptr_eq(&kept.route, &record.route)
        && Arc::ptr_eq(&kept.peer, &record.peer)
        && (kept.is_tcp, kept.status, kept.grpc_status) == (record.is_tcp, record.status, record.grpc_status())
        && same(kept.direction, record.direction)
        && same(kept.tls, record.tls)
        && same(kept.reason, record.reason)
        && same(kept.method, record.method_label)
        && same(kept.protocol, record.protocol)
        && same(kept.flag, record.flag)
}

/// Texts of our own are mostly the very same ones.
fn same(one: &'static str, other: &'static str) -> bool {
    std::ptr::eq(one, other) || one == other
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
        let telemetry = Telemetry::new(Arc::clone(&metrics), access_log);
        let workers = [(); 2].map(|()| Arc::new(Recorder::new(telemetry.clone())));
        for round in 0..3 {
            for status in 200..500 {
                let mut record = Record::begin(&workers[round % 2], "outbound", ([127, 0, 0, 1], 1).into());
                record.destination = Arc::from("shop:80"); // Each time somewhere else in memory.
                record.status = status;
            }
            if round == 1 {
                metrics.encode(); // What was counted stays, whoever reads.
            }
        }
        let text = metrics.encode();
        let counted: Vec<_> = text.lines().filter(|line| line.starts_with("pillion_requests_total{")).collect();
        assert_eq!(counted.len(), 300);
        assert!(counted.iter().all(|line| line.ends_with(" 3")), "{counted:?}");
        assert!(text.contains("pillion_request_duration_seconds_count{direction=\"outbound\",destination=\"shop:80\",cluster=\"\"} 900"), "{text}");
    }

    /// Where `records` end up that are dropped: what explain keeps beside one good request, and lines of a log of errors.
    fn kept_and_logged(records: impl FnOnce(&Arc<Recorder>)) -> (usize, String) {
        let metrics = Arc::new(Metrics::new());
        let scratch = tempfile::tempdir().expect("a directory");
        let path = scratch.path().join("log");
        let (format, file) = (Default::default(), bootstrap::AccessLogFile::Path(path.clone()));
        let access_log =
            AccessLog::open(bootstrap::AccessLog::Errors, &format, &file, metrics.access_log_dropped()).expect("a log");
        let stories = explain::Stories::keeping(1);
        let telemetry = Telemetry { stories: stories.clone(), ..Telemetry::new(metrics, access_log.clone()) };
        let recorder = Arc::new(Recorder::new(telemetry));
        records(&recorder);
        Record::begin(&recorder, "outbound", ([127, 0, 0, 1], 1).into()).status = 200;
        access_log.flush(Duration::from_secs(10));
        let kept = stories.each(&explain::Filter::default(), 10, |story| story.failed);
        (kept.into_iter().filter(|failed| *failed).count(), std::fs::read_to_string(path).expect("a log"))
    }

    #[test]
    fn a_grpc_failure_in_a_200_is_a_failure_for_the_log_and_for_explanations() {
        let grpc = |status| {
            kept_and_logged(|recorder| {
                let mut record = Record::begin(recorder, "outbound", ([127, 0, 0, 1], 1).into());
                (record.status, record.is_grpc, record.grpc_status) = (200, true, Some(status));
            })
        };
        let (kept, logged) = grpc(14);
        assert_eq!((kept, logged.lines().count()), (1, 1), "{logged}");
        let (kept, logged) = grpc(5); // NOT_FOUND is an answer.
        assert_eq!((kept, logged.as_str()), (0, ""));
    }

    #[test]
    fn a_host_that_never_answered_is_a_try_that_is_counted() {
        let metrics = Arc::new(Metrics::new());
        let access_log = AccessLog::start(bootstrap::AccessLog::Off, metrics.access_log_dropped());
        let recorder = Arc::new(Recorder::new(Telemetry::new(Arc::clone(&metrics), access_log)));
        for answered in [false, true] {
            let mut record = Record::begin(&recorder, "outbound", ([127, 0, 0, 1], 1).into());
            record.decided();
            record.sending();
            if answered {
                record.answered("2xx");
            }
        }
        let text = metrics.encode();
        for result in ["unanswered", "2xx"] {
            let line = format!(
                "pillion_upstream_attempt_duration_seconds_count{{direction=\"outbound\",cluster=\"\",result=\"{result}\"}} 1"
            );
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn parts_of_the_time_are_measured_of_one_request_in_sixteen() {
        let metrics = Arc::new(Metrics::new());
        let access_log = AccessLog::start(bootstrap::AccessLog::Off, metrics.access_log_dropped());
        let recorder = Recorder::new(Telemetry::new(metrics, access_log));
        let measured: Vec<bool> = (0..16_000).map(|_| recorder.measures_parts()).collect();
        let count = |step: usize| measured.iter().step_by(step).filter(|measured| **measured).count() * step;
        assert!(measured[0]);
        for rhythm in [1, 2, 3, 8, 16] {
            assert!((900..1100).contains(&count(rhythm)), "{rhythm}: {}", count(rhythm));
        }
    }

    #[test]
    fn an_identity_is_one_text_on_however_many_connections() {
        let metrics = Arc::new(Metrics::new());
        let access_log = AccessLog::start(bootstrap::AccessLog::Off, metrics.access_log_dropped());
        let recorder = Recorder::new(Telemetry::new(metrics, access_log));
        let id = |number: usize| -> SpiffeId {
            format!("spiffe://cluster.local/ns/shop/sa/caller-{number}").parse().expect("an identity")
        };
        let [one, again] = [(); 2].map(|()| recorder.identity(Some(&id(0))));
        assert!(Arc::ptr_eq(&one, &again));
        assert!(Arc::ptr_eq(&recorder.identity(None), &recorder.nothing()));
        for number in 0..3 * MOST_IDENTITIES {
            recorder.identity(Some(&id(number)));
        }
        assert!(recorder.identities.lock().len() <= MOST_IDENTITIES);
    }

    #[test]
    fn however_many_statuses_there_are_the_others_are_few() {
        let settings = bootstrap::MetricsSettings { max_series: 1.try_into().expect("not 0"), ..Default::default() };
        let metrics = Arc::new(Metrics::of(settings, Default::default()));
        let access_log = AccessLog::start(bootstrap::AccessLog::Off, metrics.access_log_dropped());
        let recorder = Arc::new(Recorder::new(Telemetry::new(Arc::clone(&metrics), access_log)));
        for number in 0..4000_u16 {
            let mut record = Record::begin(&recorder, "outbound", ([127, 0, 0, 1], 1).into());
            (record.status, record.is_grpc) = (100 + number % 900, number % 2 == 0);
            record.grpc_status = Some((number % 17) as u8);
        }
        let text = metrics.encode();
        let counted = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert!(counted("pillion_requests_total{") <= 20, "{text}");
        assert!(counted("pillion_grpc_requests_total{") <= 2, "{text}");
    }

    #[test]
    fn destinations_beyond_the_bound_are_counted_together() {
        let settings = bootstrap::MetricsSettings { max_series: 5.try_into().expect("not 0"), ..Default::default() };
        let metrics = Arc::new(Metrics::of(settings, Default::default()));
        let access_log = AccessLog::start(bootstrap::AccessLog::Off, metrics.access_log_dropped());
        let recorder = Arc::new(Recorder::new(Telemetry::new(Arc::clone(&metrics), access_log)));
        for number in 0..2000 {
            let mut record = Record::begin(&recorder, "outbound", ([127, 0, 0, 1], 1).into());
            record.destination = Arc::from(format!("shop-{number}:80"));
            record.status = 200;
        }
        let text = metrics.encode();
        let counted: Vec<_> = text.lines().filter(|line| line.starts_with("pillion_requests_total{")).collect();
        assert_eq!(counted.len(), 6, "{counted:?}");
        let other = counted.iter().find(|line| line.contains("destination=\"other\"")).expect("the rest");
        assert!(other.ends_with(" 1995"), "{other}");
        assert!(text.contains("pillion_metrics_overflows_total{table=\"requests\"} 1995"), "{text}");
    }
}
