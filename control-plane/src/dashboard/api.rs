//! The JSON API, read only: `/api/v1/graph`, `/api/v1/node`, `/api/v1/config`, `/api/v1/nodes`.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use pillion_wire::{query::pairs, spiffe::TrustDomain};
use serde_json::json;

use super::{
    detail,
    graph::{self, Sources},
};
use crate::{
    index::Status,
    load::{service::now, store::Store},
    observe::{self, api::Body},
    xds::catalog::Catalog,
};

/// Seconds that rates are over, unless the question says.
const WINDOW: u64 = 30;
/// Seconds of a node's history, unless the question says.
const HISTORY: u64 = 120;
/// The longest of both: what is kept.
const LONGEST_WINDOW: u64 = 900;

/// What answers are made of.
#[derive(Debug)]
pub struct Api {
    /// What sidecars run and see, who is connected, and the mesh.
    pub observe: observe::api::Api,
    /// The folder of documents, in full, for those who read it themselves.
    pub folder: PathBuf,
    /// Trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// What is in force.
    pub status: Arc<Mutex<Status>>,
    /// What was reported.
    pub store: Arc<Store>,
}

impl Api {
    /// The answer to a request. `None`: the path is none of ours.
    ///
    /// # Cancel safety
    /// Dropping the future, or the body, gives up what was asked of sidecars.
    pub async fn answer(&self, method: &Method, uri: &Uri) -> Option<Response<Body>> {
        if !uri.path().starts_with("/api/") {
            return None;
        }
        if let Some(answer) = self.observe.answer(method, uri).await {
            return Some(answer);
        }
        Some(respond(match *method {
            Method::GET | Method::HEAD => self.page(uri.path(), uri.query().unwrap_or_default()),
            _ => error(StatusCode::METHOD_NOT_ALLOWED, "read only"),
        }))
    }

    /// The answer to `GET path?query`, as JSON.
    fn page(&self, path: &str, query: &str) -> (StatusCode, String) {
        let window = |default: u64| {
            let asked = parameter(query, "window").and_then(|text| text.parse().ok());
            asked.unwrap_or(default).clamp(5, LONGEST_WINDOW)
        };
        let value = match path {
            "/api/v1/graph" => json!(self.graph(window(WINDOW), parameter(query, "namespace").as_deref())),
            "/api/v1/node" => match parameter(query, "id") {
                Some(id) => self.with_sources(|sources| detail::node(sources, &id, window(HISTORY))),
                None => return error(StatusCode::BAD_REQUEST, "which node? /api/v1/node?id=service/shop/orders"),
            },
            "/api/v1/config" => {
                // Cloned first: rendering a large configuration must not hold up an edit.
                let status = self.status.lock().clone();
                let mut config = status.to_json();
                if let Some(fields) = config.as_object_mut() {
                    fields.insert("folder".to_owned(), self.folder.display().to_string().into());
                    fields.insert("trust_domain".to_owned(), self.trust_domain.to_string().into());
                }
                config
            }
            "/api/v1/nodes" => self.observe.nodes.to_json(),
            _ => return error(StatusCode::NOT_FOUND, "there are /api/v1/graph, node, config, nodes, sidecars, tap"),
        };
        (StatusCode::OK, format!("{value}\n"))
    }

    /// The graph of the last `window` seconds, of one namespace and what it talks with, or of all.
    #[must_use]
    pub fn graph(&self, window: u64, namespace: Option<&str>) -> graph::Graph {
        let mut graph = self.with_sources(|sources| graph::graph(sources, window));
        if let Some(namespace) = namespace {
            let inside = |id: &str| id.split('/').nth(1) == Some(namespace);
            graph.edges.retain(|edge| inside(&edge.from) || inside(&edge.to));
            let edges = &graph.edges;
            graph.nodes.retain(|node| {
                node.namespace == namespace || edges.iter().any(|edge| edge.from == node.id || edge.to == node.id)
            });
        }
        graph
    }

    fn with_sources<T>(&self, read: impl FnOnce(&Sources<'_>) -> T) -> T {
        let catalog = Arc::clone(&self.observe.catalogs.borrow());
        let sidecars = self.observe.nodes.sidecars();
        let now = now();
        self.forget_gone(&catalog, &sidecars, now);
        read(&Sources { mesh: catalog.mesh(), store: &self.store, sidecars: &sidecars, now })
    }

    /// Workloads that have no document and no connection any more are gone.
    fn forget_gone(&self, catalog: &Catalog, sidecars: &graph::Sidecars, now: u64) {
        for (reporter, _) in self.store.reporters(now) {
            let name = crate::core::service::Name::new(&reporter.namespace, &reporter.name);
            let is_known = catalog.mesh().workload(&name).is_some() || sidecars.contains_key(&name.to_string());
            if reporter.dialect == "pillion" && !is_known {
                self.store.remove(&reporter);
            }
        }
    }
}

/// JSON as a response.
pub fn respond((status, text): (StatusCode, String)) -> Response<Body> {
    let mut answer = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// An error as JSON.
#[must_use]
pub fn error(status: StatusCode, text: &str) -> (StatusCode, String) {
    (status, format!("{}\n", json!({ "error": text })))
}

/// A parameter of a query, as forms write it: `+` is a space.
fn parameter(query: &str, name: &str) -> Option<String> {
    let all = pairs(&query.replace('+', "%20"));
    all.into_iter().find(|(key, _)| key == name).map(|(_, value)| value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(parameter("window=5&id=service%2Fshop%2Fa", "id").as_deref(), Some("service/shop/a"));
        assert_eq!(parameter("id=outside+the+mesh", "id").as_deref(), Some("outside the mesh"));
        for query in ["", "id", "id=", "other=1"] {
            assert_eq!(parameter(query, "id"), None, "{query}");
        }
    }
}
