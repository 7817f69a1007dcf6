//! A control plane's ADS for tests: holds resources, answers subscriptions, pushes changes, writes down what it is told.

#![allow(clippy::expect_used, reason = "test support")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::{Stream, stream};
use pillion_wire::xds::Any;
use pillion_wire::xds::discovery::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer, DeltaDiscoveryRequest, DeltaDiscoveryResponse,
    DiscoveryRequest, DiscoveryResponse, Resource,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

type Key = (String, String);
type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Ads {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
pub(crate) struct State {
    resources: BTreeMap<Key, (u64, Any)>,
    version: u64,
    pub(crate) requests: Vec<DeltaDiscoveryRequest>,
    /// When streams were asked for, with the token that was shown.
    pub(crate) streams: Vec<(Instant, Option<String>)>,
    pub(crate) refuse: Option<Status>,
}

impl Ads {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::new(0) }
    }

    pub(crate) fn routes(&self) -> Routes {
        Routes::new(AggregatedDiscoveryServiceServer::new(self.clone()))
    }

    /// Sets a resource, or takes it away, and pushes that.
    pub(crate) fn set(&self, name: &str, url: &str, content: Option<Any>) {
        let mut state = self.state.lock().expect("not poisoned");
        state.version += 1;
        let (key, version) = ((url.to_owned(), name.to_owned()), state.version);
        match content {
            Some(content) => drop(state.resources.insert(key, (version, content))),
            None => drop(state.resources.remove(&key)),
        }
        drop(state);
        self.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().expect("not poisoned"))
    }

    /// One stream: what each kind's subscriptions are, and which versions the client has.
    async fn serve(
        self,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        out: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) {
        let mut changes = self.changed.subscribe();
        let mut client = Client::default();
        loop {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => {
                        client.hear(&request);
                        self.look(|state| state.requests.push(request));
                    }
                    _ => return,
                },
                changed = changes.changed() => if changed.is_err() { return },
            }
            for response in self.look(|state| client.news(state)) {
                if out.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[derive(Default)]
struct Client {
    wanted: BTreeSet<Key>,
    /// 0: told that there is none.
    told: HashMap<Key, u64>,
    nonce: u64,
}

impl Client {
    fn hear(&mut self, request: &DeltaDiscoveryRequest) {
        let key = |name: &String| (request.type_url.clone(), name.clone());
        for name in &request.resource_names_unsubscribe {
            self.wanted.remove(&key(name));
            self.told.remove(&key(name));
        }
        self.wanted.extend(request.resource_names_subscribe.iter().map(key));
        let versions = request.initial_resource_versions.iter();
        self.told.extend(versions.map(|(name, version)| (key(name), version.parse().expect("ours"))));
    }

    fn news(&mut self, state: &State) -> Vec<DeltaDiscoveryResponse> {
        let mut responses: BTreeMap<String, DeltaDiscoveryResponse> = BTreeMap::new();
        for (url, name) in &self.wanted {
            let key = (url.clone(), name.clone());
            let held = state.resources.get(&key);
            let version = held.map_or(0, |(version, _)| *version);
            if self.told.insert(key, version) == Some(version) {
                continue;
            }
            let response = responses.entry(url.clone()).or_default();
            match held {
                Some((version, content)) => response.resources.push(Resource {
                    name: name.clone(),
                    version: version.to_string(),
                    resource: Some(content.clone()),
                    ..Resource::default()
                }),
                None => response.removed_resources.push(name.clone()),
            }
        }
        let finish = |(url, mut response): (String, DeltaDiscoveryResponse)| {
            self.nonce += 1;
            response.nonce = self.nonce.to_string();
            response.type_url = url;
            response
        };
        responses.into_iter().map(finish).collect()
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let refuse = self.look(|state| {
            state.streams.push((Instant::now(), token));
            state.refuse.clone()
        });
        if let Some(status) = refuse {
            return Err(status);
        }
        let (out, queue) = mpsc::channel(16);
        tokio::spawn(self.clone().serve(request.into_inner(), out));
        let responses = stream::unfold(queue, |mut queue| async { queue.recv().await.map(|item| (item, queue)) });
        Ok(Response::new(Box::pin(responses)))
    }
}
