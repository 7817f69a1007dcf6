//! Spans of the control plane's own work for an OpenTelemetry collector: what was pushed to whom, what was signed, what
//! configuration came into force. `tracing` spans, bridged by tracing-opentelemetry.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use opentelemetry::{Context, KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{Subscriber, level_filters::LevelFilter, warn};
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use crate::{settings::Settings, shutdown::Shutdown};

/// Spans that may wait; more are dropped.
const QUEUE: usize = 2048;
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(1);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failure nothing is sent for so long.
const PAUSE: Duration = Duration::from_secs(2);
/// How long what is left may take to be sent when stopping.
const FLUSH_DEADLINE: Duration = Duration::from_secs(3);
const NAME: &str = "pillion-control-plane";

/// Spans on their way to the collector.
#[derive(Debug)]
pub struct Spans {
    queue: mpsc::Receiver<SpanData>,
    endpoint: String,
    protocol: Protocol,
}

/// Takes spans where they end; never waits.
#[derive(Debug)]
struct Queue(mpsc::Sender<SpanData>);

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        // What finds no room is dropped: the work itself goes on.
        let _full = self.0.try_send(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The layer that makes spans, and where they go; `None` without a collector.
///
/// # Errors
/// When the settings do not say where that is.
pub fn layer<S>(settings: &Settings) -> anyhow::Result<Option<(impl Layer<S> + Send + Sync + use<S>, Spans)>>
where
    S: Subscriber + Send + Sync + for<'span> LookupSpan<'span>,
{
    let Some(endpoint) = &settings.otlp_endpoint else { return Ok(None) };
    ensure!(
        endpoint.starts_with("http://"),
        "--otlp-endpoint {endpoint}: the control plane speaks to collectors by http:// only; put one beside it"
    );
    let protocol = match settings.otlp_protocol.as_str() {
        "grpc" => Protocol::Grpc,
        "http" | "http/protobuf" => Protocol::HttpBinary,
        other => anyhow::bail!("--otlp-protocol {other}: it is neither grpc nor http/protobuf"),
    };
    let (sender, queue) = mpsc::channel(QUEUE);
    let provider = SdkTracerProvider::builder().with_span_processor(Queue(sender)).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(NAME));
    // Our own spans only: h2 has one for each frame, those of the export included.
    let ours = Targets::new().with_target("pillion_control_plane", LevelFilter::INFO);
    Ok(Some((layer.with_filter(ours), Spans { queue, endpoint: endpoint.clone(), protocol })))
}

impl Spans {
    /// Sends them until the control plane stops, and what is left then.
    ///
    /// # Errors
    /// When the collector's address is none.
    pub async fn send(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let exporter = self.exporter().context("--otlp-endpoint")?;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let is_over = tokio::select! {
                count = self.queue.recv_many(&mut batch, BATCH) => count == 0,
                () = shutdown.requested() => true,
            };
            if is_over {
                break;
            }
            let until = Instant::now() + DELAY;
            while batch.len() < BATCH {
                match timeout_at(until, self.queue.recv()).await {
                    Ok(Some(span)) => batch.push(span),
                    Ok(None) | Err(_) => break,
                }
            }
            match timeout(EXPORT_TIMEOUT, exporter.export(std::mem::take(&mut batch))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    warn!(%error, "the collector does not take spans");
                    sleep(PAUSE).await;
                }
                Err(_elapsed) => warn!("the collector does not answer"),
            }
        }
        while let Ok(span) = self.queue.try_recv() {
            batch.push(span);
        }
        if !batch.is_empty() {
            let _late = timeout(FLUSH_DEADLINE, exporter.export(batch)).await;
        }
        Ok(())
    }

    fn exporter(&self) -> anyhow::Result<SpanExporter> {
        let mut exporter = match self.protocol {
            Protocol::Grpc => SpanExporter::builder()
                .with_tonic()
                .with_endpoint(&self.endpoint)
                .with_timeout(EXPORT_TIMEOUT)
                .build()?,
            _ => {
                let endpoint = format!("{}/v1/traces", self.endpoint.trim_end_matches('/'));
                let builder = SpanExporter::builder().with_http().with_endpoint(endpoint);
                builder.with_protocol(Protocol::HttpBinary).with_timeout(EXPORT_TIMEOUT).build()?
            }
        };
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder_empty().with_attributes([KeyValue::new("service.name", NAME), version]);
        exporter.set_resource(&resource.build());
        Ok(exporter)
    }
}
