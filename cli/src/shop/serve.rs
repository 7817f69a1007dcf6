//! The HTTP server that the shop's services stand on: HTTP/1.1, bounded in connections.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

const CONNECTIONS: usize = 512;
/// Longer than the mesh keeps an idle connection to an application.
const HEAD_DEADLINE: Duration = Duration::from_secs(300);
/// After an accept that failed for want of something: file descriptors, memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers requests.
pub(super) trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// What a service of the shop answers.
pub(super) type Answer = Response<Full<Bytes>>;

/// Serves for ever.
pub(super) async fn http(listener: TcpListener, service: impl Service) -> anyhow::Result<()> {
    let service = Arc::new(service);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await?;
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Small answers; waiting to fill a segment would only add latency. A socket that refuses is slower, not wrong.
        let _slower = stream.set_nodelay(true);
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            let _place = place;
            let answer = service_fn(|request| {
                let service = Arc::clone(&service);
                async move { Ok::<_, Infallible>(service.answer(request).await) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
            // How a connection ends is its client's affair.
            let _end = server.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// A JSON answer.
pub(super) fn json(body: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(body) => answer(StatusCode::OK, "application/json", body.into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// A plain text answer.
pub(super) fn text(status: StatusCode, body: &str) -> Answer {
    answer(status, "text/plain", Bytes::copy_from_slice(body.as_bytes()))
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    answer
}
