//! The thread that writes. Lines that wait are written together, so that a busy log costs few calls.
//!
//! What cannot be written is lost and counted: that is said once, and the next lines are tried again. A line is written
//! whole or not at all as far as a reader can tell: one that was cut off by a full disk gets an end of its own before the
//! next.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};

use nix::fcntl::OFlag;
use prometheus_client::metrics::counter::Counter;

use super::{Entry, Message};
use crate::bootstrap::AccessLogFile;

/// Bytes that are written at once, about.
const BATCH: usize = 64 << 10;
/// Whoever reads logs is often of the file's group.
const MODE: u32 = 0o640;

/// Where lines go.
#[derive(Debug)]
pub(super) struct Sink {
    place: AccessLogFile,
    output: Output,
    reopen: Arc<AtomicBool>,
    dropped: Arc<Counter>,
    /// Lines lost since the last that was written.
    lost: u64,
    /// The last line that was written was cut off.
    torn: bool,
    /// It could not be opened again.
    stays: bool,
}

#[derive(Debug)]
enum Output {
    Stderr,
    File(File),
}

impl Output {
    fn open(place: &AccessLogFile) -> io::Result<Self> {
        match place {
            AccessLogFile::Stderr => Ok(Self::Stderr),
            // Past the buffer of the standard library, which would keep what could not be written.
            AccessLogFile::Stdout => Ok(Self::File(io::stdout().as_fd().try_clone_to_owned()?.into())),
            AccessLogFile::Path(path) => append(path).map(Self::File),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // Under the lock: other lines of ours do not come between.
            Self::Stderr => io::stderr().lock().write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }
}

/// Never waits: for whoever is to read a FIFO, either.
fn append(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK.bits();
    OpenOptions::new().create(true).append(true).mode(MODE).custom_flags(flags).open(path)
}

impl Sink {
    /// Opens the place.
    pub(super) fn open(place: &AccessLogFile, reopen: Arc<AtomicBool>, dropped: Arc<Counter>) -> io::Result<Self> {
        let output = Output::open(place)?;
        Ok(Self { place: place.clone(), output, reopen, dropped, lost: 0, torn: false, stays: false })
    }

    /// Writes what comes, as `format` makes it, until nobody is left to send.
    pub(super) fn run(mut self, queue: &Receiver<Message>, format: impl Fn(&Entry, &mut Vec<u8>)) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Ok(first) = queue.recv() {
            let mut next = Ok(first);
            loop {
                match next {
                    Ok(Message::Entry(entry)) => {
                        format(&entry, &mut batch);
                        if batch.len() >= BATCH {
                            self.write(&mut batch);
                        }
                    }
                    Ok(Message::Wake) => {}
                    Ok(Message::Flush(done)) => {
                        self.write(&mut batch);
                        let _nobody_waits = done.try_send(());
                    }
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
                next = queue.try_recv();
            }
            self.write(&mut batch);
        }
    }

    /// Writes the batch and empties it.
    fn write(&mut self, batch: &mut Vec<u8>) {
        self.follow();
        if batch.is_empty() {
            return;
        }
        let was_torn = std::mem::take(&mut self.torn);
        if was_torn {
            batch.insert(0, b'\n');
        }
        let (written, problem) = self.write_all(batch);
        let rest = batch.get(written..).unwrap_or_default();
        if let Some(error) = problem {
            let before = written.checked_sub(1).and_then(|at| batch.get(at));
            self.torn = before.map_or(was_torn, |last| *last != b'\n');
            let lines = rest.iter().filter(|byte| **byte == b'\n').count() - usize::from(was_torn && written == 0);
            if self.lost == 0 {
                tracing::error!(%error, "the access log cannot be written: lines are lost until it can");
            }
            self.lost += lines as u64;
            self.dropped.inc_by(lines as u64);
        } else if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            tracing::info!(lost, "the access log is written again");
        }
        batch.clear();
    }

    /// How much was written, and why no more.
    fn write_all(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.output.write(rest) {
                Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }

    /// Opens the file again when that was asked for. If it cannot be, the old one goes on, and the next batch tries again.
    fn follow(&mut self) {
        if !self.reopen.swap(false, Ordering::AcqRel) {
            return;
        }
        match Output::open(&self.place) {
            Ok(output) => (self.output, self.torn, self.stays) = (output, false, false),
            Err(error) => {
                if !std::mem::replace(&mut self.stays, true) {
                    tracing::error!(%error, "the access log cannot be opened again: the old file goes on");
                }
                self.reopen.store(true, Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn sink(path: &Path) -> Sink {
        Sink::open(&AccessLogFile::Path(path.to_owned()), Arc::default(), Arc::default()).expect("a file")
    }

    #[test]
    fn a_file_that_was_moved_away_gets_nothing_more_and_loses_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("a.log"), folder.path().join("a.log.1"));
        let mut sink = sink(&path);
        sink.write(&mut b"one\n".to_vec());
        std::fs::rename(&path, &moved).expect("moved");
        sink.write(&mut b"two\n".to_vec());
        sink.reopen.store(true, Ordering::Release);
        sink.write(&mut b"three\n".to_vec());
        assert_eq!(std::fs::read_to_string(&moved).expect("there"), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "three\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_the_next_is_tried() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut sink = sink(Path::new("/dev/full"));
        sink.write(&mut b"one\ntwo\n".to_vec());
        assert_eq!((sink.dropped.get(), sink.lost, sink.torn), (2, 2, false));
        let path = folder.path().join("b.log");
        (sink.place, sink.torn) = (AccessLogFile::Path(path.clone()), true);
        sink.output = Output::open(&sink.place).expect("a file");
        sink.write(&mut b"three\n".to_vec());
        assert_eq!((sink.dropped.get(), sink.lost, sink.torn), (2, 0, false));
        assert_eq!(std::fs::read_to_string(path).expect("there"), "\nthree\n", "a torn line is ended");
    }

    #[test]
    fn whoever_waits_is_told_when_all_is_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let sink = sink(&folder.path().join("c.log"));
        let (sender, receiver) = sync_channel(8);
        let (done, written) = sync_channel(1);
        sender.send(Message::Flush(done)).expect("room");
        drop(sender);
        sink.run(&receiver, |_entry, _line| {});
        assert_eq!(written.try_recv(), Ok(()));
    }
}
