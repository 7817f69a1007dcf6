//! CSDS: what every xDS client holds, and what it said about it
//! (`envoy.service.status.v3.ClientStatusDiscoveryService`, gRFC A40).
//!
//! Served on the admin port, which is local, and not where sidecars connect: there a single workload's certificate would
//! be enough to read the configuration of all others.

use std::{
    pin::Pin,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::{Stream, StreamExt as _, stream};
use pillion_wire::xds::{
    Timestamp,
    admin::{ClientResourceStatus, UpdateFailureState},
    core::{Node, node::UserAgentVersionType},
    status::{
        ClientConfig, ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer, ClientStatusRequest,
        ClientStatusResponse, ConfigStatus, client_config::GenericXdsConfig,
    },
};
use tonic::{Request, Response, Status, Streaming};

use super::matcher;
use crate::xds::{
    catalog::Lookup,
    nodes::{Answer, Connected, Nodes},
    subscriptions::Standing,
};

/// Bytes of resources in one answer; what is beyond comes without its content.
const MAX_CONTENT_BYTES: usize = 32 << 20;
/// Clients that are asked at the same time.
const AT_ONCE: usize = 16;

/// Answers for all clients.
#[derive(Clone, Debug)]
pub struct Csds {
    nodes: Arc<Nodes>,
}

type Responses = Pin<Box<dyn Stream<Item = Result<ClientStatusResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ClientStatusDiscoveryService for Csds {
    type StreamClientStatusStream = Responses;

    async fn stream_client_status(
        &self,
        request: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let answers = stream::unfold((self.clone(), request.into_inner()), |(csds, mut requests)| async move {
            let answer = match requests.message().await {
                Ok(Some(request)) => csds.answer(request).await,
                Ok(None) | Err(_) => return None,
            };
            Some((answer, (csds, requests)))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch_client_status(
        &self,
        request: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, Status> {
        self.answer(request.into_inner()).await.map(Response::new)
    }
}

impl Csds {
    /// Answers for those that are connected.
    #[must_use]
    pub const fn new(nodes: Arc<Nodes>) -> Self {
        Self { nodes }
    }

    /// The service as gRPC serves it.
    #[must_use]
    pub fn into_service(self) -> ClientStatusDiscoveryServiceServer<Self> {
        ClientStatusDiscoveryServiceServer::new(self)
    }

    async fn answer(&self, request: ClientStatusRequest) -> Result<ClientStatusResponse, Status> {
        let is_wanted = matcher::compile(&request.node_matchers)?;
        let connected = self.nodes.connected().into_iter().filter(|one| is_wanted(&one.who.node));
        let asked = connected.map(|one| async move {
            let answer = one.ask().await;
            (one, answer)
        });
        let mut answers = stream::iter(asked).buffered(AT_ONCE);
        let mut room = if request.exclude_resource_contents { 0 } else { MAX_CONTENT_BYTES };
        let mut config = Vec::new();
        while let Some((one, answer)) = answers.next().await {
            if let Some(answer) = answer {
                config.push(client(&one, &answer, &mut room));
            }
        }
        Ok(ClientStatusResponse { config })
    }
}

fn client(connected: &Connected, answer: &Answer, room: &mut usize) -> ClientConfig {
    let who = &connected.who;
    let node = Node {
        id: who.node.clone(),
        user_agent_name: who.dialect.to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(who.version.clone())),
        ..Node::default()
    };
    let generic_xds_configs = answer.standings.iter().map(|standing| resource(standing, answer, room)).collect();
    ClientConfig { node: Some(node), generic_xds_configs, ..ClientConfig::default() }
}

fn resource(standing: &Standing, answer: &Answer, room: &mut usize) -> GenericXdsConfig {
    let refused = standing.refused.as_ref().filter(|_| !standing.is_in_sync());
    let (config_status, client_status) = match (&standing.newest, &standing.accepted) {
        _ if refused.is_some() => (ConfigStatus::Error, ClientResourceStatus::Nacked),
        (None, None) => (ConfigStatus::NotSent, ClientResourceStatus::DoesNotExist),
        (newest, accepted) if newest == accepted => (ConfigStatus::Synced, ClientResourceStatus::Acked),
        (_, Some(_)) => (ConfigStatus::Stale, ClientResourceStatus::Acked),
        (Some(_), None) => (ConfigStatus::Stale, ClientResourceStatus::Requested),
    };
    // Only the newest can be shown: older ones are kept by nobody but the client.
    let content = (*room > 0 && standing.newest.is_some())
        .then(|| match answer.catalog.find(standing.kind, &standing.name, &answer.viewer) {
            Lookup::Found(found) => Some(found.body()),
            Lookup::Missing | Lookup::Refused(_) => None,
        })
        .flatten();
    *room = room.saturating_sub(content.as_ref().map_or(0, |content| content.value.len()));
    let error_state = refused.map(|refused| UpdateFailureState {
        last_update_attempt: Some(timestamp(refused.at)),
        details: refused.detail.clone(),
        version_info: refused.version.to_string(),
        ..UpdateFailureState::default()
    });
    GenericXdsConfig {
        type_url: standing.kind.type_url().to_owned(),
        name: standing.name.clone(),
        version_info: standing.accepted.as_deref().unwrap_or_default().to_owned(),
        xds_config: content,
        last_updated: standing.at.map(timestamp),
        config_status: config_status.into(),
        client_status: client_status.into(),
        error_state,
        ..GenericXdsConfig::default()
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0) }
}
