//! Log records for the collector: lines of the access log, and what the sidecar says of itself.

use std::fmt::{self, Write as _};
use std::sync::OnceLock;
use std::time::SystemTime;

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::{InstrumentationScope, TraceFlags};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, SdkLogger, SdkLoggerProvider};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as LayerContext;

use super::pump::Sink;
use crate::telemetry::trace::Context;

/// Records that may wait; more are dropped and counted.
const QUEUE: usize = 2048;
/// Bytes of one record.
const MOST_BYTES: usize = 4096;

/// Takes log records. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs {
    queue: mpsc::Sender<LogRecord>,
    dropped: Counter,
}

/// One record.
#[derive(Debug)]
pub(super) struct LogRecord {
    at: SystemTime,
    severity: Severity,
    level: &'static str,
    event: &'static str,
    target: String,
    body: String,
    trace: Option<Context>,
}

impl Logs {
    /// A queue, and its end.
    pub(super) fn new(dropped: Counter) -> (Self, mpsc::Receiver<LogRecord>) {
        let (queue, end) = mpsc::channel(QUEUE);
        (Self { queue, dropped }, end)
    }

    /// From now on what the sidecar says of itself is sent as well, where a [`LogLayer`] is in place.
    pub fn listen(&self) {
        // Only one sidecar runs in a process.
        let _already_set = LISTENER.set(self.clone());
    }

    /// A line of the access log.
    pub fn access(&self, line: &str, trace: Option<Context>, failed: bool) {
        let (severity, level) = if failed { (Severity::Warn, "WARN") } else { (Severity::Info, "INFO") };
        let (body, target) = (bounded(line.to_owned()), "access_log".to_owned());
        self.send(LogRecord { at: SystemTime::now(), severity, level, event: "access", target, body, trace });
    }

    fn send(&self, record: LogRecord) {
        if self.queue.try_send(record).is_err() {
            self.dropped.inc();
        }
    }
}

fn bounded(mut text: String) -> String {
    if text.len() > MOST_BYTES {
        let end = (0..=MOST_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// Where events go once somebody listens.
static LISTENER: OnceLock<Logs> = OnceLock::new();
/// What we say of the export itself is not exported.
const OURSELVES: &str = "pillion_proxy::telemetry::otlp";

/// Takes what the sidecar says of itself (`tracing`) once [`Logs::listen`] was called. Other crates' events are left out:
/// they tell of the export's own connections.
#[derive(Debug, Default)]
pub struct LogLayer;

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _context: LayerContext<'_, S>) {
        let Some(logs) = LISTENER.get() else { return };
        let target = event.metadata().target();
        if !target.starts_with("pillion") || target.starts_with(OURSELVES) {
            return;
        }
        let (severity, level) = match *event.metadata().level() {
            Level::ERROR => (Severity::Error, "ERROR"),
            Level::WARN => (Severity::Warn, "WARN"),
            Level::INFO => (Severity::Info, "INFO"),
            Level::DEBUG => (Severity::Debug, "DEBUG"),
            Level::TRACE => (Severity::Trace, "TRACE"),
        };
        let mut text = Text::default();
        event.record(&mut text);
        let (body, target) = (bounded(text.message + &text.fields), target.to_owned());
        logs.send(LogRecord { at: SystemTime::now(), severity, level, event: "", target, body, trace: None });
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _infallible = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// Sends them.
#[derive(Debug)]
pub(super) struct Sender {
    exporter: opentelemetry_otlp::LogExporter,
    scope: InstrumentationScope,
    /// Only it can make records.
    maker: SdkLogger,
}

impl Sender {
    pub(super) fn new(exporter: opentelemetry_otlp::LogExporter, scope: InstrumentationScope) -> Self {
        Self { exporter, scope, maker: SdkLoggerProvider::builder().build().logger("pillion-proxy") }
    }
}

impl Sink for Sender {
    type Item = LogRecord;
    const SIGNAL: &'static str = "logs";

    async fn send(&self, batch: Vec<LogRecord>) -> OTelSdkResult {
        let records: Vec<_> = batch
            .into_iter()
            .map(|record| {
                let mut made = self.maker.create_log_record();
                made.set_timestamp(record.at);
                made.set_observed_timestamp(record.at);
                made.set_severity_number(record.severity);
                made.set_severity_text(record.level);
                if !record.event.is_empty() {
                    made.set_event_name(record.event);
                }
                made.add_attribute("log.target", record.target);
                made.set_body(AnyValue::from(record.body));
                if let Some(trace) = record.trace {
                    let flags = if trace.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
                    made.set_trace_context(trace.trace_id, trace.span_id, Some(flags));
                }
                made
            })
            .collect();
        let records: Vec<_> = records.iter().map(|record| (record, &self.scope)).collect();
        self.exporter.export(LogBatch::new(&records)).await
    }
}
