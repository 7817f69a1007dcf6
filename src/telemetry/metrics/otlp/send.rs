//! OTLP over gRPC, or protobuf by POST (OTLP/HTTP), by the connections that other signals take.

use std::sync::Arc;

use anyhow::anyhow;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Uri};
use opentelemetry_http::HttpClient as _;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use prost::Message as _;
use rustls::ClientConfig;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

use crate::bootstrap::{Otlp, OtlpProtocol};
use crate::telemetry::otlp::{HttpClient, OtlpError, channel, http_client, url};

/// What speaks with the collector.
#[derive(Debug)]
pub(super) enum Sender {
    /// One connection, made again when it breaks.
    Grpc(Box<MetricsServiceClient<Channel>>, HeaderMap),
    /// Connections are kept for a while.
    Http(Box<HttpClient>, Uri, HeaderMap),
}

impl Sender {
    /// Does not connect yet.
    pub(super) fn new(otlp: &Otlp, tls: Option<Arc<ClientConfig>>) -> Result<Self, OtlpError> {
        let mut fields: HeaderMap = otlp.headers.iter().cloned().collect();
        match otlp.protocol {
            OtlpProtocol::Grpc => Ok(Self::Grpc(Box::new(MetricsServiceClient::new(channel(otlp, tls)?)), fields)),
            OtlpProtocol::Http => {
                fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
                let to = url(otlp, "/v1/metrics").parse::<Uri>();
                let to = to.map_err(|error| OtlpError::Endpoint(otlp.endpoint.clone(), error.into()))?;
                Ok(Self::Http(Box::new(http_client(otlp, tls)), to, fields))
            }
        }
    }

    /// Waits until the collector has taken it.
    ///
    /// # Errors
    /// When it cannot be reached, or refuses.
    pub(super) async fn send(&mut self, message: ExportMetricsServiceRequest) -> anyhow::Result<()> {
        match self {
            Self::Grpc(client, fields) => {
                let mut request = tonic::Request::new(message);
                *request.metadata_mut() = MetadataMap::from_headers(fields.clone());
                client.export(request).await?;
            }
            Self::Http(client, to, fields) => {
                let mut request = Request::new(Bytes::from(message.encode_to_vec()));
                *request.method_mut() = Method::POST;
                *request.uri_mut() = to.clone();
                *request.headers_mut() = fields.clone();
                let response = client.send_bytes(request).await.map_err(|error| anyhow!(error))?;
                anyhow::ensure!(response.status().is_success(), "the collector answers {}", response.status());
            }
        }
        Ok(())
    }
}
