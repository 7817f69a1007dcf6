//! The admin port (this machine only), the health port and the metrics port: what a person or a program may ask.
//!
//! Read-only, but for `POST /drain` and `POST /logging`. Requests that a web page could have caused are
//! refused: those with an `Origin`, and those whose `Host` is a name other than localhost.
//! HTTP/1.1, or HTTP/2 with prior knowledge, by which CSDS is served as well.

mod certs;
mod csds;
mod dump;
mod explain;
mod health;
pub mod logging;
mod memory;
mod names;
mod pages;
mod shedding;
mod stand;
mod state;
mod treatment;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pillion_wire::exposition::{Family, Format};
use pillion_wire::query::is_direct;
use pillion_wire::xds::status::ClientStatusDiscoveryServiceServer;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tower_service::Service as _;

use crate::discovery::Ledger;
use crate::proxy::Shared;
use crate::readiness::Readiness;
use logging::Logging;
pub(crate) use pages::Page;

/// Connections at once, on each of the ports.
const MAX_CONNECTIONS: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Where calls of CSDS go.
const CSDS: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/";

/// All that can be asked about.
#[derive(Debug)]
pub struct Admin {
    /// What workers share.
    pub shared: Arc<Shared>,
    /// Is everything there?
    pub readiness: Arc<Readiness>,
    /// How each resource stands.
    pub ledger: Arc<Ledger>,
    /// What is logged.
    pub logging: Arc<Logging>,
    /// When the program was started.
    pub started: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Admin,
    Health,
    Metrics,
}

/// Serves the ports for as long as the program runs.
///
/// # Errors
/// When a socket cannot be used.
pub fn serve(
    local: TcpListener,
    health: TcpListener,
    metrics: Option<TcpListener>,
    admin: &Arc<Admin>,
) -> anyhow::Result<()> {
    let metrics = metrics.map(|metrics| (Port::Metrics, metrics));
    for (port, listener) in [(Port::Admin, local), (Port::Health, health)].into_iter().chain(metrics) {
        let listener = tokio::net::TcpListener::from_std(listener).context("cannot serve the admin port")?;
        tokio::spawn(accept(port, listener, Arc::clone(admin)));
    }
    Ok(())
}

/// When there is no room the oldest connection ends: nobody keeps others away by holding on to what it has.
async fn accept(port: Port, listener: tokio::net::TcpListener, admin: Arc<Admin>) {
    let mut connections: VecDeque<AbortOnDropHandle<()>> = VecDeque::new();
    loop {
        let Ok((stream, client)) = listener.accept().await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= MAX_CONNECTIONS {
            connections.pop_front();
        }
        let connection = Arc::clone(&admin).connection(port, stream, client);
        connections.push_back(AbortOnDropHandle::new(tokio::spawn(connection)));
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
    timeout(HEAD_TIMEOUT, look).await?
}

impl Admin {
    async fn connection(self: Arc<Self>, port: Port, stream: TcpStream, client: SocketAddr) {
        let Ok(is_http2) = is_http2(&stream).await else { return };
        let csds = ClientStatusDiscoveryServiceServer::new(csds::Csds(Arc::clone(&self)));
        let service = service_fn(move |request: Request<Incoming>| {
            let (admin, mut csds) = (Arc::clone(&self), csds.clone());
            async move {
                if port == Port::Admin
                    && request.uri().path().starts_with(CSDS)
                    && is_direct(request.headers(), request.uri())
                {
                    return csds.call(request.map(Body::new)).await;
                }
                Ok::<_, Infallible>(answered(admin.answer(port, client, &request)))
            }
        });
        let io = TokioIo::new(stream);
        let outcome = if is_http2 {
            let mut server = http2::Builder::new(TokioExecutor::new());
            server.timer(TokioTimer::new()).max_concurrent_streams(16).keep_alive_interval(HEAD_TIMEOUT);
            server.serve_connection(io, service).await
        } else {
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            server.serve_connection(io, service).await
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "admin connection ended");
        }
    }

    fn answer(self: &Arc<Self>, port: Port, client: SocketAddr, request: &Request<Incoming>) -> Page {
        if port == Port::Admin && !is_direct(request.headers(), request.uri()) {
            let detail = "a request with an Origin, or with a Host that is a name other than localhost";
            self.shared.telemetry.connection_refused("admin", client, "web_page", detail);
            return Page::text(StatusCode::FORBIDDEN, "requests from web pages are not answered here\n".to_owned());
        }
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        match (port, request.method(), path) {
            (Port::Admin | Port::Metrics, &Method::GET | &Method::HEAD, "/metrics") => {
                let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
                self.metrics(Format::accepted(accept))
            }
            (Port::Metrics, _, "/metrics") => Page::text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned()),
            (Port::Metrics, ..) => Page::text(StatusCode::NOT_FOUND, "GET /metrics\n".to_owned()),
            (Port::Health, &Method::GET | &Method::HEAD, "/ready" | "/healthz/ready") => self.ready(),
            (Port::Health, ..) => Page::text(StatusCode::NOT_FOUND, "GET /ready\n".to_owned()),
            (Port::Admin, &Method::POST, "/drain") => {
                self.shared.drain.stop();
                Page::text(StatusCode::OK, "draining\n".to_owned())
            }
            (Port::Admin, &Method::POST, "/logging") => match self.logging.change(query) {
                Ok(now) => Page::json(&now),
                Err(problem) => Page::text(StatusCode::BAD_REQUEST, format!("{problem}\n")),
            },
            (Port::Admin, method, _) => match self.page(path, query) {
                Some(page) if matches!(*method, Method::GET | Method::HEAD) => page,
                Some(_) => Page::text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned()),
                None => Page::text(StatusCode::NOT_FOUND, pages::HELP.to_owned()),
            },
        }
    }
}

fn answered(page: Page) -> Response<Body> {
    let mut response = Response::new(Body::new(page.body));
    *response.status_mut() = page.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    response
}

/// What is counted, and what the clusters in use have counted themselves.
pub fn metrics(shared: &Shared) -> Vec<Family> {
    let metrics = &shared.telemetry.metrics;
    metrics.read(|| {
        dump::gauge(shared);
        let mut families = metrics.families();
        families.push(dump::rescued(shared));
        families
    })
}
