//! Server of `pillion.observe.v1.Observe`, as tonic's generator would write it: the control plane.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::tokio_stream::Stream;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError, async_trait};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::{Ask, CONNECT_PATH, MAX_MESSAGE_BYTES, Report, SERVICE_NAME};

/// What is asked of one sidecar.
pub type Asks = Pin<Box<dyn Stream<Item = Result<Ask, Status>> + Send>>;

/// What a control plane does.
#[async_trait]
pub trait Observe: Send + Sync + 'static {
    /// A sidecar opens its stream.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without proof of who calls.
    async fn connect(&self, reports: Request<Streaming<Report>>) -> Result<Response<Asks>, Status>;
}

/// Serves it over gRPC.
#[derive(Debug)]
pub struct ObserveServer<T> {
    inner: Arc<T>,
}

impl<T> ObserveServer<T> {
    /// A server for `inner`.
    pub fn new(inner: T) -> Self {
        Self { inner: Arc::new(inner) }
    }
}

impl<T, B> Service<http::Request<B>> for ObserveServer<T>
where
    T: Observe,
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != CONNECT_PATH {
            return Box::pin(async { Ok(Status::unimplemented("").into_http()) });
        }
        let method = Connect(Arc::clone(&self.inner));
        Box::pin(async move {
            let mut grpc = Grpc::new(tonic_prost::ProstCodec::default())
                .apply_max_message_size_config(Some(MAX_MESSAGE_BYTES), None);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

impl<T> Clone for ObserveServer<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> NamedService for ObserveServer<T> {
    const NAME: &'static str = SERVICE_NAME;
}

/// The method, in the form that tonic's server calls.
struct Connect<T>(Arc<T>);

impl<T: Observe> StreamingService<Report> for Connect<T> {
    type Response = Ask;
    type ResponseStream = Asks;
    type Future = BoxFuture<Response<Asks>, Status>;

    fn call(&mut self, request: Request<Streaming<Report>>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.connect(request).await })
    }
}
