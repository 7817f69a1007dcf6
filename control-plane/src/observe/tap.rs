//! One tap: the requests of all sidecars that match, as one stream of lines.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pillion_wire::observe::{TapEvent, TapRequest};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::sleep,
};

use super::hub::{Forget, Sidecars};
use crate::shutdown::Shutdown;

/// Events that may wait for the reader; each is a few hundred bytes, some KiB at most.
const QUEUE: usize = 1024;
/// How often a reader without events is told something, so that a dead one is noticed.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How soon a sidecar that could not be asked is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where the events of one tap go.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    events: mpsc::Sender<TapEvent>,
    lost: Arc<AtomicU64>,
}

impl Sink {
    /// Queues what there is room for, and counts the rest as lost.
    pub(super) fn take(&self, events: impl IntoIterator<Item = TapEvent>) {
        for event in events {
            if self.events.try_send(event).is_err() {
                self.lose(1);
            }
        }
    }

    /// That many did not come through.
    pub(super) fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }
}

/// A tap's reader. Lines are JSON objects: events; `{"lost": N}`; `{"sidecars": N}` at the beginning, when their number
/// changes and every few seconds.
pub(super) struct Tap {
    hub: Arc<Sidecars>,
    request: TapRequest,
    sink: Sink,
    events: mpsc::Receiver<TapEvent>,
    asked: BTreeMap<u64, Forget>,
    told: Option<usize>,
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
        let sink = Sink { events: sender, lost: Arc::default() };
        let (hub, asked) = (Arc::clone(hub), BTreeMap::new());
        Some(Self { hub, request, sink, events, asked, told: None, left: most, shutdown, _permit: permit })
    }

    /// The next line. `None`: as many came as were wanted, or the control plane stops.
    ///
    /// # Cancel safety
    /// Safe: what was received and not returned is kept.
    pub(super) async fn next(&mut self) -> Option<String> {
        let mut changes = self.hub.changes();
        loop {
            if self.left == Some(0) {
                return None;
            }
            changes.borrow_and_update();
            let complete = self.ask_all();
            if self.told != Some(self.asked.len()) {
                return Some(self.tell());
            }
            let lost = self.sink.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                return Some(format!("{{\"lost\":{lost}}}\n"));
            }
            tokio::select! {
                biased;
                event = self.events.recv() => {
                    let line = serde_json::to_string(&event?).unwrap_or_default();
                    self.left = self.left.map(|left| left - 1);
                    return Some(line + "\n");
                }
                changed = changes.changed() => changed.ok()?,
                () = sleep(AGAIN), if !complete => {}
                () = sleep(HEARTBEAT) => return Some(self.tell()),
                () = self.shutdown.requested() => return None,
            }
        }
    }

    fn tell(&mut self) -> String {
        self.told = Some(self.asked.len());
        format!("{{\"sidecars\":{}}}\n", self.asked.len())
    }

    /// Asks those that have come, and forgets those that have gone. Were all asked?
    fn ask_all(&mut self) -> bool {
        let all = self.hub.all();
        self.asked.retain(|number, _| all.iter().any(|(known, _)| known == number));
        let mut complete = true;
        for (number, sidecar) in all {
            if !self.asked.contains_key(&number) {
                match sidecar.tap(&self.request, self.sink.clone()) {
                    Ok(forget) => drop(self.asked.insert(number, forget)),
                    Err(_busy) => complete = false,
                }
            }
        }
        complete
    }
}
