//! HTTP/1.x as a server, with the limits and deadlines that hyper leaves to us.

use std::convert::Infallible;
use std::future::Future;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{Body, BoxError, ServeError, ServerSettings, Switch};
use crate::drain::Drain;
use crate::net::{HeadTimeout, Phase, Transport};

/// See [`super::serve`].
pub(super) async fn serve<F, Fut, B>(
    transport: Transport,
    settings: &ServerSettings,
    phase: &Phase,
    drain: &Drain,
    handle: F,
) -> Result<(), ServeError>
where
    F: Fn(Request<Body>, Switch) -> Fut,
    Fut: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    let service = service_fn(|mut request: Request<Incoming>| {
        let switch = Switch::Http1(hyper::upgrade::on(&mut request));
        let answer = handle(request.map(Body::from), switch);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let stream = HeadTimeout::new(transport, phase.clone(), settings.head_timeout, settings.idle_timeout);
    let connection = builder(settings).serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return Ok(result?),
        () = drain.stopping() => {}
    }
    connection.as_mut().graceful_shutdown();
    Ok(connection.await?)
}

fn builder(settings: &ServerSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None) // HeadTimeout does it.
        .max_headers(settings.max_headers)
        .max_header_size(settings.max_header_bytes as usize)
        .max_buf_size((settings.max_header_bytes as usize).max(8 << 10) + (16 << 10));
    builder
}
