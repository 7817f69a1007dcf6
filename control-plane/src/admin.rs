//! Admin pages: health, metrics, who is connected, what is in force. Read only,
//! plain HTTP/1.1, meant for a local address. What is in force and who is connected
//! is not shown to requests that a web page could have caused.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{dashboard::api::Api, index::Status, metrics::Metrics, shutdown::Shutdown, xds::nodes::Nodes};

/// How many connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may last; pages are short.
const MAX_DURATION: Duration = Duration::from_secs(60);
/// How long a request's head may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the pages show.
#[derive(Debug)]
pub struct Admin {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Who is connected.
    pub nodes: Arc<Nodes>,
    /// What is in force.
    pub status: Arc<Mutex<Status>>,
    /// Graph and all that belongs to it.
    pub api: Arc<Api>,
}

impl Admin {
    /// Serves the pages on `listener` until asked to stop.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: Shutdown) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                () = shutdown.requested() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept admin connections");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                debug!("too many admin connections, one dropped");
                continue;
            };
            let admin = Arc::clone(&self);
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let admin = Arc::clone(&admin);
                    async move { Ok::<_, Infallible>(admin.answer(&request)) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                if let Ok(Err(error)) = timeout(MAX_DURATION, connection).await {
                    debug!(%error, "admin connection ended");
                }
                drop(permit);
            });
        }
        connections.abort_all();
    }

    fn status_json(&self) -> serde_json::Value {
        // Cloned first: rendering a large configuration must not hold up an edit.
        let status = self.status.lock().clone();
        status.to_json()
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return page(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "read only\n".into());
        }
        let is_private = ["/debug/", "/api/"].iter().any(|folder| request.uri().path().starts_with(folder));
        if is_private && !is_direct(request) {
            warn!("a debug page was asked for with an Origin, or under a name: refused");
            let text = "requests from web pages are not answered here\n";
            return page(StatusCode::FORBIDDEN, "text/plain", text.into());
        }
        match request.uri().path() {
            "/healthz" => page(StatusCode::OK, "text/plain", "ok\n".into()),
            "/metrics" => {
                page(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", self.metrics.text())
            }
            "/debug/nodes" => json(&self.nodes.to_json()),
            "/debug/config" => json(&self.status_json()),
            path if path.starts_with("/api/") => {
                let (status, body) = self.api.answer(path, request.uri().query().unwrap_or_default());
                page(status, "application/json", body)
            }
            _ => page(
                StatusCode::NOT_FOUND,
                "text/plain",
                "pages: /healthz /metrics /debug/nodes /debug/config /api/v1/graph\n".into(),
            ),
        }
    }
}

/// No page's script, and no name that somebody else's DNS pointed at this machine.
fn is_direct(request: &Request<Incoming>) -> bool {
    let host = request.headers().get(header::HOST);
    let host = host.map_or(Ok("localhost"), header::HeaderValue::to_str);
    let authority = host.unwrap_or_default().parse::<http::uri::Authority>();
    let is_local = authority.is_ok_and(|authority| {
        let name = authority.host().trim_matches(['[', ']']);
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok()
    });
    is_local && !request.headers().contains_key(header::ORIGIN)
}

fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    page(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
