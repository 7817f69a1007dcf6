//! The aggregated discovery service: drives a stream core over gRPC.
//!
//! One task per stream. It keeps at most one response that the client has not
//! taken yet; while that waits, catalogs come and go, and the next response says
//! the difference to the newest. A configuration change closes nothing.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pillion_wire::{
    mesh::{MeshError, NodeInfo},
    spiffe::SpiffeId,
    xds::{
        core::Node,
        discovery::{
            AggregatedDiscoveryService, AggregatedDiscoveryServiceServer, DeltaDiscoveryRequest,
            DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        },
        value,
    },
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, field, info, info_span, warn};

use super::{
    catalog::{Catalog, Viewer},
    delta::Delta,
    dialect::Dialect,
    kind::Kind,
    nodes::{Answer, Identification, Nodes, Registration},
    sotw::Sotw,
    subscriptions::{Standing, SubscribeError},
    translate::gateway,
};
use crate::{
    caller::{Authenticator, Peer},
    core::service::Name,
    metrics::Metrics,
    shutdown::Shutdown,
};

/// The largest request that is decoded. 10,000 names of a usual length fit.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// How long a new stream may stay silent.
const FIRST_REQUEST: Duration = Duration::from_secs(15);

/// One variant of the protocol, without its I/O.
pub trait StreamCore: Default + Send + 'static {
    /// What clients send.
    type Request: Send + 'static;
    /// What they are sent.
    type Response: Send + 'static;

    /// The node, which at least the first request names.
    fn node(request: &Self::Request) -> Option<&Node>;

    /// The type URL of the resources that a request is about.
    fn type_url(request: &Self::Request) -> &str;

    /// Takes in a request. What it says about an earlier response is returned.
    ///
    /// # Errors
    ///
    /// When the stream asks for too much.
    fn handle_request(&mut self, kind: Kind, request: Self::Request) -> Result<Option<Event>, StreamError>;

    /// There is a new catalog.
    fn mark_changed(&mut self);

    /// The next response, if there is anything to say.
    fn poll_response(&mut self, catalog: &Catalog, viewer: &Viewer, events: &mut Vec<Event>) -> Option<Self::Response>;

    /// How many names are asked for.
    fn names(&self) -> usize;

    /// Says what time it is, for what happens next.
    fn handle_time(&mut self, now: SystemTime);

    /// How everything stands that was asked for.
    fn standings(&self, catalog: &Catalog, viewer: &Viewer) -> Vec<Standing>;

    /// Is the newest that was sent refused, of anything that is asked for?
    fn is_refused(&self) -> bool;
}

/// What happened on a stream, for those who keep count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A response was accepted.
    Ack {
        /// Its kind.
        kind: Kind,
        /// Its version or nonce.
        version: String,
    },
    /// A response was refused.
    Nack {
        /// Its kind.
        kind: Kind,
        /// Its version or nonce.
        version: String,
        /// The client's words.
        reason: String,
    },
    /// A response was made.
    Sent {
        /// Its kind.
        kind: Kind,
        /// How many resources it holds.
        resources: usize,
        /// How many names it says are gone.
        removed: usize,
    },
    /// The client asked for another workload's inbound configuration.
    Refused {
        /// The resource.
        name: String,
        /// Whose it is.
        owner: Name,
    },
}

/// Why a stream is ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It asks for too much.
    #[error("{0}")]
    Subscribe(#[from] SubscribeError),
    /// No request came, or the first has no node.
    #[error("the first request must come soon and name a node")]
    NoNode,
    /// A sidecar's node is not as sidecars write it.
    #[error("node of a sidecar: {0}")]
    Node(#[from] MeshError),
    /// The node claims to be somebody else.
    #[error("the node claims namespace {namespace} and service account {service_account}, but {identity} is proven")]
    Claim {
        /// The claimed namespace.
        namespace: String,
        /// The claimed account.
        service_account: String,
        /// The proven identity.
        identity: SpiffeId,
    },
}

impl StreamError {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Subscribe(_) => "too_many_names",
            Self::NoNode => "no_node",
            Self::Node(_) => "bad_node",
            Self::Claim { .. } => "false_claim",
        }
    }

    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Subscribe(_) => Status::resource_exhausted(self.to_string()),
            Self::NoNode | Self::Node(_) => Status::invalid_argument(self.to_string()),
            Self::Claim { .. } => Status::permission_denied(self.to_string()),
        }
    }
}

