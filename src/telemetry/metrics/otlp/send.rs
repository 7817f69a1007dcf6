//! OTLP over gRPC, or protobuf by POST (OTLP/HTTP).

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use prost::Message as _;
use tokio::net::TcpStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

use crate::bootstrap::{Otlp, OtlpProtocol};

/// Bytes of an answer that are read.
const ANSWER: usize = 64 << 10;

/// What speaks with the collector.
pub(super) enum Sender {
    /// One connection, made again when it breaks.
    Grpc(Box<MetricsServiceClient<Channel>>, HeaderMap),
    /// A connection per request: there is one a minute.
    Http(Uri, HeaderMap),
}

impl Sender {
    /// Does not connect yet.
    pub(super) fn new(otlp: &Otlp) -> anyhow::Result<Self> {
        if otlp.endpoint.scheme_str() != Some("http") {
            bail!("metrics are pushed to http:// collectors only; {} is none", otlp.endpoint);
        }
        let fields: HeaderMap = otlp.headers.iter().cloned().collect();
        match otlp.protocol {
            OtlpProtocol::Grpc => {
                let channel = Endpoint::from(otlp.endpoint.clone()).connect_lazy();
                Ok(Self::Grpc(Box::new(MetricsServiceClient::new(channel)), fields))
            }
            OtlpProtocol::Http => {
                let base = otlp.endpoint.to_string();
                let path = format!("{}/v1/metrics", base.trim_end_matches('/'));
                Ok(Self::Http(path.parse().context("the collector's address has no place for a path")?, fields))
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
                Ok(())
            }
            Self::Http(to, fields) => post(to, fields, message.encode_to_vec().into()).await,
        }
    }
}

async fn post(to: &Uri, fields: &HeaderMap, message: Bytes) -> anyhow::Result<()> {
    let authority = to.authority().context("no host")?;
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await.context("cannot connect")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = to.path().parse()?;
        *request.headers_mut() = fields.clone();
        request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str())?);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let response = sender.send_request(request).await?;
        let status = response.status();
        // Read to its end, since the collector may hold that against us; it is short.
        let _answer = Limited::new(response.into_body(), ANSWER).collect().await;
        if !status.is_success() {
            bail!("the collector answers {status}");
        }
        Ok(())
    };
    // The connection ends with the exchange, which has the only handle of it.
    let (result, _ended) = tokio::join!(exchange, connection);
    result
}
