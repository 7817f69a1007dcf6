//! Log records for the collector: requests and connections, and what the sidecar says of itself.

mod request;

use std::fmt::{self, Write as _};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use http::HeaderName;
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::{InstrumentationScope, TraceFlags};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, SdkLogRecord, SdkLogger, SdkLoggerProvider};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as LayerContext;

use super::pump::Sink;
use crate::telemetry::access_log::Entry;
use crate::telemetry::bounded;

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

/// One record. It becomes what is sent where it is sent: workers only hand it over.
#[derive(Debug)]
pub(super) enum LogRecord {
    /// A request, connection or refusal.
    Request { entry: Arc<Entry>, failed: bool, sampled: bool },
    /// What the sidecar says of itself.
    Own(Own),
}

/// See [`LogRecord::Own`].
#[derive(Debug)]
pub(super) struct Own {
    at: SystemTime,
    severity: Severity,
    level: &'static str,
    target: &'static str,
    body: String,
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

    /// A request, connection or refusal that has ended. `sampled`: so are the spans of its trace.
    pub fn request(&self, entry: Arc<Entry>, failed: bool, sampled: bool) {
        self.send(LogRecord::Request { entry, failed, sampled });
    }

    fn send(&self, record: LogRecord) {
        if self.queue.try_send(record).is_err() {
            self.dropped.inc();
        }
    }
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
        let body = bounded(text.message + &text.fields, MOST_BYTES);
        logs.send(LogRecord::Own(Own { at: SystemTime::now(), severity, level, target, body }));
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
    /// What the fields of an [`Entry`] are.
    fields: Arc<[HeaderName]>,
}

impl Sender {
    pub(super) fn new(
        exporter: opentelemetry_otlp::LogExporter,
        scope: InstrumentationScope,
        fields: Arc<[HeaderName]>,
    ) -> Self {
        Self { exporter, scope, maker: SdkLoggerProvider::builder().build().logger("pillion-proxy"), fields }
    }

    fn make(&self, record: LogRecord) -> SdkLogRecord {
        let mut made = self.maker.create_log_record();
        match record {
            LogRecord::Request { entry, failed, sampled } => {
                request::fill(&mut made, &entry, failed, &self.fields);
                if let (Some(trace), Some(span)) = (entry.trace, entry.span) {
                    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
                    made.set_trace_context(trace, span, Some(flags));
                }
            }
            LogRecord::Own(own) => {
                made.set_timestamp(own.at);
                made.set_observed_timestamp(own.at);
                made.set_severity_number(own.severity);
                made.set_severity_text(own.level);
                made.add_attribute("log.target", own.target);
                made.set_body(AnyValue::from(own.body));
            }
        }
        made
    }
}

impl Sink for Sender {
    type Item = LogRecord;
    const SIGNAL: &'static str = "logs";

    async fn send(&self, batch: Vec<LogRecord>) -> OTelSdkResult {
        let records: Vec<_> = batch.into_iter().map(|record| self.make(record)).collect();
        let records: Vec<_> = records.iter().map(|record| (record, &self.scope)).collect();
        self.exporter.export(LogBatch::new(&records)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::AccessLog as Verbosity;
    use crate::telemetry::{AccessLog, Metrics, Telemetry};

    #[test]
    fn failures_and_refusals_are_sent_though_the_access_log_is_off() {
        let (logs, mut queue) = Logs::new(Counter::default());
        let log = AccessLog::start(Verbosity::Off, Counter::default());
        let telemetry = Telemetry { logs: Some(logs), ..Telemetry::new(Arc::new(Metrics::new()), log) };
        telemetry.connection_refused("http", ([127, 0, 0, 1], 1).into(), "too_many", "there are too many");
        let Ok(LogRecord::Request { entry, failed: true, .. }) = queue.try_recv() else { panic!("nothing came") };
        assert_eq!((entry.event, entry.reason), ("refused", "too_many"));
        telemetry.log(false, None, || panic!("nobody wants it"));
        assert!(queue.try_recv().is_err());
    }
}