/// The discovery service.
#[derive(Clone, Debug)]
pub struct Discovery {
    /// The newest catalog.
    pub catalogs: watch::Receiver<Arc<Catalog>>,
    /// Who may call.
    pub authenticator: Arc<Authenticator>,
    /// Who is connected.
    pub nodes: Arc<Nodes>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Ends the streams.
    pub shutdown: Shutdown,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<Sotw>(request, "sotw")
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<Delta>(request, "delta")
    }
}

impl Discovery {
    /// The service as gRPC serves it.
    #[must_use]
    pub fn into_service(self) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    fn open<C: StreamCore>(
        &self,
        request: Request<Streaming<C::Request>>,
        variant: &'static str,
    ) -> Result<Response<Responses<C::Response>>, Status> {
        let identity = self.authenticator.authenticate(&request)?;
        let address = request.extensions().get::<Peer>().map(|peer| peer.address);
        // One response on its way: the next is made when this one is taken.
        let (responses, receiver) = mpsc::channel(1);
        let stream = OpenStream::<C> {
            core: C::default(),
            requests: request.into_inner(),
            responses,
            discovery: self.clone(),
            identity,
            address,
            variant,
            is_refused: false,
        };
        tokio::spawn(stream.serve());
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// One stream and all it needs.
struct OpenStream<C: StreamCore> {
    core: C,
    requests: Streaming<C::Request>,
    responses: mpsc::Sender<Result<C::Response, Status>>,
    discovery: Discovery,
    identity: SpiffeId,
    address: Option<SocketAddr>,
    variant: &'static str,
    is_refused: bool,
}

impl<C: StreamCore> OpenStream<C> {
    /// Serves the stream until the client or the process ends.
    async fn serve(mut self) {
        let outcome = self.run().await;
        let status = match outcome {
            Ok(()) => return,
            Err(End::Status(status)) => status,
            Err(End::Refused(error)) => {
                self.discovery.metrics.refused_stream(error.reason());
                warn!(identity = %self.identity, %error, "xDS stream refused");
                error.status()
            }
        };
        // A client that takes nothing any more does not hold this task up.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.responses.send(Err(status))).await;
    }

    async fn run(&mut self) -> Result<(), End> {
        let first =
            tokio::time::timeout(FIRST_REQUEST, self.requests.message()).await.map_err(|_| StreamError::NoNode)?;
        let Some(first) = first.map_err(End::Status)? else {
            return Ok(());
        };
        let node = C::node(&first).ok_or(StreamError::NoNode)?;
        let viewer = viewer(node, &self.identity)?;
        // A question at a time: who asks waits for the one before.
        let (questions, asked) = mpsc::channel(1);
        let registration = self.discovery.nodes.register(self.identification(node, &viewer), questions);
        debug!(identity = %self.identity, node = %node.id, variant = self.variant, "xDS stream opened");
        self.take(first, &registration)?;
        let outcome = self.exchange(&viewer, &registration, asked).await;
        debug!(identity = %self.identity, variant = self.variant, "xDS stream ended");
        outcome
    }

    async fn exchange(
        &mut self,
        viewer: &Viewer,
        registration: &Registration,
        mut asked: mpsc::Receiver<oneshot::Sender<Answer>>,
    ) -> Result<(), End> {
        let mut catalogs = self.discovery.catalogs.clone();
        let shutdown = self.discovery.shutdown.clone();
        let responses = self.responses.clone();
        let mut next = None;
        let mut asks = true;
        loop {
            if next.is_none() {
                let catalog = {
                    let newest = catalogs.borrow_and_update();
                    if newest.has_changed() {
                        self.core.mark_changed();
                    }
                    Arc::clone(&newest)
                };
                next = self.poll(&catalog, viewer, registration);
            }
            // A client that has closed its half still gets what it asked for.
            if !asks && next.is_none() {
                return Ok(());
            }
            tokio::select! {
                permit = responses.reserve(), if next.is_some() => {
                    let (Ok(permit), Some(response)) = (permit, next.take()) else { return Ok(()) };
                    permit.send(Ok(response));
                }
                request = self.requests.message(), if asks => match request.map_err(End::Status)? {
                    Some(request) => self.take(request, registration)?,
                    None => asks = false,
                },
                changed = catalogs.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.core.mark_changed();
                }
                Some(asker) = asked.recv() => {
                    let catalog = Arc::clone(&catalogs.borrow());
                    let standings = self.core.standings(&catalog, viewer);
                    // Nobody waits any more: the same as never asked.
                    let _gone = asker.send(Answer { standings, catalog, viewer: viewer.clone() });
                }
                () = responses.closed() => return Ok(()),
                () = shutdown.requested() => {
                    return Err(End::Status(Status::unavailable("the control plane is stopping")));
                }
            }
        }
    }

    fn poll(&mut self, catalog: &Catalog, viewer: &Viewer, registration: &Registration) -> Option<C::Response> {
        let mut events = Vec::new();
        self.core.handle_time(SystemTime::now());
        // Most polls have nothing to say: those without names are not sent to the collector.
        let span = info_span!(
            "push",
            otel.kind = "producer",
            identity = %self.identity,
            workload = viewer.workload.as_deref().unwrap_or_default(),
            variant = self.variant,
            names = field::Empty,
        );
        let response = span.in_scope(|| self.core.poll_response(catalog, viewer, &mut events));
        if response.is_some() {
            span.record("names", self.core.names());
        }
        drop(span);
        for event in &events {
            registration.note(event);
            if let Event::Refused { name, owner } = event {
                warn!(
                    identity = %self.identity,
                    workload = viewer.workload.as_deref().unwrap_or_default(),
                    resource = %name,
                    %owner,
                    "refused: the inbound configuration of another workload"
                );
            }
        }
        response
    }

    fn take(&mut self, request: C::Request, registration: &Registration) -> Result<(), End> {
        let url = C::type_url(&request);
        let Some(kind) = Kind::of(url) else {
            info!(identity = %self.identity, url, "a resource type that is not served, ignored");
            return Ok(());
        };
        self.core.handle_time(SystemTime::now());
        let event = self.core.handle_request(kind, request)?;
        // Nothing is looked through for those that refuse nothing.
        self.is_refused = (self.is_refused || matches!(event, Some(Event::Nack { .. }))) && self.core.is_refused();
        registration.asks(self.core.names(), self.is_refused);
        if let Some(event) = event {
            registration.note(&event);
            if let Event::Nack { version, reason, .. } = &event {
                warn!(
                    identity = %self.identity,
                    kind = kind.name(),
                    version,
                    reason,
                    "configuration refused by its client"
                );
            }
        }
        Ok(())
    }

    fn identification(&self, node: &Node, viewer: &Viewer) -> Identification {
        use pillion_wire::xds::core::node::UserAgentVersionType as Version;
        Identification {
            node: node.id.clone(),
            identity: self.identity.to_string(),
            dialect: viewer.dialect.name(),
            variant: self.variant,
            version: match &node.user_agent_version_type {
                Some(Version::UserAgentVersion(version)) => version.clone(),
                _ => String::new(),
            },
            address: self.address,
        }
    }
}

/// Why a stream ends before its client wants.
enum End {
    Status(Status),
    Refused(StreamError),
}

impl From<StreamError> for End {
    fn from(error: StreamError) -> Self {
        Self::Refused(error)
    }
}

/// What `node` may see, being `identity`.
pub(crate) fn viewer(node: &Node, identity: &SpiffeId) -> Result<Viewer, StreamError> {
    let dialect = Dialect::of(node);
    let mut workload = None;
    if dialect == Dialect::Pillion {
        let info = NodeInfo::from_node(node)?;
        if info.namespace != identity.namespace() || info.service_account != identity.service_account() {
            return Err(StreamError::Claim {
                namespace: info.namespace,
                service_account: info.service_account,
                identity: identity.clone(),
            });
        }
        workload = Some(info.workload);
    }
    let zone = node.locality.as_ref().map(|locality| locality.zone.clone()).filter(|zone| !zone.is_empty());
    Ok(Viewer { identity: identity.clone(), dialect, workload, zone, outbound_address: outbound_address(node) })
}

fn outbound_address(node: &Node) -> Option<SocketAddr> {
    let field = node.metadata.as_ref()?.fields.get(gateway::ADDRESS_METADATA)?;
    match field.kind.as_ref()? {
        value::Kind::StringValue(text) => text.parse().ok(),
        _ => None,
    }
}
