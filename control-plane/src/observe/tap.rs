//! One tap: the requests of all sidecars that match, as one stream of lines.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pillion_wire::observe::{TapEvent, TapRequest};
use prost::Message as _;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use super::hub::{Forget, Sidecars};
use crate::shutdown::Shutdown;

/// Events that may wait for the reader; each is a few hundred bytes, some KiB at most.
const QUEUE: usize = 1024;
/// Of one event: all that wait take 16 MiB at most.
const MOST_EVENT_BYTES: usize = 16 << 10;
/// How often a reader without events is told something, so that a dead one is noticed.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How soon a sidecar that could not be asked is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// What comes of one sidecar.
#[derive(Debug)]
enum Told {
    Event(Box<TapEvent>),
    /// It does not serve the tap.
    Refused {
        number: u64,
        workload: String,
        reason: String,
    },
}

/// Where the events of one tap go.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    /// Of the sidecar that they come from.
    number: u64,
    told: mpsc::Sender<Told>,
    lost: Arc<AtomicU64>,
}

impl Sink {
    /// Queues what there is room for, and counts the rest as lost.
    pub(super) fn take(&self, events: impl IntoIterator<Item = TapEvent>) {
        for event in events {
            // What is larger is none of our sidecars' making.
            if event.encoded_len() > MOST_EVENT_BYTES || self.told.try_send(Told::Event(Box::new(event))).is_err() {
                self.lose(1);
            }
        }
    }

    /// The sidecar does not serve it.
    pub(super) fn refuse(&self, workload: String, reason: String) {
        if self.told.try_send(Told::Refused { number: self.number, workload, reason }).is_err() {
            self.lose(1);
        }
    }

    /// That many did not come through.
    pub(super) fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }
}

/// A tap's reader. Lines are JSON objects: events; `{"lost": N}`; `{"sidecars": N}` at the beginning, when their number
/// changes and every few seconds; `{"refused": "why", "workload": "namespace/name"}` of a sidecar that does not serve it.
pub(super) struct Tap {
    hub: Arc<Sidecars>,
    request: TapRequest,
    sink: Sink,
    events: mpsc::Receiver<Told>,
    /// `None`: it has refused, and is not asked again.
    asked: HashMap<u64, Option<Forget>>,
    again: Instant,
    /// Everybody who was there when it was looked was asked.
    complete: bool,
    changes: watch::Receiver<u64>,
    told: Option<usize>,
    serving: usize,
    left: Option<u64>,
    shutdown: Shutdown,
    _permit: OwnedSemaphorePermit,
}

impl Tap {
    /// Begins. `None`: there are too many already.
    pub(super) fn begin(
        hub: &Arc<Sidecars>,
        request: TapRequest,
        most: Option<u64>,
        shutdown: Shutdown,
    ) -> Option<Self> {
        let permit = Arc::clone(&hub.taps).try_acquire_owned().ok()?;
        let (sender, events) = mpsc::channel(QUEUE);
        let sink = Sink { number: 0, told: sender, lost: Arc::default() };
        let mut changes = hub.changes();
        changes.mark_changed();
        Some(Self {
            hub: Arc::clone(hub),
            request,
            sink,
            events,
            asked: HashMap::new(),
            complete: false,
            changes,
            told: None,
            serving: 0,
            again: Instant::now(),
            left: most,
            shutdown,
            _permit: permit,
        })
    }

    /// The next line. `None`: as many came as were wanted, or the control plane stops.
    ///
    /// # Cancel safety
    /// Safe: what was received and not returned is kept.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            if self.left == Some(0) {
                return None;
            }
            // Each event comes by here: all are looked at only when there is a reason.
            if self.changes.has_changed().ok()? || (!self.complete && Instant::now() >= self.again) {
                self.changes.mark_unchanged();
                self.complete = self.ask_all();
                self.again = Instant::now() + AGAIN;
            }
            if self.told != Some(self.serving) {
                return Some(self.tell());
            }
            let lost = self.sink.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                return Some(format!("{{\"lost\":{lost}}}\n"));
            }
            tokio::select! {
                biased;
                event = self.events.recv() => {
                    let event = match event? {
                        Told::Event(event) => event,
                        Told::Refused { number, workload, reason } => return Some(self.refused(number, &workload, &reason)),
                    };
                    let line = serde_json::to_string(&event).unwrap_or_default();
                    self.left = self.left.map(|left| left - 1);
                    return Some(line + "\n");
                }
                changed = self.changes.changed() => {
                    changed.ok()?;
                    self.changes.mark_changed();
                }
                () = sleep_until(self.again), if !self.complete => {}
                () = sleep(HEARTBEAT) => return Some(self.tell()),
                () = self.shutdown.requested() => return None,
            }
        }
    }

    fn tell(&mut self) -> String {
        self.told = Some(self.serving);
        format!("{{\"sidecars\":{}}}\n", self.serving)
    }

    fn refused(&mut self, number: u64, workload: &str, reason: &str) -> String {
        if let Some(asked) = self.asked.get_mut(&number) {
            *asked = None;
        }
        self.serving = self.asked.values().flatten().count();
        format!("{}\n", json!({ "refused": reason, "workload": workload }))
    }

    /// Asks those that have come, and forgets those that have gone. Were all asked?
    fn ask_all(&mut self) -> bool {
        let all = self.hub.all();
        let there: HashSet<u64> = all.iter().map(|(number, _)| *number).collect();
        self.asked.retain(|number, _| there.contains(number));
        let mut complete = true;
        for (number, sidecar) in all {
            if !self.asked.contains_key(&number) {
                match sidecar.tap(&self.request, Sink { number, ..self.sink.clone() }) {
                    Ok(forget) => drop(self.asked.insert(number, Some(forget))),
                    Err(_busy) => complete = false,
                }
            }
        }
        self.serving = self.asked.values().flatten().count();
        complete
    }
}
