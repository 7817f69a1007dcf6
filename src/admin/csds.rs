//! CSDS: how our own resources stand (`envoy.service.status.v3.ClientStatusDiscoveryService`, gRFC A40).
//!
//! Without their content: a sidecar keeps what it made of it. The control plane's CSDS has it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{Stream, stream};
use pillion_wire::xds::Timestamp;
use pillion_wire::xds::admin::{ClientResourceStatus, UpdateFailureState};
use pillion_wire::xds::status::client_config::GenericXdsConfig;
use pillion_wire::xds::status::{
    ClientConfig, ClientStatusDiscoveryService, ClientStatusRequest, ClientStatusResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::Admin;
use crate::discovery::{Entry, Kind, xds};

/// Answers for us alone.
#[derive(Clone, Debug)]
pub(super) struct Csds(pub(super) Arc<Admin>);

type Responses = Pin<Box<dyn Stream<Item = Result<ClientStatusResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ClientStatusDiscoveryService for Csds {
    type StreamClientStatusStream = Responses;

    async fn stream_client_status(
        &self,
        request: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let answers = stream::unfold((self.clone(), request.into_inner()), |(csds, mut requests)| async move {
            let request = requests.message().await.ok()??;
            Some((csds.answer(&request), (csds, requests)))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch_client_status(
        &self,
        request: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, Status> {
        self.answer(&request.into_inner()).map(Response::new)
    }
}

impl Csds {
    fn answer(&self, request: &ClientStatusRequest) -> Result<ClientStatusResponse, Status> {
        if !request.node_matchers.is_empty() {
            // gRFC A40: a client answers for itself.
            return Err(Status::invalid_argument("node_matchers are not supported by a client"));
        }
        let resources = self.0.ledger.entries().into_iter();
        let config = ClientConfig {
            node: Some(self.0.shared.settings.node().to_node()),
            generic_xds_configs: resources.map(|((kind, name), entry)| resource(kind, name, entry)).collect(),
            ..ClientConfig::default()
        };
        Ok(ClientStatusResponse { config: vec![config] })
    }
}

fn resource(kind: Kind, name: String, entry: Entry) -> GenericXdsConfig {
    let client_status = match &entry {
        Entry { refused: Some(_), .. } => ClientResourceStatus::Nacked,
        Entry { version: Some(_), .. } => ClientResourceStatus::Acked,
        Entry { is_missing: true, .. } => ClientResourceStatus::DoesNotExist,
        Entry { .. } => ClientResourceStatus::Requested,
    };
    let at = entry.at.map(timestamp);
    let error_state = entry.refused.map(|refused| UpdateFailureState {
        last_update_attempt: at,
        details: refused.detail,
        version_info: refused.version,
        ..UpdateFailureState::default()
    });
    GenericXdsConfig {
        type_url: xds::type_url(kind).to_owned(),
        name,
        version_info: entry.version.unwrap_or_default(),
        last_updated: at,
        client_status: client_status.into(),
        error_state,
        ..GenericXdsConfig::default()
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0) }
}
