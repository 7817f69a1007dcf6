//! The sidecars that can be asked, and what was asked of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use pillion_wire::{
    mesh::NodeInfo,
    observe::{Ask, Cancel, MAX_PAGE_BYTES, Page, Piece, Report, TapEvent, TapRequest, ask, report},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};

use super::tap::Sink;

/// Questions that may wait for one sidecar's stream.
const QUEUE: usize = 32;
/// Pages of one sidecar that may be under way.
const MOST_PAGES: usize = 32;
/// The longest reason of a sidecar that is kept, in characters.
const MOST_REASON_CHARS: usize = 500;
/// How long a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// All sidecars that have opened a stream.
#[derive(Debug)]
pub struct Sidecars {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    pub(super) taps: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    by_name: BTreeMap<(String, String), (u64, Arc<Sidecar>)>,
}

/// One sidecar.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) who: NodeInfo,
    asks: mpsc::Sender<Ask>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    pages: HashMap<u64, PendingPage>,
    taps: HashMap<u64, Sink>,
}

#[derive(Debug)]
struct PendingPage {
    bytes: Vec<u8>,
    answer: oneshot::Sender<Result<Answer, AskError>>,
}

/// A page of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its content type.
    pub content_type: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// Why a sidecar did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It has no stream.
    #[error("no sidecar of that name is connected, or it is of a version that cannot be asked")]
    Unknown,
    /// It went, or the stream broke.
    #[error("the sidecar has just gone")]
    Gone,
    /// It takes too long.
    #[error("the sidecar did not answer within {0:?}")]
    Timeout(Duration),
    /// Too much was asked.
    #[error("too much is being asked of the sidecar already")]
    Busy,
    /// It does not want to.
    #[error("the sidecar: {0}")]
    Refused(String),
}

impl Sidecars {
    /// None yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let taps = Arc::new(Semaphore::new(pillion_wire::observe::MOST_TAPS));
        Arc::new(Self { inner: Mutex::default(), changed: watch::Sender::new(0), taps })
    }

    /// A page of a sidecar's admin port, by GET.
    ///
    /// # Errors
    /// [`AskError`].
    ///
    /// # Cancel safety
    /// What comes after the future is dropped is ignored.
    pub async fn page(&self, namespace: &str, name: &str, path: &str, query: &str) -> Result<Answer, AskError> {
        let sidecar = self.find(namespace, name).ok_or(AskError::Unknown)?;
        sidecar.page(path, query).await
    }

    /// A sidecar joins, until the registration is dropped. An earlier stream of the same workload is no longer asked.
    pub(super) fn join(self: &Arc<Self>, who: NodeInfo) -> (Registration, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(QUEUE);
        let key = (who.namespace.clone(), who.workload.clone());
        let sidecar = Arc::new(Sidecar { who, asks, waiting: Mutex::default() });
        let mut inner = self.inner.lock();
        inner.next += 1;
        let number = inner.next;
        inner.by_name.insert(key.clone(), (number, Arc::clone(&sidecar)));
        drop(inner);
        self.changed.send_modify(|changes| *changes += 1);
        (Registration { hub: Arc::clone(self), key, number, sidecar }, asked)
    }

    /// All of them now.
    pub(super) fn all(&self) -> Vec<(u64, Arc<Sidecar>)> {
        self.inner.lock().by_name.values().cloned().collect()
    }

    /// Changes when one joins or leaves.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn find(&self, namespace: &str, name: &str) -> Option<Arc<Sidecar>> {
        let inner = self.inner.lock();
        let (_, sidecar) = inner.by_name.get(&(namespace.to_owned(), name.to_owned()))?;
        Some(Arc::clone(sidecar))
    }
}

