//! Client of `istio.v1.auth.IstioCertificateService`, as tonic's generator
//! would write it.

use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::{Body as HttpBody, Bytes, InterceptedService, StdError};
use tonic::service::Interceptor;
use tonic::{GrpcMethod, IntoRequest, Response, Status};

use super::{CREATE_CERTIFICATE_PATH, CreateCertificateRequest, CreateCertificateResponse, SERVICE_NAME};

/// Asks a CA for certificates. Cheap to clone when its transport is.
#[derive(Debug, Clone)]
pub struct IstioCertificateServiceClient<T> {
    inner: Grpc<T>,
}

impl<T> IstioCertificateServiceClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// A client over `transport`, such as a `tonic::transport::Channel`.
    pub fn new(transport: T) -> Self {
        Self { inner: Grpc::new(transport) }
    }

    /// A client over a transport that does not know the server's address by
    /// itself: `origin` supplies scheme and authority.
    pub fn with_origin(transport: T, origin: http::Uri) -> Self {
        Self { inner: Grpc::with_origin(transport, origin) }
    }

    /// A client that passes each request through `interceptor`, which may add
    /// credentials.
    pub fn with_interceptor<F>(transport: T, interceptor: F) -> IstioCertificateServiceClient<InterceptedService<T, F>>
    where
        F: Interceptor,
        T::ResponseBody: Default,
        T: tonic::codegen::Service<
                http::Request<Body>,
                Response = http::Response<<T as GrpcService<Body>>::ResponseBody>,
            >,
        <T as tonic::codegen::Service<http::Request<Body>>>::Error: Into<StdError> + Send + Sync,
    {
        IstioCertificateServiceClient::new(InterceptedService::new(transport, interceptor))
    }

    /// Bounds the size of a decoded response, in bytes (tonic's default:
    /// 4 MiB).
    #[must_use]
    pub fn max_decoding_message_size(mut self, limit: usize) -> Self {
        self.inner = self.inner.max_decoding_message_size(limit);
        self
    }

    /// Bounds the size of an encoded request, in bytes (tonic's default: none).
    #[must_use]
    pub fn max_encoding_message_size(mut self, limit: usize) -> Self {
        self.inner = self.inner.max_encoding_message_size(limit);
        self
    }

    /// Asks the CA to sign the public key of a CSR for the caller.
    ///
    /// # Errors
    /// The status that the CA answered with, or `UNKNOWN` or `UNAVAILABLE` when
    /// it was not reached.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the request; the CA may still have signed.
    pub async fn create_certificate(
        &mut self,
        request: impl IntoRequest<CreateCertificateRequest>,
    ) -> Result<Response<CreateCertificateResponse>, Status> {
        self.inner
            .ready()
            .await
            .map_err(|error| Status::unknown(format!("service was not ready: {}", error.into())))?;
        let path = http::uri::PathAndQuery::from_static(CREATE_CERTIFICATE_PATH);
        let mut request = request.into_request();
        request.extensions_mut().insert(GrpcMethod::new(SERVICE_NAME, "CreateCertificate"));
        self.inner.unary(request, path, tonic_prost::ProstCodec::default()).await
    }
}
