//! The admin port (this machine only) and the health port: what a person or an orchestrator may ask.
//!
//! Read-only, but for `POST /drain`. Requests that a web page could have caused are
//! refused: those with an `Origin`, and those whose `Host` is a name other than localhost.

mod dump;
mod explain;
mod health;
mod names;
mod shedding;
mod stand;
mod treatment;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, ORIGIN};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use crate::proxy::Shared;
use crate::readiness::Readiness;

/// Connections at once, on each of the two ports.
const MAX_CONNECTIONS: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

const HELP: &str = "\
GET  /ready        200 when ready, 503 with what is missing
GET  /metrics      Prometheus text
GET  /config_dump  configuration in force, as JSON
GET  /clusters     hosts with their live counters, as JSON
GET  /explain      why recent requests went as they went, failures first, as JSON;
                   ?trace=ID, ?request=ID (x-request-id), ?reason=CODE, &limit=N [20]
POST /drain        stop gracefully
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Admin,
    Health,
}

/// Serves both ports for as long as the program runs.
///
/// # Errors
/// When a socket cannot be used.
pub fn serve(
    admin: TcpListener,
    health: TcpListener,
    shared: Arc<Shared>,
    readiness: Arc<Readiness>,
) -> anyhow::Result<()> {
    for (port, listener) in [(Port::Admin, admin), (Port::Health, health)] {
        let listener = tokio::net::TcpListener::from_std(listener).context("cannot serve the admin port")?;
        tokio::spawn(accept(port, listener, Arc::clone(&shared), Arc::clone(&readiness)));
    }
    Ok(())
}

async fn accept(port: Port, listener: tokio::net::TcpListener, shared: Arc<Shared>, readiness: Arc<Readiness>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((stream, client)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (shared, readiness) = (Arc::clone(&shared), Arc::clone(&readiness));
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(port, client, &request, &shared, &readiness);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection ended");
            }
            drop(permit);
        });
    }
}

fn answer(
    port: Port,
    client: SocketAddr,
    request: &Request<Incoming>,
    shared: &Shared,
    readiness: &Readiness,
) -> Response<Full<Bytes>> {
    if port == Port::Admin && !is_local(request) {
        let detail = "a request with an Origin, or with a Host that is a name other than localhost";
        shared.telemetry.connection_refused("admin", client, "web_page", detail);
        return text(StatusCode::FORBIDDEN, "requests from web pages are not answered here\n".to_owned());
    }
    match (port, request.method(), request.uri().path()) {
        (_, &Method::GET | &Method::HEAD, "/ready" | "/healthz/ready") => match readiness.check() {
            Ok(detail) => text(StatusCode::OK, format!("ready{detail}\n")),
            Err(missing) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {missing}\n")),
        },
        (Port::Admin, &Method::GET, "/") => text(StatusCode::OK, HELP.to_owned()),
        (Port::Admin, &Method::GET, "/metrics") => {
            let mut response = text(StatusCode::OK, metrics(shared));
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        (Port::Admin, &Method::GET, "/config_dump") => json(&dump::config(shared)),
        (Port::Admin, &Method::GET, "/clusters") => json(&dump::clusters(shared)),
        (Port::Admin, &Method::GET, "/explain") => {
            match explain::answer(&shared.telemetry.stories, request.uri().query().unwrap_or_default()) {
                Ok(told) => json(&told),
                Err((status, problem)) => text(status, problem),
            }
        }
        (Port::Admin, &Method::POST, "/drain") => {
            shared.drain.stop();
            text(StatusCode::OK, "draining\n".to_owned())
        }
        (Port::Admin, _, "/drain") => text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n".to_owned()),
        (Port::Admin, ..) => text(StatusCode::NOT_FOUND, HELP.to_owned()),
        (Port::Health, ..) => text(StatusCode::NOT_FOUND, "GET /ready\n".to_owned()),
    }
}

/// What is counted, and what the clusters in use have counted themselves, before the mark that ends it all.
fn metrics(shared: &Shared) -> String {
    const END: &str = "# EOF\n";
    dump::gauge(shared);
    let mut text = shared.telemetry.metrics.encode();
    let end = text.strip_suffix(END).map_or(text.len(), str::len);
    text.truncate(end);
    text.push_str(&dump::rescued(shared));
    text.push_str(END);
    text
}

/// No page's script, and no name that somebody else's DNS pointed at this machine.
fn is_local(request: &Request<Incoming>) -> bool {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    !request.headers().contains_key(ORIGIN) && (name == "localhost" || name.parse::<std::net::IpAddr>().is_ok())
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, format!("{value:#}\n"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
