//! The people's side: JSON over HTTP, read only, under `/api/v1/`.
//!
//! | path | answer |
//! |---|---|
//! | `/api/v1/sidecars` | [`pillion_wire::observe::Sidecars`] |
//! | `/api/v1/sidecars/NAMESPACE/NAME` | [`pillion_wire::observe::Summary`] |
//! | `/api/v1/sidecars/NAMESPACE/NAME/PAGE` | that page of the sidecar's admin port, its query included |
//! | `/api/v1/tap?to=…&status=…&max=…` | a JSON object per line for each request that ends, until the reader goes |
//!
//! Whoever serves it decides who may look: the admin port is local, the dashboard wants a token.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};

use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use pillion_wire::{
    observe::{self, TapRequest},
    query::{decode, pairs},
};
use tokio::sync::watch;

use super::{
    hub::{AskError, Sidecars},
    summary,
    tap::Tap,
};
use crate::{
    shutdown::Shutdown,
    xds::{catalog::Catalog, nodes::Nodes},
};

/// A page at once, or lines as they come.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Where all paths begin.
const ROOT: &str = "/api/v1/";

/// Answers requests.
#[derive(Clone, Debug)]
pub struct Api {
    /// Those that can be asked.
    pub sidecars: Arc<Sidecars>,
    /// Who is connected.
    pub nodes: Arc<Nodes>,
    /// The newest catalog.
    pub catalogs: watch::Receiver<Arc<Catalog>>,
    /// Ends taps.
    pub shutdown: Shutdown,
}

impl Api {
    /// The answer to a request. `None`: the path is none of ours.
    ///
    /// # Cancel safety
    /// Dropping the future, or the body, gives up what was asked of sidecars.
    pub async fn answer(&self, method: &Method, uri: &Uri) -> Option<Response<Body>> {
        let path = uri.path().strip_prefix(ROOT)?;
        let query = uri.query().unwrap_or_default();
        let parts: Vec<String> = path.split('/').map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        if !matches!(parts.as_slice(), ["sidecars", ..] | ["tap"]) {
            return None;
        }
        if method != Method::GET {
            return Some(problem(StatusCode::METHOD_NOT_ALLOWED, "read only"));
        }
        Some(match parts.as_slice() {
            ["sidecars"] => {
                let sidecars = self.summaries(None).await;
                json(&observe::Sidecars { sidecars })
            }
            ["sidecars", namespace, name] => self.one(&format!("{namespace}/{name}")).await,
            ["sidecars", namespace, name, page] => self.page(namespace, name, page, query).await,
            ["tap"] => self.tap(query),
            _ => problem(StatusCode::NOT_FOUND, "see /api/v1/sidecars"),
        })
    }

    async fn one(&self, name: &str) -> Response<Body> {
        match self.summaries(Some(name)).await.first() {
            Some(summary) => json(summary),
            None => problem(StatusCode::NOT_FOUND, &format!("there is no workload {name} with a sidecar")),
        }
    }

    async fn summaries(&self, only: Option<&str>) -> Vec<observe::Summary> {
        let catalog = Arc::clone(&self.catalogs.borrow());
        summary::all(&self.nodes, &self.sidecars, &catalog, only).await
    }

    async fn page(&self, namespace: &str, name: &str, page: &str, query: &str) -> Response<Body> {
        match self.sidecars.page(namespace, name, &format!("/{page}"), query).await {
            Ok(answer) => {
                let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
                // Never a type that a browser would run.
                let is_text =
                    answer.content_type.starts_with("text/plain") || answer.content_type.contains("openmetrics");
                let kind = if is_text { "text/plain; charset=utf-8" } else { "application/json" };
                full(status, kind, answer.bytes)
            }
            Err(error) => {
                let status = match &error {
                    AskError::Unknown => StatusCode::NOT_FOUND,
                    AskError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
                    AskError::Busy => StatusCode::TOO_MANY_REQUESTS,
                    AskError::Gone | AskError::Refused(_) => StatusCode::BAD_GATEWAY,
                };
                problem(status, &format!("{namespace}/{name}: {error}"))
            }
        }
    }

    fn tap(&self, query: &str) -> Response<Body> {
        let mut most = None;
        let mut conditions = pairs(query);
        if let Some(at) = conditions.iter().position(|(name, _)| name == "max") {
            let (_, text) = conditions.remove(at);
            match text.parse::<u64>() {
                Ok(number) if number > 0 => most = Some(number),
                _ => return problem(StatusCode::BAD_REQUEST, "max: write a whole number above 0"),
            }
        }
        let conditions = conditions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let request = match TapRequest::parse(conditions) {
            Ok(request) => request,
            Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let Some(tap) = Tap::begin(&self.sidecars, request, most, self.shutdown.clone()) else {
            return problem(StatusCode::TOO_MANY_REQUESTS, "too many taps; end one of them");
        };
        let lines = stream::unfold(tap, |mut tap| async {
            let line = tap.next().await?;
            Some((Ok(Frame::data(Bytes::from(line))), tap))
        });
        respond(StatusCode::OK, "application/x-ndjson", StreamBody::new(lines).boxed_unsync())
    }
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec_pretty(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            full(StatusCode::OK, "application/json", bytes)
        }
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// What is wrong, as JSON.
fn problem(status: StatusCode, text: &str) -> Response<Body> {
    let body = serde_json::json!({ "error": text });
    full(status, "application/json", format!("{body}\n").into_bytes())
}

fn full(status: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Response<Body> {
    respond(status, kind, Full::new(Bytes::from(bytes)).boxed_unsync())
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
