//! What children log: shown at once with their name in front, or kept (the last lines of each) for when something fails.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::Write as _,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};

/// Lines kept of each child.
const KEPT_LINES: usize = 50;
/// A longer line is cut into several.
const LONGEST_LINE_BYTES: u64 = 16 * 1024;

/// What happens to a child's log.
#[derive(Debug, Clone)]
pub(crate) enum LogMode {
    /// Kept, and shown on standard error.
    Show,
    /// Written to a file by the child itself: it never waits for us, not even while we are stopped. None are kept.
    Save(Arc<File>),
    /// Kept only.
    Keep,
}

/// The logs of all children.
#[derive(Debug)]
pub(crate) struct LogBook {
    mode: LogMode,
    last: Mutex<BTreeMap<String, VecDeque<String>>>,
}

impl LogBook {
    pub(super) const fn new(mode: LogMode) -> Self {
        Self { mode, last: Mutex::new(BTreeMap::new()) }
    }

    /// Where a child's standard error goes.
    pub(super) fn output(&self) -> std::io::Result<Stdio> {
        match &self.mode {
            LogMode::Save(file) => Ok(file.try_clone()?.into()),
            LogMode::Show | LogMode::Keep => Ok(Stdio::piped()),
        }
    }

    /// Takes lines from a child until it closes its output.
    pub(super) async fn follow(&self, name: &str, output: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(LONGEST_LINE_BYTES).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => self.add(name, String::from_utf8_lossy(&line).trim_end()),
            }
        }
    }

    fn add(&self, name: &str, line: &str) {
        if matches!(self.mode, LogMode::Show) {
            // Standard error may be closed; there is nobody to tell.
            let _closed = writeln!(std::io::stderr().lock(), "{name} | {line}");
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = last.entry(name.to_owned()).or_default();
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// The last lines of a child.
    pub(super) fn last(&self, name: &str) -> Vec<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(name).map(|lines| lines.iter().cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_last_lines_and_cuts_long_ones() {
        let book = LogBook::new(LogMode::Keep);
        let text: String = (0..60).map(|number| format!("line {number}\n")).collect();
        book.follow("a", text.as_bytes()).await;
        let lines = book.last("a");
        assert_eq!((lines.len(), lines[0].as_str()), (KEPT_LINES, "line 10"));
        let long = vec![b'x'; 40_000];
        book.follow("b", long.as_slice()).await;
        assert_eq!(book.last("b").len(), 3);
    }
}
