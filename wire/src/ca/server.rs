//! Server of `istio.v1.auth.IstioCertificateService`, as tonic's generator
//! would write it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, InterceptedService, Service, StdError, async_trait};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::service::Interceptor;
use tonic::{Request, Response, Status};

use super::{CREATE_CERTIFICATE_PATH, CreateCertificateRequest, CreateCertificateResponse, SERVICE_NAME};

/// What a CA does.
#[async_trait]
pub trait IstioCertificateService: Send + Sync + 'static {
    /// Signs the public key of a CSR for the caller, whom the connection or
    /// the request's metadata identifies.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without proof of who calls, `PERMISSION_DENIED` for an
    /// identity other than the caller's, `INVALID_ARGUMENT` for a bad CSR.
    async fn create_certificate(
        &self,
        request: Request<CreateCertificateRequest>,
    ) -> Result<Response<CreateCertificateResponse>, Status>;
}

/// Serves a CA over gRPC.
#[derive(Debug)]
pub struct IstioCertificateServiceServer<T> {
    inner: Arc<T>,
    max_decoding_message_size: Option<usize>,
    max_encoding_message_size: Option<usize>,
}

impl<T> IstioCertificateServiceServer<T> {
    /// A server for `inner`.
    pub fn new(inner: T) -> Self {
        Self::from_arc(Arc::new(inner))
    }

    /// A server for a CA that others hold as well.
    pub fn from_arc(inner: Arc<T>) -> Self {
        Self { inner, max_decoding_message_size: None, max_encoding_message_size: None }
    }

    /// A server that passes each request through `interceptor` first.
    pub fn with_interceptor<F: Interceptor>(inner: T, interceptor: F) -> InterceptedService<Self, F> {
        InterceptedService::new(Self::new(inner), interceptor)
    }

    /// Bounds the size of a decoded request, in bytes (tonic's default: 4 MiB).
    #[must_use]
    pub fn max_decoding_message_size(mut self, limit: usize) -> Self {
        self.max_decoding_message_size = Some(limit);
        self
    }

    /// Bounds the size of an encoded response, in bytes (tonic's default: none).
    #[must_use]
    pub fn max_encoding_message_size(mut self, limit: usize) -> Self {
        self.max_encoding_message_size = Some(limit);
        self
    }
}

impl<T, B> Service<http::Request<B>> for IstioCertificateServiceServer<T>
where
    T: IstioCertificateService,
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
        if request.uri().path() != CREATE_CERTIFICATE_PATH {
            return Box::pin(async { Ok(unimplemented_response()) });
        }
        let method = CreateCertificate(Arc::clone(&self.inner));
        let (decoding, encoding) = (self.max_decoding_message_size, self.max_encoding_message_size);
        Box::pin(async move {
            let mut grpc =
                Grpc::new(tonic_prost::ProstCodec::default()).apply_max_message_size_config(decoding, encoding);
            Ok(grpc.unary(method, request).await)
        })
    }
}

impl<T> Clone for IstioCertificateServiceServer<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            max_decoding_message_size: self.max_decoding_message_size,
            max_encoding_message_size: self.max_encoding_message_size,
        }
    }
}

impl<T> NamedService for IstioCertificateServiceServer<T> {
    const NAME: &'static str = SERVICE_NAME;
}

/// The method, in the form that tonic's server calls.
struct CreateCertificate<T>(Arc<T>);

impl<T: IstioCertificateService> UnaryService<CreateCertificateRequest> for CreateCertificate<T> {
    type Response = CreateCertificateResponse;
    type Future = BoxFuture<Response<Self::Response>, Status>;

    fn call(&mut self, request: Request<CreateCertificateRequest>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.create_certificate(request).await })
    }
}

fn unimplemented_response() -> http::Response<Body> {
    Status::unimplemented("").into_http()
}