impl Sidecar {
    async fn page(self: &Arc<Self>, path: &str, query: &str) -> Result<Answer, AskError> {
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut waiting = self.waiting.lock();
            if waiting.pages.len() >= MOST_PAGES {
                return Err(AskError::Busy);
            }
            let id = waiting.number();
            waiting.pages.insert(id, PendingPage { bytes: Vec::new(), answer: sender });
            id
        };
        let _forget = Forget { sidecar: Arc::clone(self), id };
        let page = Page { path: path.to_owned(), query: query.to_owned() };
        let exchange = async {
            let ask = Ask { id, what: Some(ask::What::Page(page)) };
            self.asks.send(ask).await.map_err(|_closed| AskError::Gone)?;
            answer.await.map_err(|_dropped| AskError::Gone)?
        };
        timeout(PAGE_TIMEOUT, exchange).await.unwrap_or(Err(AskError::Timeout(PAGE_TIMEOUT)))
    }

    /// Begins a tap, whose events go to `sink` until the guard is dropped.
    ///
    /// # Errors
    /// When the sidecar has gone or takes no more questions.
    pub(super) fn tap(self: &Arc<Self>, request: &TapRequest, sink: Sink) -> Result<Forget, AskError> {
        let id = {
            let mut waiting = self.waiting.lock();
            let id = waiting.number();
            waiting.taps.insert(id, sink);
            id
        };
        let forget = Forget { sidecar: Arc::clone(self), id };
        let ask = Ask { id, what: Some(ask::What::Tap(request.clone())) };
        self.asks.try_send(ask).map_err(|_full_or_gone| AskError::Busy)?;
        Ok(forget)
    }

    /// Takes what it says. Never waits: the stream carries answers to others as well.
    fn take(&self, report: Report) {
        match report.what {
            Some(report::What::Piece(piece)) => self.piece(piece),
            Some(report::What::Tapped(tapped)) => {
                let sink = self.waiting.lock().taps.get(&tapped.id).cloned();
                if let Some(sink) = sink {
                    let name = self.name();
                    sink.take(tapped.events.into_iter().map(|event| TapEvent { workload: name.clone(), ..event }));
                    sink.lose(tapped.lost);
                } else {
                    // It does not know yet, or the word was lost in a full queue.
                    self.cancel(tapped.id);
                }
            }
            Some(report::What::Refused(refused)) => {
                let mut waiting = self.waiting.lock();
                let (pending, sink) = (waiting.pages.remove(&refused.id), waiting.taps.remove(&refused.id));
                drop(waiting);
                let reason: String = refused.reason.chars().take(MOST_REASON_CHARS).collect();
                if let Some(sink) = sink {
                    sink.refuse(self.name(), reason);
                } else if let Some(pending) = pending {
                    let _gone = pending.answer.send(Err(AskError::Refused(reason)));
                }
            }
            Some(report::What::Hello(_)) | None => {}
        }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.who.namespace, self.who.workload)
    }

    fn cancel(&self, id: u64) {
        let cancel = Ask { id, what: Some(ask::What::Cancel(Cancel {})) };
        // Full: what comes of it all the same cancels again; gone: so is what was asked.
        let _unsent = self.asks.try_send(cancel);
    }

    fn piece(&self, piece: Piece) {
        let mut waiting = self.waiting.lock();
        let Some(mut pending) = waiting.pages.remove(&piece.id) else { return };
        if pending.bytes.len() + piece.bytes.len() > MAX_PAGE_BYTES {
            let _gone = pending.answer.send(Err(AskError::Refused("the page is too long".to_owned())));
            return;
        }
        pending.bytes.extend(piece.bytes);
        if !piece.last {
            waiting.pages.insert(piece.id, pending);
            return;
        }
        drop(waiting);
        let status = u16::try_from(piece.status).unwrap_or(500);
        let answer = Answer { status, content_type: piece.content_type, bytes: pending.bytes };
        let _gone = pending.answer.send(Ok(answer));
    }
}

