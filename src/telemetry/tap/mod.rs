//! Requests as they end, for those who look: `pillion tap`.
//!
//! While nobody looks a request costs one relaxed load when it begins and one when it ends. While somebody does, each
//! request is held against each tap's conditions; those that match are put into the tap's queue, or lost, and counted,
//! when that is full or has had enough this second. Nothing here ever waits for a reader.

mod event;
mod filter;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use parking_lot::Mutex;
use pillion_wire::observe::{Field, MOST_TAPS, TapEvent, TapRequest};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Record;
use filter::Filter;

/// Events that may wait for the reader of one tap. Each has a few hundred bytes, at most about 10 KiB.
const QUEUE: usize = 256;
/// Events that one tap takes in a second; more are lost.
const EVENTS_PER_SECOND: u32 = 2000;

/// All taps of a sidecar.
#[derive(Debug, Default)]
pub struct Taps {
    us: Us,
    /// How many there are: the only thing that a request looks at when there are none.
    count: AtomicUsize,
    /// Does one of them want header fields?
    fields: AtomicBool,
    taps: ArcSwap<Vec<Arc<Tap>>>,
    changing: Mutex<()>,
    lost: AtomicU64,
}

/// Who we are, for conditions on either end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Us {
    /// Our namespace.
    pub namespace: String,
    /// Our workload.
    pub workload: String,
    /// Our service account.
    pub service_account: String,
}

#[derive(Debug)]
struct Tap {
    filter: Filter,
    events: mpsc::Sender<TapEvent>,
    lost: AtomicU64,
    /// The second that is counted in, and how many came in it.
    second: Mutex<(Instant, u32)>,
}

/// More than [`MOST_TAPS`] at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MOST_TAPS} taps are open already")]
pub struct TooMany;

impl Taps {
    /// None yet.
    pub fn new(us: Us) -> Self {
        Self { us, ..Self::default() }
    }

    /// Is there any?
    #[inline]
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// How many events of any tap were lost, since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Does one of them want header fields?
    #[inline]
    pub fn wants_fields(&self) -> bool {
        self.fields.load(Ordering::Relaxed)
    }

    /// Opens a tap, until the reader is dropped. Header fields that may hold secrets are not given, whoever asks.
    ///
    /// # Errors
    /// When there are too many.
    pub fn open(self: &Arc<Self>, request: &TapRequest) -> Result<Reader, TooMany> {
        let (sender, events) = mpsc::channel(QUEUE);
        let second = Mutex::new((Instant::now(), 0));
        let tap = Arc::new(Tap { filter: Filter::new(request), events: sender, lost: AtomicU64::new(0), second });
        let _one_at_a_time = self.changing.lock();
        let mut taps = Vec::clone(&self.taps.load());
        if taps.len() >= MOST_TAPS {
            return Err(TooMany);
        }
        taps.push(Arc::clone(&tap));
        self.set(taps);
        Ok(Reader { taps: Arc::clone(self), tap, events })
    }

    fn set(&self, taps: Vec<Arc<Tap>>) {
        self.fields.store(taps.iter().any(|tap| tap.filter.wants_fields()), Ordering::Relaxed);
        let count = taps.len();
        self.taps.store(Arc::new(taps));
        self.count.store(count, Ordering::Relaxed);
    }

    /// What taps may show of a request's head: names of fields, and values of those that one of them asked for.
    #[cold]
    pub fn fields(&self, headers: &HeaderMap) -> Box<[Field]> {
        event::fields(headers, &self.taps.load())
    }

    /// A request or connection has ended.
    #[cold]
    pub(super) fn ended(&self, record: &Record, took: Duration) {
        for tap in self.taps.load().iter() {
            let is_wanted = tap.filter.matches(record, took, &self.us) && tap.filter.is_chosen(rand::random());
            if is_wanted && !tap.offer(|| event::of(record, took, &tap.filter)) {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Tap {
    /// Queues an event, which is made only if there is room. Was there?
    fn offer(&self, event: impl FnOnce() -> TapEvent) -> bool {
        let room = if self.has_room() { self.events.try_reserve().ok() } else { None };
        let has_room = room.is_some();
        match room {
            Some(room) => room.send(event()),
            None => drop(self.lost.fetch_add(1, Ordering::Relaxed)),
        }
        has_room
    }

    fn has_room(&self) -> bool {
        let now = Instant::now();
        let mut second = self.second.lock();
        if now.saturating_duration_since(second.0) >= Duration::from_secs(1) {
            *second = (now, 0);
        }
        second.1 += 1;
        second.1 <= EVENTS_PER_SECOND
    }
}

/// Reads what a tap saw. Dropping it ends the tap.
#[derive(Debug)]
pub struct Reader {
    taps: Arc<Taps>,
    tap: Arc<Tap>,
    events: mpsc::Receiver<TapEvent>,
}

impl Reader {
    /// Waits for events, at most `most`, and adds them to `events`.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken then.
    pub async fn read(&mut self, events: &mut Vec<TapEvent>, most: usize) {
        self.events.recv_many(events, most).await;
    }

    /// How many were lost since the last look.
    pub fn take_lost(&self) -> u64 {
        self.tap.lost.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _one_at_a_time = self.taps.changing.lock();
        let mut taps = Vec::clone(&self.taps.taps.load());
        taps.retain(|tap| !Arc::ptr_eq(tap, &self.tap));
        self.taps.set(taps);
    }
}

#[cfg(test)]
mod tests;
