//! Telemetry for an OpenTelemetry collector, by OTLP over gRPC or HTTP.
//!
//! ```text
//! requests, log lines -> bounded queue -> batch (512, at most 1 s old) -> one export at a time, 10 s each -> back-off
//! ```
//!
//! All of it runs on the control runtime. A collector that is slow or not there fills the queues; what finds no room is
//! dropped and counted (`pillion_otlp_items_total`), and requests notice nothing.

mod connect;
mod dial;
mod logs;
mod pump;

pub use logs::{LogLayer, Logs};
pub use pump::{Exporter, Sink};

use std::sync::Arc;

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use rustls::ClientConfig;
use tokio::sync::mpsc;

use super::trace::{Finished, QUEUE};
use super::{Metrics, access_log};
use crate::bootstrap::{Bootstrap, OtlpSignal};

pub use connect::OtlpError;
pub(super) use connect::{HttpClient, channel, http_client, url};
pub use connect::{log_exporter, span_exporter};

/// The queues that lead to the collector, before anybody empties them.
#[derive(Debug, Default)]
pub struct Queues {
    /// Where requests go that are kept; `None`: no spans are wanted.
    pub spans: Option<mpsc::Sender<Box<Finished>>>,
    /// Where log records go; `None`: none are wanted.
    pub logs: Option<Logs>,
    spans_end: Option<mpsc::Receiver<Box<Finished>>>,
    logs_end: Option<mpsc::Receiver<logs::LogRecord>>,
}

impl Queues {
    /// Queues for what the collector is to get.
    pub fn new(settings: &Bootstrap, metrics: &Metrics) -> Self {
        let wants = |signal| settings.otlp.as_ref().is_some_and(|otlp| otlp.wants(signal));
        let (spans, spans_end) =
            wants(OtlpSignal::Traces).then(|| mpsc::channel(QUEUE)).map_or((None, None), |(a, b)| (Some(a), Some(b)));
        let (logs, logs_end) = wants(OtlpSignal::Logs)
            .then(|| Logs::new(metrics.otlp("logs", "dropped")))
            .map_or((None, None), |(a, b)| (Some(a), Some(b)));
        Self { spans, logs, spans_end, logs_end }
    }

    /// Begins to empty them. `tls` is for a collector whose URL says `https`.
    ///
    /// # Errors
    /// When the collector's address is none, or something in the environment contradicts.
    ///
    /// Must be called within a tokio runtime, which then does the work.
    pub fn start(
        self,
        settings: &Bootstrap,
        metrics: &Metrics,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Exporter, OtlpError> {
        let mut exporter = Exporter::default();
        let Some(otlp) = &settings.otlp else { return Ok(exporter) };
        let resource = resource(settings);
        if let Some(queue) = self.spans_end {
            let sink = Spans { exporter: span_exporter(otlp, tls.clone(), &resource)?, scope: scope() };
            exporter.start(queue, sink, metrics);
        }
        if let Some(queue) = self.logs_end {
            let fields = access_log::fields(settings).into();
            exporter.start(queue, logs::Sender::new(log_exporter(otlp, tls, &resource)?, scope(), fields), metrics);
        }
        Ok(exporter)
    }
}

/// Who we are (OpenTelemetry, resource semantic conventions). The same for all signals, so that they are found together.
pub(super) fn resource(settings: &Bootstrap) -> Resource {
    let account = settings.id.service_account();
    let name = match &settings.otlp {
        Some(otlp) if !otlp.service_name.is_empty() => otlp.service_name.clone(),
        // Replicas share their account; "default" says nothing.
        _ if account == "default" => settings.workload.clone(),
        _ => account.to_owned(),
    };
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", name),
            KeyValue::new("service.namespace", settings.id.namespace().to_owned()),
            KeyValue::new("service.instance.id", settings.workload.clone()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("telemetry.sdk.name", "opentelemetry"),
            KeyValue::new("telemetry.sdk.language", "rust"),
            KeyValue::new("pillion.identity", settings.id.to_string()),
            KeyValue::new("pillion.workload", settings.workload.clone()),
        ])
        .build()
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("pillion-proxy").with_version(env!("CARGO_PKG_VERSION")).build()
}

/// Requests become spans here.
#[derive(Debug)]
struct Spans {
    exporter: opentelemetry_otlp::SpanExporter,
    scope: InstrumentationScope,
}

impl Sink for Spans {
    type Item = Box<Finished>;
    const SIGNAL: &'static str = "traces";

    async fn send(&self, batch: Vec<Self::Item>) -> opentelemetry_sdk::error::OTelSdkResult {
        use opentelemetry_sdk::trace::SpanExporter as _;
        let spans = batch.into_iter().flat_map(|finished| finished.into_spans(&self.scope)).collect();
        self.exporter.export(spans).await
    }
}
