//! The access log: what it wants, and a queue to the thread that writes it.
//!
//! A worker hands over what a request's record holds and goes on: lines are made and written by the log's own thread.
//! Nothing here ever waits. When the queue is full, because the disk or the reader is slow or gone, lines are dropped
//! and counted.

mod entry;
mod line;
mod sink;
mod text;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use http::HeaderName;
use opentelemetry::TraceId;
use prometheus_client::metrics::counter::Counter;

use crate::bootstrap::{AccessLog as Verbosity, AccessLogFile, AccessLogFormat, Bootstrap};
use sink::Sink;

pub use entry::Entry;
pub(super) use entry::{MOST_PATH, MOST_TEXT, logged};
pub(super) use line::rfc3339;

/// Takes entries and writes them on a thread of its own. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    verbosity: Verbosity,
    headers: Arc<[HeaderName]>,
    queue: Option<SyncSender<Message>>,
    reopen: Arc<AtomicBool>,
    dropped: Arc<Counter>,
}

/// Fields of requests that are noted with these settings, in the order in which an [`Entry`] has them.
pub(super) fn fields(settings: &Bootstrap) -> Vec<HeaderName> {
    let is_off = settings.access_log == Verbosity::Off;
    line::headers(if is_off { &AccessLogFormat::Json } else { &settings.access_log_format })
}

/// Lines that may wait for a slow reader, of some 4 KiB at most; more are dropped and counted.
const QUEUE: usize = 4096;

/// What the writer is told.
#[derive(Debug)]
enum Message {
    Entry(Arc<Entry>),
    /// Look whether the file is to be opened again.
    Wake,
    /// Say when all that came before is written.
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Starts the writer, unless the log is off: JSON on standard error. `dropped` counts lines that are lost.
    pub fn start(verbosity: Verbosity, dropped: Counter) -> Self {
        let off = Self::none(dropped);
        let (format, file) = (AccessLogFormat::default(), AccessLogFile::default());
        // Standard error needs no opening.
        Self::open(verbosity, &format, &file, (*off.dropped).clone()).unwrap_or(off)
    }

    /// The same in any format and to any place.
    ///
    /// # Errors
    /// When the file cannot be opened, or the thread not started.
    pub fn open(
        verbosity: Verbosity,
        format: &AccessLogFormat,
        file: &AccessLogFile,
        dropped: Counter,
    ) -> io::Result<Self> {
        let mut log = Self::none(dropped);
        if verbosity == Verbosity::Off {
            return Ok(log);
        }
        let sink = Sink::open(file, Arc::clone(&log.reopen), Arc::clone(&log.dropped))?;
        let (sender, receiver) = sync_channel::<Message>(QUEUE);
        let format = format.clone();
        log.headers = line::headers(&format).into();
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || sink.run(&receiver, |entry, line| line::write(&format, entry, line)))?;
        log.verbosity = verbosity;
        log.queue = Some(sender);
        Ok(log)
    }

    fn none(dropped: Counter) -> Self {
        Self {
            verbosity: Verbosity::Off,
            // Whoever else logs requests wants these.
            headers: line::headers(&AccessLogFormat::Json).into(),
            queue: None,
            reopen: Arc::default(),
            dropped: Arc::new(dropped),
        }
    }

    /// Is it on at all? If not, nothing need be noted for it alone.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Does it want requests that go well?
    pub fn is_of_all(&self) -> bool {
        matches!(self.verbosity, Verbosity::All | Verbosity::Sampled(_))
    }

    /// Fields of requests that it writes down: in [`Entry::fields`] they are in this order.
    pub fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// Is a request that ended so to be logged? All lines of a trace agree, in every sidecar with the same share.
    pub fn wants(&self, failed: bool, trace: Option<TraceId>) -> bool {
        match self.verbosity {
            Verbosity::Off => false,
            Verbosity::Errors => failed,
            Verbosity::Sampled(share) => failed || is_sampled(share, trace),
            Verbosity::All => true,
        }
    }

    /// Queues an entry; a full queue drops it and counts.
    pub fn write(&self, entry: Arc<Entry>) {
        if let Some(queue) = &self.queue
            && queue.try_send(Message::Entry(entry)).is_err()
        {
            self.dropped.inc();
        }
    }

    /// Opens the file again before the next line, for whoever has moved it away. Lines that wait go into the new one.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        if let Some(queue) = &self.queue {
            let _full_and_thus_awake = queue.try_send(Message::Wake);
        }
    }

    /// Waits until what was queued is written, at most `patience`. Blocks its thread.
    pub fn flush(&self, patience: Duration) {
        let (done, written) = sync_channel(1);
        if let Some(queue) = &self.queue
            && queue.try_send(Message::Flush(done)).is_ok()
        {
            let _too_slow_or_gone = written.recv_timeout(patience);
        }
    }
}

/// The last eight bytes.
fn low(trace: TraceId) -> u64 {
    u128::from_be_bytes(trace.to_bytes()) as u64
}

/// By the random part of the trace id, its last 56 bits, as OpenTelemetry samples consistently; else by chance.
fn is_sampled(per_million: u32, trace: Option<TraceId>) -> bool {
    const RANDOM: u64 = 1 << 56;
    let point = trace.map_or_else(rand::random, low) % RANDOM;
    u128::from(point) * 1_000_000 < u128::from(per_million) * u128::from(RANDOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_trace_agree_and_larger_shares_hold_the_smaller() {
        let traces = (0..20_000_u64).map(|seed| {
            let low = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            TraceId::from_bytes(((u128::from(seed) << 64) | u128::from(low)).to_be_bytes())
        });
        let (mut few, mut many) = (0, 0);
        for trace in traces {
            let (small, large) = (is_sampled(10_000, Some(trace)), is_sampled(100_000, Some(trace)));
            assert!(large || !small);
            assert_eq!(small, is_sampled(10_000, Some(trace)));
            few += i32::from(small);
            many += i32::from(large);
        }
        assert!((100..300).contains(&few) && (1_700..2_300).contains(&many), "{few} {many}");
        assert!(!is_sampled(0, None) && is_sampled(1_000_000, None));
    }
}
