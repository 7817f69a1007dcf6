//! One stream, from its beginning to its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use pillion_wire::observe::client::ObserveClient;
use pillion_wire::observe::{
    Ask, Hello, MOST_TAPS, PIECE_BYTES, Page, Piece, Refused, Report, TapRequest, Tapped, ask, report,
};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Status, Streaming};

use crate::admin::Admin;
use crate::discovery::Link;

/// Reports that may wait for the control plane to take them.
const QUEUE: usize = 4;
/// Answers that are under way, taps included.
const MOST_ASKS: usize = 64;
/// Events of one report, at most: some 100 KiB, or 320 KiB with fields.
const EVENTS: usize = 32;
/// How often a tap that sees nothing says what it lost.
const LOSS_EVERY: Duration = Duration::from_secs(1);
/// How long events are gathered for one report.
const GATHER: Duration = Duration::from_millis(20);

/// Answers until the stream ends.
///
/// # Errors
/// The status that ended it.
pub(super) async fn serve(admin: &Arc<Admin>, link: Link) -> Result<(), Status> {
    let (reports, queue) = mpsc::channel(QUEUE);
    let hello = Hello { node: Some(Box::new(admin.shared.settings.node().to_node())) };
    // There is room: it is the first.
    let _queued = reports.try_send(said(report::What::Hello(hello)));
    let queue = stream::unfold(queue, |mut queue| async { queue.recv().await.map(|report| (report, queue)) });
    let mut request = Request::new(queue);
    link.authorize(request.metadata_mut()).map_err(|error| Status::unauthenticated(error.to_string()))?;
    let asks = ObserveClient::new(link.channel).connect(request).await?.into_inner();
    // What it began ends with it.
    Session { admin: Arc::clone(admin), reports, tasks: JoinSet::new(), open: HashMap::new() }.run(asks).await
}

struct Session {
    admin: Arc<Admin>,
    reports: mpsc::Sender<Report>,
    tasks: JoinSet<u64>,
    open: HashMap<u64, AbortHandle>,
}

impl Session {
    async fn run(mut self, mut asks: Streaming<Ask>) -> Result<(), Status> {
        loop {
            tokio::select! {
                ask = asks.message() => match ask? {
                    Some(ask) => self.take(ask),
                    None => return Ok(()),
                },
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(id) = ended {
                        self.open.remove(&id);
                    }
                }
            }
        }
    }

    fn take(&mut self, ask: Ask) {
        let id = ask.id;
        let (admin, reports) = (Arc::clone(&self.admin), self.reports.clone());
        if self.open.len() >= MOST_ASKS && !matches!(ask.what, Some(ask::What::Cancel(_))) {
            let reason = "too much is asked at a time".to_owned();
            // No room to say even that: whoever asked gives up by itself.
            let _unsaid = reports.try_send(said(report::What::Refused(Refused { id, reason })));
            return;
        }
        let task = match ask.what {
            Some(ask::What::Page(page)) => self.tasks.spawn(async move {
                answer(&admin, id, page, &reports).await;
                id
            }),
            Some(ask::What::Tap(wanted)) => self.tasks.spawn(async move {
                tap(&admin, id, &wanted, &reports).await;
                id
            }),
            Some(ask::What::Cancel(_)) => {
                if let Some(task) = self.open.remove(&id) {
                    task.abort();
                }
                return;
            }
            None => self.tasks.spawn(async move {
                let reason = "a question of a kind that this version does not know".to_owned();
                let _gone = reports.send(said(report::What::Refused(Refused { id, reason }))).await;
                id
            }),
        };
        self.open.insert(id, task);
    }
}

/// Sends a page in pieces.
async fn answer(admin: &Admin, id: u64, page: Page, reports: &mpsc::Sender<Report>) {
    let Some(answer) = admin.page(&page.path, &page.query) else {
        let refused =
            Refused { id, reason: format!("there is no page {}", page.path.chars().take(80).collect::<String>()) };
        let _gone = reports.send(said(report::What::Refused(refused))).await;
        return;
    };
    let mut pieces = answer.body.as_bytes().chunks(PIECE_BYTES).peekable();
    loop {
        let bytes = pieces.next().unwrap_or_default().to_vec();
        let last = pieces.peek().is_none();
        let (status, content_type) = (answer.status.as_u16().into(), answer.content_type.to_owned());
        let piece = Piece { id, status, content_type, bytes, last };
        if reports.send(said(report::What::Piece(piece))).await.is_err() || last {
            return;
        }
    }
}

/// Sends what a tap sees, until the task is aborted.
async fn tap(admin: &Admin, id: u64, wanted: &TapRequest, reports: &mpsc::Sender<Report>) {
    let mut reader = match admin.shared.telemetry.taps.open(wanted) {
        Ok(reader) => reader,
        Err(error) => {
            let refused = Refused { id, reason: format!("{error}, of {MOST_TAPS}") };
            let _gone = reports.send(said(report::What::Refused(refused))).await;
            return;
        }
    };
    let mut events = Vec::new();
    loop {
        let mut until = Instant::now() + LOSS_EVERY;
        // One event alone would be one packet: those that follow soon go along.
        while events.len() < EVENTS {
            let room = EVENTS - events.len();
            tokio::select! {
                () = reader.read(&mut events, room) => until = until.min(Instant::now() + GATHER),
                () = sleep_until(until) => break,
            }
        }
        let lost = reader.take_lost();
        if events.is_empty() && lost == 0 {
            continue;
        }
        let tapped = Tapped { id, events: std::mem::take(&mut events), lost };
        if reports.send(said(report::What::Tapped(tapped))).await.is_err() {
            return;
        }
    }
}

fn said(what: report::What) -> Report {
    Report { what: Some(what) }
}
