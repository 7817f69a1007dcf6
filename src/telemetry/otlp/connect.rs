//! Exporters for a collector as the settings say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Uri};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig,
    WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::LogExporter as _;
use opentelemetry_sdk::trace::SpanExporter as _;
use rustls::ClientConfig;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};

use super::dial::Dial;
use super::pump::EXPORT_TIMEOUT;
use crate::bootstrap::{Otlp, OtlpProtocol};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why nothing can be sent to a collector.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The address is none.
    #[error("{0} is no address of a collector: {1}")]
    Endpoint(Uri, Box<dyn std::error::Error + Send + Sync>),
    /// Our settings and those of the environment (`OTEL_EXPORTER_OTLP_…`) do not fit together.
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
}

/// Sends spans.
///
/// # Errors
/// [`OtlpError`]. That nobody is there is none: it is found out with the first export.
///
/// Must be called within a tokio runtime.
pub fn span_exporter(
    otlp: &Otlp,
    tls: Option<Arc<ClientConfig>>,
    resource: &Resource,
) -> Result<SpanExporter, OtlpError> {
    let mut exporter = match otlp.protocol {
        OtlpProtocol::Grpc => SpanExporter::builder()
            .with_tonic()
            .with_channel(channel(otlp, tls)?)
            .with_metadata(metadata(otlp))
            .with_timeout(EXPORT_TIMEOUT)
            .with_retry_policy(RetryPolicy::disabled())
            .build()?,
        OtlpProtocol::Http => http(SpanExporter::builder().with_http(), otlp, tls)
            .with_endpoint(url(otlp, "/v1/traces"))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?,
    };
    exporter.set_resource(resource);
    Ok(exporter)
}

/// Sends log records. As [`span_exporter`].
///
/// # Errors
/// As there.
pub fn log_exporter(
    otlp: &Otlp,
    tls: Option<Arc<ClientConfig>>,
    resource: &Resource,
) -> Result<LogExporter, OtlpError> {
    let mut exporter = match otlp.protocol {
        OtlpProtocol::Grpc => LogExporter::builder()
            .with_tonic()
            .with_channel(channel(otlp, tls)?)
            .with_metadata(metadata(otlp))
            .with_timeout(EXPORT_TIMEOUT)
            .with_retry_policy(RetryPolicy::disabled())
            .build()?,
        OtlpProtocol::Http => http(LogExporter::builder().with_http(), otlp, tls)
            .with_endpoint(url(otlp, "/v1/logs"))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?,
    };
    exporter.set_resource(resource);
    Ok(exporter)
}

/// Our own connector, for one TLS library. tonic must not see `https`, which it would want to do itself.
pub(in crate::telemetry) fn channel(otlp: &Otlp, tls: Option<Arc<ClientConfig>>) -> Result<Channel, OtlpError> {
    let wrong = |error: tonic::transport::Error| OtlpError::Endpoint(otlp.endpoint.clone(), error.into());
    let authority = otlp.endpoint.authority().map_or("", http::uri::Authority::as_str);
    let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(wrong)?;
    let endpoint = endpoint.origin(otlp.endpoint.clone()).connect_timeout(CONNECT_TIMEOUT).timeout(EXPORT_TIMEOUT);
    Ok(endpoint.connect_with_connector_lazy(Dial::new(otlp, tls)))
}

fn metadata(otlp: &Otlp) -> MetadataMap {
    MetadataMap::from_headers(otlp.headers.iter().cloned().collect::<HeaderMap>())
}

fn http<B: WithHttpConfig>(builder: B, otlp: &Otlp, tls: Option<Arc<ClientConfig>>) -> B {
    let headers = otlp.headers.iter();
    let headers: HashMap<String, String> = headers
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    builder.with_http_client(http_client(otlp, tls)).with_headers(headers).with_retry_policy(RetryPolicy::disabled())
}

/// Speaks OTLP/HTTP, of whatever signal.
pub(in crate::telemetry) type HttpClient = HyperClient<Dial>;

/// The same connector for OTLP/HTTP.
pub(in crate::telemetry) fn http_client(otlp: &Otlp, tls: Option<Arc<ClientConfig>>) -> HttpClient {
    HyperClient::new(Dial::new(otlp, tls), EXPORT_TIMEOUT, None)
}

/// As OpenTelemetry's "OpenTelemetry Protocol Exporter" has it: the path of the signal comes behind that of the base.
pub(in crate::telemetry) fn url(otlp: &Otlp, path: &str) -> String {
    format!("{}{path}", otlp.endpoint.to_string().trim_end_matches('/'))
}
