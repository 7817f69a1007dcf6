//! The service by which sidecars make themselves known (`pillion.observe.v1.Observe/Connect`).

use std::{sync::Arc, time::Duration};

use pillion_wire::{
    mesh::NodeInfo,
    observe::{
        Ask, Report, report,
        server::{Asks, Observe, ObserveServer},
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use super::hub::{Registration, Sidecars};
use crate::{
    caller::Authenticator,
    core::service::Name,
    shutdown::Shutdown,
    xds::{
        catalog::Catalog,
        owner,
        server::{StreamError, viewer},
    },
};

/// How long a new stream may stay silent.
const FIRST_REPORT: Duration = Duration::from_secs(15);

/// Takes sidecars' streams.
#[derive(Clone, Debug)]
pub struct Service {
    /// Who may call.
    pub authenticator: Arc<Authenticator>,
    /// Where they are found.
    pub sidecars: Arc<Sidecars>,
    /// The newest catalog: whose the workloads are.
    pub catalogs: watch::Receiver<Arc<Catalog>>,
    /// Ends the streams.
    pub shutdown: Shutdown,
}

#[tonic::async_trait]
impl Observe for Service {
    async fn connect(&self, request: Request<Streaming<Report>>) -> Result<Response<Asks>, Status> {
        let identity = self.authenticator.authenticate(&request)?;
        let (sender, receiver) = mpsc::channel(1);
        let (service, mut reports) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let outcome = match service.hello(&mut reports, &identity).await {
                Ok((registration, asked)) => service.serve(reports, registration, asked, &sender).await,
                Err(status) => {
                    warn!(%identity, %status, "a stream to observe was refused");
                    Err(status)
                }
            };
            if let Err(status) = outcome {
                // A sidecar that takes nothing any more does not hold this task up.
                let _late = timeout(Duration::from_secs(1), sender.send(Err(status))).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Service {
    /// The service as gRPC serves it.
    #[must_use]
    pub fn into_service(self) -> ObserveServer<Self> {
        ObserveServer::new(self)
    }

    /// Who it is: believed as on an xDS stream.
    async fn hello(
        &self,
        reports: &mut Streaming<Report>,
        identity: &pillion_wire::spiffe::SpiffeId,
    ) -> Result<(Registration, mpsc::Receiver<Ask>), Status> {
        let first = timeout(FIRST_REPORT, reports.message()).await.map_err(|_late| StreamError::NoNode.status())??;
        let node = match first.and_then(|report| report.what) {
            Some(report::What::Hello(hello)) => hello.node,
            _ => None,
        };
        let node = node.ok_or_else(|| StreamError::NoNode.status())?;
        let info = NodeInfo::from_node(&node).map_err(|error| StreamError::Node(error).status())?;
        viewer(&node, identity).map_err(|error| error.status())?;
        // Whose sidecar would else no longer be asked.
        let name = Name::new(&info.namespace, &info.workload);
        owner::check(self.catalogs.borrow().mesh(), &name, &info.service_account)?;
        debug!(%identity, workload = info.workload, "a sidecar can be asked");
        Ok(self.sidecars.join(info))
    }

    async fn serve(
        &self,
        mut reports: Streaming<Report>,
        registration: Registration,
        mut asked: mpsc::Receiver<Ask>,
        sender: &mpsc::Sender<Result<Ask, Status>>,
    ) -> Result<(), Status> {
        let mut next = None;
        loop {
            tokio::select! {
                permit = sender.reserve(), if next.is_some() => {
                    let (Ok(permit), Some(ask)) = (permit, next.take()) else { return Ok(()) };
                    permit.send(Ok(ask));
                }
                ask = asked.recv(), if next.is_none() => match ask {
                    Some(ask) => next = Some(ask),
                    None => return Ok(()),
                },
                report = reports.message() => match report? {
                    Some(report) => registration.take(report),
                    None => return Ok(()),
                },
                () = sender.closed() => return Ok(()),
                () = self.shutdown.requested() => {
                    return Err(Status::unavailable("the control plane is stopping"));
                }
            }
        }
    }
}
