//! Admin pages: health, metrics, who is connected, what is in force, and `observe`'s API and CSDS.
//! Read only but for `POST /logging`; plain HTTP/1.1, or HTTP/2 with prior knowledge (gRPC); meant for a local address.
//! What is in force and who is connected is not shown to requests that a web page could have caused.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use parking_lot::Mutex;
use pillion_wire::{exposition::Format, query::is_direct};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::service::Routes;
use tracing::{debug, warn};

use crate::{
    dashboard::api::Api,
    index::Status,
    metrics::Metrics,
    observe::{api::Body, csds::Csds, logging::Logging},
    shutdown::Shutdown,
    xds::nodes::Nodes,
};

/// How many connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may last that streams nothing; pages are short.
const MAX_DURATION: Duration = Duration::from_secs(60);
/// How long a request's head may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where calls of CSDS go.
const CSDS: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/";
const HELP: &str = "\
pages: /healthz /metrics /debug/nodes /debug/config /logging /api/v1/graph /api/v1/sidecars /api/v1/tap
POST /logging?level=debug&for=10m or /logging?FILTER; gRPC: envoy.service.status.v3.ClientStatusDiscoveryService
";

/// What the pages show.
#[derive(Debug)]
pub struct Admin {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Who is connected.
    pub nodes: Arc<Nodes>,
    /// What is in force.
    pub status: Arc<Mutex<Status>>,
    /// Graph, what sidecars run and see, and all that belongs to it.
    pub api: Arc<Api>,
    /// What is logged.
    pub logging: Arc<Logging>,
}

impl Admin {
    /// Serves the pages on `listener` until asked to stop.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: Shutdown) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let grpc = Routes::new(Csds::new(Arc::clone(&self.nodes)).into_service()).prepare();
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
            let grpc = grpc.clone();
            connections.spawn(async move {
                admin.connection(stream, grpc).await;
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

    async fn connection(self: Arc<Self>, stream: TcpStream, grpc: Routes) {
        let Ok(is_http2) = is_http2(&stream).await else { return };
        // Answers that are not read to their end: a tap's is endless.
        let open = Arc::new(AtomicUsize::new(0));
        let (answers, grpc) = (Arc::clone(&open), TowerToHyperService::new(grpc));
        let service = service_fn(move |request: Request<Incoming>| {
            let (admin, grpc, open) = (Arc::clone(&self), grpc.clone(), Open::count(&answers));
            async move {
                if request.uri().path().starts_with(CSDS) && is_direct(request.headers(), request.uri()) {
                    return grpc.call(request.map(tonic::body::Body::new)).await;
                }
                let answer = admin.answer(&request).await;
                Ok::<_, Infallible>(answer.map(|body| {
                    tonic::body::Body::new(body.map_frame(move |frame| {
                        let _until_the_end = &open;
                        frame
                    }))
                }))
            }
        });
        let io = TokioIo::new(stream);
        let outcome: Result<(), hyper::Error> = if is_http2 {
            let mut server = http2::Builder::new(TokioExecutor::new());
            server.timer(TokioTimer::new()).max_concurrent_streams(16);
            until_unused(server.serve_connection(io, service), &open).await
        } else {
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            until_unused(server.serve_connection(io, service), &open).await
        };
        if let Err(error) = outcome {
            debug!(%error, "admin connection ended");
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let is_public = matches!(path, "/healthz" | "/metrics");
        if !is_public && !is_direct(request.headers(), request.uri()) {
            warn!("a page was asked for with an Origin, or under a name: refused");
            let text = "requests from web pages are not answered here\n";
            return page(StatusCode::FORBIDDEN, "text/plain", text.into());
        }
        if let Some(answer) = self.api.answer(request.method(), request.uri()).await {
            return answer;
        }
        if path == "/logging" && request.method() == Method::POST {
            return match self.logging.change(request.uri().query().unwrap_or_default()) {
                Ok(now) => json(&now),
                Err(problem) => page(StatusCode::BAD_REQUEST, "text/plain", format!("{problem}\n")),
            };
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return page(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "read only\n".into());
        }
        match path {
            "/healthz" => page(StatusCode::OK, "text/plain", "ok\n".into()),
            "/metrics" => {
                let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
                let format = Format::accepted(accept);
                page(StatusCode::OK, format.content_type(), self.metrics.page(format))
            }
            "/debug/nodes" => json(&self.nodes.to_json()),
            "/debug/config" => json(&self.status_json()),
            "/logging" => json(&self.logging.show()),
            _ => page(StatusCode::NOT_FOUND, "text/plain", HELP.into()),
        }
    }
}

/// Serves a connection until it ends, or has lasted for long enough and streams nothing.
pub(crate) async fn until_unused<C>(connection: C, open: &AtomicUsize) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    tokio::pin!(connection);
    loop {
        if let Ok(outcome) = timeout(MAX_DURATION, connection.as_mut()).await {
            return outcome;
        }
        if open.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
    }
}

/// Whether the client begins as HTTP/2 does (RFC 9113 section 3.4). Takes nothing of what it sent.
async fn is_http2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8; 3] = b"PRI";
    let look = async {
        let mut start = [0; PREFACE.len()];
        loop {
            let length = stream.peek(&mut start).await?;
            if length == 0 || start.get(..length) != PREFACE.get(..length) {
                return Ok(false);
            }
            if length == PREFACE.len() {
                return Ok(true);
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(HEADER_TIMEOUT, look).await?
}

/// An answer that is under way, until dropped.
pub(crate) struct Open(Arc<AtomicUsize>);

impl Open {
    pub(crate) fn count(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn json(value: &serde_json::Value) -> Response<Body> {
    page(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
