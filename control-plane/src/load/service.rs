//! The load reporting service (LRS): a stream per client, which is told how often to report.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pillion_wire::{
    load::{from_duration, to_duration},
    spiffe::SpiffeId,
    xds::load_stats::{LoadReportingService, LoadReportingServiceServer, LoadStatsRequest, LoadStatsResponse},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use super::{
    report,
    store::{Reporter, Store},
};
use crate::{
    caller::Authenticator,
    core::service::Name,
    metrics::Metrics,
    shutdown::Shutdown,
    xds::{catalog::Catalog, dialect::Dialect, owner, server::viewer},
};

/// The largest report that is decoded: one of ours with all that it may hold is a third of it.
const MAX_REPORT_BYTES: usize = 1 << 20;
/// Clusters of a report that are looked at.
const MOST_CLUSTERS: usize = 2_000;
/// The longest time that a report covers.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// How long a new stream may stay silent.
const FIRST_REQUEST: Duration = Duration::from_secs(15);
/// The longest name of a client that is no sidecar of ours.
const LONGEST_NAME: usize = 128;

/// The service.
#[derive(Clone, Debug)]
pub struct Loads {
    /// Where reports go.
    pub store: Arc<Store>,
    /// The newest catalog: whose the workloads are.
    pub catalogs: watch::Receiver<Arc<Catalog>>,
    /// Who may report.
    pub authenticator: Arc<Authenticator>,
    /// How often.
    pub interval: Duration,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Ends it.
    pub shutdown: Shutdown,
}

type Responses = Pin<Box<dyn Stream<Item = Result<LoadStatsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl LoadReportingService for Loads {
    type StreamLoadStatsStream = Responses;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let identity = self.authenticator.authenticate(&request)?;
        let (responses, receiver) = mpsc::channel(1);
        let loads = self.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = loads.serve(request.into_inner(), &responses, &identity) => outcome,
                () = loads.shutdown.requested() => Err(Status::unavailable("the control plane is stopping")),
            };
            if let Err(status) = outcome {
                debug!(%identity, %status, "load reports ended");
                let _ = responses.try_send(Err(status));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Loads {
    /// The service as gRPC serves it.
    #[must_use]
    pub fn into_service(self) -> LoadReportingServiceServer<Self> {
        LoadReportingServiceServer::new(self).max_decoding_message_size(MAX_REPORT_BYTES)
    }

    async fn serve(
        &self,
        mut requests: Streaming<LoadStatsRequest>,
        responses: &mpsc::Sender<Result<LoadStatsResponse, Status>>,
        identity: &SpiffeId,
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(FIRST_REQUEST, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no node was named in time"))??;
        let Some(first) = first else { return Ok(()) };
        let reporter = reporter(&first, identity)?;
        self.is_stranger(&reporter)?;
        info!(%identity, name = reporter.name, dialect = reporter.dialect, "load reports begin");
        let wanted = LoadStatsResponse {
            send_all_clusters: true,
            load_reporting_interval: Some(to_duration(self.interval)),
            // Only ours is asked for endpoints, and says how they stand without.
            report_endpoint_granularity: false,
            clusters: Vec::new(),
        };
        if responses.send(Ok(wanted)).await.is_err() {
            return Ok(());
        }
        self.take(&reporter, &first)?;
        while let Some(request) = requests.message().await? {
            self.take(&reporter, &request)?;
        }
        Ok(())
    }

    fn take(&self, reporter: &Reporter, request: &LoadStatsRequest) -> Result<(), Status> {
        let stranger = self.is_stranger(reporter)?;
        let clusters = request.cluster_stats.get(..MOST_CLUSTERS).unwrap_or(&request.cluster_stats);
        let intervals = clusters.iter().filter_map(|stats| stats.load_report_interval);
        let covered = intervals.map(from_duration).max();
        // A client that has nothing to say reports nothing, and is there all the same.
        let covered = covered.unwrap_or_else(|| if request.node.is_some() { Duration::ZERO } else { self.interval });
        let covered = u64::try_from(covered.min(LONGEST_INTERVAL).as_millis()).unwrap_or(0);
        let overflow = self.store.take(reporter, stranger, clusters.iter().map(report::read).collect(), covered, now());
        let cut = request.cluster_stats.len() - clusters.len();
        self.metrics.load_report(overflow.clusters + cut as u64);
        Ok(())
    }

    /// Does no document name it? A workload of another account is nobody's to report as.
    fn is_stranger(&self, reporter: &Reporter) -> Result<bool, Status> {
        if reporter.dialect != Dialect::Pillion.name() {
            return Ok(true);
        }
        let name = Name::new(&reporter.namespace, &reporter.name);
        let catalog = Arc::clone(&self.catalogs.borrow());
        owner::check(catalog.mesh(), &name, &reporter.service_account).map(|is_known| !is_known)
    }
}

/// Unix seconds.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn reporter(first: &LoadStatsRequest, identity: &SpiffeId) -> Result<Reporter, Status> {
    let node = first.node.as_ref().ok_or_else(|| Status::invalid_argument("the first report names no node"))?;
    let viewer = viewer(node, identity).map_err(|error| error.status())?;
    let name = viewer.workload.unwrap_or_else(|| node.id.chars().take(LONGEST_NAME).collect());
    Ok(Reporter {
        namespace: identity.namespace().to_owned(),
        name,
        service_account: identity.service_account().to_owned(),
        dialect: viewer.dialect.name(),
    })
}
