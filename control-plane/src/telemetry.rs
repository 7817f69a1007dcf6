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
use prometheus_client::metrics::counter::Counter;
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
    dropped: Counter,
    endpoint: String,
    protocol: Protocol,
}

/// Takes spans where they end; never waits.
#[derive(Debug)]
struct Queue {
    spans: mpsc::Sender<SpanData>,
    dropped: Counter,
}

impl Queue {
    fn new() -> (Self, mpsc::Receiver<SpanData>) {
        let (spans, end) = mpsc::channel(QUEUE);
        (Self { spans, dropped: Counter::default() }, end)
    }
}

/// A look whether there is something to push, and there was nothing.
fn is_idle(span: &SpanData) -> bool {
    span.name == "push" && !span.attributes.iter().any(|attribute| attribute.key.as_str() == "names")
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        // What finds no room is dropped: the work itself goes on.
        if !is_idle(&span) && self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
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
    let (sender, queue) = Queue::new();
    let dropped = sender.dropped.clone();
    let provider = SdkTracerProvider::builder().with_span_processor(sender).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(NAME));
    // Our own spans only: h2 has one for each frame, those of the export included.
    let ours = Targets::new().with_target("pillion_control_plane", LevelFilter::INFO);
    Ok(Some((layer.with_filter(ours), Spans { queue, dropped, endpoint: endpoint.clone(), protocol })))
}

impl Spans {
    /// Counts those that found no room, or that the collector did not take.
    pub fn dropped(&self) -> Counter {
        self.dropped.clone()
    }

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
            let count = batch.len() as u64;
            match timeout(EXPORT_TIMEOUT, exporter.export(std::mem::take(&mut batch))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    self.dropped.inc_by(count);
                    warn!(%error, "the collector does not take spans");
                    sleep(PAUSE).await;
                }
                Err(_elapsed) => {
                    self.dropped.inc_by(count);
                    warn!("the collector does not answer");
                }
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

#[cfg(test)]
mod tests {
    use tracing::{field, info_span};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn pushes_last_as_long_as_their_work_and_what_finds_no_room_is_counted() {
        let (sender, mut queue) = Queue::new();
        let dropped = sender.dropped.clone();
        let provider = SdkTracerProvider::builder().with_span_processor(sender).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(NAME));
        let push = |has_something: bool| {
            let span = info_span!("push", names = field::Empty);
            span.in_scope(|| std::thread::sleep(Duration::from_millis(2)));
            if has_something {
                span.record("names", 1);
            }
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            push(false);
            push(true);
            let span = queue.try_recv().expect("one was a push");
            assert!(span.end_time.duration_since(span.start_time).expect("time goes on") >= Duration::from_millis(2));
            assert!(queue.try_recv().is_err(), "the other had nothing to say");
            (0..QUEUE + 3).for_each(|_number| drop(info_span!("certificate")));
        });
        assert_eq!(dropped.get(), 3);
    }
}
