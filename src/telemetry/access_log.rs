//! The access log: one JSON object per line on standard error, never blocking traffic.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use prometheus_client::metrics::counter::Counter;

use crate::bootstrap::AccessLog as Verbosity;

/// Takes lines and writes them on a thread of its own. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    verbosity: Verbosity,
    lines: Option<SyncSender<String>>,
    dropped: Arc<Counter>,
}

/// Lines that may wait for a slow reader; more are dropped and counted.
const QUEUE: usize = 4096;

impl AccessLog {
    /// Starts the writer, unless the log is off. `dropped` counts lines that found the queue full.
    pub fn start(verbosity: Verbosity, dropped: Counter) -> Self {
        let dropped = Arc::new(dropped);
        if verbosity == Verbosity::Off {
            return Self { verbosity, lines: None, dropped };
        }
        let (sender, receiver) = sync_channel::<String>(QUEUE);
        let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            for mut line in receiver {
                line.push('\n');
                // Nobody is left to tell when standard error is gone.
                let _closed = std::io::stderr().lock().write_all(line.as_bytes());
            }
        });
        Self { verbosity, lines: writer.is_ok().then_some(sender), dropped }
    }

    /// Is a request that ended so to be logged?
    pub fn wants(&self, failed: bool) -> bool {
        match self.verbosity {
            Verbosity::Off => false,
            Verbosity::Errors => failed,
            Verbosity::All => true,
        }
    }

    /// Queues a line; a full queue drops it and counts.
    pub fn write(&self, line: String) {
        if let Some(lines) = &self.lines
            && lines.try_send(line).is_err()
        {
            self.dropped.inc();
        }
    }
}