impl Waiting {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// What was asked, until dropped.
#[derive(Debug)]
pub(super) struct Forget {
    sidecar: Arc<Sidecar>,
    id: u64,
}

impl Drop for Forget {
    fn drop(&mut self) {
        let mut waiting = self.sidecar.waiting.lock();
        let is_open = waiting.pages.remove(&self.id).is_some() | waiting.taps.remove(&self.id).is_some();
        drop(waiting);
        if is_open {
            self.sidecar.cancel(self.id);
        }
    }
}

/// A sidecar that can be asked, until dropped.
#[derive(Debug)]
pub(super) struct Registration {
    hub: Arc<Sidecars>,
    key: (String, String),
    number: u64,
    sidecar: Arc<Sidecar>,
}

impl Registration {
    pub(super) fn take(&self, report: Report) {
        self.sidecar.take(report);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut inner = self.hub.inner.lock();
        if inner.by_name.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            inner.by_name.remove(&self.key);
        }
        drop(inner);
        // Whoever waits learns that nothing will come.
        self.sidecar.waiting.lock().pages.clear();
        self.hub.changed.send_modify(|changes| *changes += 1);
    }
}

#[cfg(test)]
mod tests {
    use pillion_wire::observe::{Refused, Tapped};

    use super::*;
    use crate::{observe::tap::Tap, shutdown::Shutdown};

    fn join(hub: &Arc<Sidecars>, workload: &str) -> (Registration, mpsc::Receiver<Ask>) {
        let text = |text: &str| text.to_owned();
        hub.join(NodeInfo {
            workload: text(workload),
            namespace: text("shop"),
            service_account: text("a"),
            zone: String::new(),
            version: String::new(),
        })
    }

    fn is_cancel(ask: &Ask) -> bool {
        matches!(ask.what, Some(ask::What::Cancel(_)))
    }

    #[tokio::test]
    async fn a_cancel_that_was_lost_is_said_again_when_events_go_on_coming() {
        let hub = Sidecars::new();
        let (sidecar, mut asked) = join(&hub, "orders-1");
        let mut tap = Tap::begin(&hub, TapRequest::default(), None, Shutdown::new()).unwrap();
        assert_eq!(tap.next().await.as_deref(), Some("{\"sidecars\":1}\n"));
        let id = asked.try_recv().unwrap().id;
        let pages: Vec<_> = (0..QUEUE)
            .map(|_| {
                let hub = Arc::clone(&hub);
                tokio::spawn(async move { hub.page("shop", "orders-1", "/state", "").await })
            })
            .collect();
        while asked.len() < QUEUE {
            tokio::task::yield_now().await;
        }
        drop(tap);
        while let Ok(ask) = asked.try_recv() {
            assert!(!is_cancel(&ask), "there was no room for it");
        }
        sidecar.take(Report { what: Some(report::What::Tapped(Tapped { id, events: Vec::new(), lost: 1 })) });
        let again = asked.try_recv().unwrap();
        assert!(again.id == id && is_cancel(&again), "{again:?}");
        pages.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_sidecar_that_does_not_serve_a_tap_is_told_of_once() {
        let hub = Sidecars::new();
        let (sidecar, mut asked) = join(&hub, "orders-1");
        let mut tap = Tap::begin(&hub, TapRequest::default(), None, Shutdown::new()).unwrap();
        assert_eq!(tap.next().await.as_deref(), Some("{\"sidecars\":1}\n"));
        let id = asked.try_recv().unwrap().id;
        sidecar.take(Report { what: Some(report::What::Refused(Refused { id, reason: "16 already".to_owned() })) });
        let line = tap.next().await.unwrap();
        assert_eq!(line, "{\"refused\":\"16 already\",\"workload\":\"shop/orders-1\"}\n");
        assert_eq!(tap.next().await.as_deref(), Some("{\"sidecars\":0}\n"));
        let (_other, mut others) = join(&hub, "orders-2");
        assert_eq!(tap.next().await.as_deref(), Some("{\"sidecars\":1}\n"));
        assert!(others.try_recv().is_ok() && asked.try_recv().is_err(), "it is not asked again");
    }
}
