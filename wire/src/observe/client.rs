//! Client of `pillion.observe.v1.Observe`, as tonic's generator would write it: the sidecar.

use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::{GrpcMethod, IntoStreamingRequest, Response, Status, Streaming};

use super::{Ask, CONNECT_PATH, MAX_MESSAGE_BYTES, Report, SERVICE_NAME};

/// Opens streams.
#[derive(Debug, Clone)]
pub struct ObserveClient<T> {
    inner: Grpc<T>,
}

impl<T> ObserveClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    /// A client over `transport`.
    pub fn new(transport: T) -> Self {
        Self { inner: Grpc::new(transport).max_decoding_message_size(MAX_MESSAGE_BYTES) }
    }

    /// Opens the stream by which we are asked.
    ///
    /// # Errors
    /// The status that the control plane answered with: `UNIMPLEMENTED` when it does not know the service.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn connect(
        &mut self,
        reports: impl IntoStreamingRequest<Message = Report>,
    ) -> Result<Response<Streaming<Ask>>, Status> {
        self.inner
            .ready()
            .await
            .map_err(|error| Status::unknown(format!("service was not ready: {}", error.into())))?;
        let path = http::uri::PathAndQuery::from_static(CONNECT_PATH);
        let mut request = reports.into_streaming_request();
        request.extensions_mut().insert(GrpcMethod::new(SERVICE_NAME, "Connect"));
        self.inner.streaming(request, path, tonic_prost::ProstCodec::default()).await
    }
}
