//! Load reports (LRS) to the control plane, on the connection that carries xDS.
//!
//! What was counted is handed over when a report goes into the stream: a report that is on its way when the connection
//! breaks is lost, nothing else is. What is counted meanwhile goes into the first report after the next connection, whose
//! interval says how long that was.

mod report;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use parking_lot::Mutex;
use pillion_wire::xds::core::Node;
use pillion_wire::xds::load_stats::{LoadReportingServiceClient, LoadStatsRequest, LoadStatsResponse};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Request, Status};

use super::client::Link;
use crate::backoff::Backoff;
use crate::discovery::source::Context;
use crate::slot::Slot;
use crate::snapshot::Outbound;
use crate::telemetry::load::{Edges, Load};

/// A stream that lasted for this long was no failure.
const LASTED: Duration = Duration::from_secs(30);
/// However often the server wants reports.
const SHORTEST: Duration = Duration::from_millis(100);
/// And however rarely.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is to be reported.
pub(super) struct Unsent {
    load: Arc<Load>,
    outbound: Arc<Slot<Outbound>>,
    node: Node,
    since: Mutex<Instant>,
}

impl Unsent {
    pub(super) fn new(context: &Context) -> Arc<Self> {
        Arc::new(Self {
            load: Arc::clone(&context.load),
            outbound: Arc::clone(&context.outbound),
            node: context.bootstrap.node().to_node(),
            since: Mutex::new(Instant::now()),
        })
    }

    /// All that was counted since the last report. It is the sender's from now on.
    fn report(&self) -> LoadStatsRequest {
        let now = Instant::now();
        let since = std::mem::replace(&mut *self.since.lock(), now);
        let mut edges = Edges::default();
        self.load.take(&mut edges);
        let interval = now.saturating_duration_since(since);
        LoadStatsRequest { node: None, cluster_stats: report::clusters(&edges, &self.outbound.load_full(), interval) }
    }
}

/// Reports until what is returned is dropped. `None`: nothing is counted.
pub(super) fn begin(unsent: &Arc<Unsent>, link: Link) -> Option<AbortOnDropHandle<Infallible>> {
    let unsent = unsent.load.is_on().then(|| Arc::clone(unsent))?;
    Some(AbortOnDropHandle::new(tokio::spawn(run(unsent, link))))
}

async fn run(unsent: Arc<Unsent>, link: Link) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        match stream_reports(&unsent, &link).await {
            Err(status) if status.code() == Code::Unimplemented => {
                tracing::debug!("the control plane does not want load reports");
                std::future::pending::<()>().await;
            }
            outcome => tracing::debug!(?outcome, "load reports ended"),
        }
        if began.elapsed() > LASTED {
            backoff.reset();
        }
        sleep(backoff.next(rand::random())).await;
    }
}

async fn stream_reports(unsent: &Unsent, link: &Link) -> Result<(), Status> {
    // One report on its way.
    let (sender, queue) = mpsc::channel::<LoadStatsRequest>(1);
    let hello = LoadStatsRequest { node: Some(unsent.node.clone()), cluster_stats: Vec::new() };
    let queue = stream::unfold((Some(hello), queue), |(hello, mut queue)| async move {
        let request = match hello {
            Some(hello) => hello,
            None => queue.recv().await?,
        };
        Some((request, (None, queue)))
    });
    let mut request = Request::new(queue);
    link.authorize(request.metadata_mut()).map_err(|_unfit| Status::unauthenticated("our proof fits no metadata"))?;
    let mut client = LoadReportingServiceClient::new(link.channel.clone());
    let mut responses = client.stream_load_stats(request).await?.into_inner();
    let Some(wanted) = responses.message().await? else { return Ok(()) };
    let mut ticks = ticks(&wanted);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                // Nothing is taken before there is room for it.
                let Ok(permit) = sender.reserve().await else { return Ok(()) };
                permit.send(unsent.report());
            }
            response = responses.message() => match response? {
                Some(wanted) => ticks = self::ticks(&wanted),
                None => return Ok(()),
            },
        }
    }
}

fn ticks(wanted: &LoadStatsResponse) -> tokio::time::Interval {
    let told = wanted.load_reporting_interval.map(pillion_wire::load::from_duration);
    let every = told.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST);
    let mut ticks = interval(every);
    ticks.reset(); // The first report has something to say.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
