//! The program's own log: lines go to a thread that writes them to standard error, so that a reader that has stopped
//! holds up nobody else. What finds no room is dropped and counted.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait.
const QUEUE: usize = 1024;
/// Bytes of a line that are kept.
const MOST_BYTES: usize = 16 << 10;

/// Takes lines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OwnLog {
    queue: SyncSender<Message>,
    dropped: Counter,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Say when all that came before is written.
    Flush(SyncSender<()>),
}

impl OwnLog {
    /// Starts the thread, which writes to `output`.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || run(&lines, output))?;
        Ok(Self { queue, dropped: Counter::default() })
    }

    /// Lines that found no room.
    pub fn dropped(&self) -> Counter {
        self.dropped.clone()
    }

    /// Waits until what was said is written, at most `patience`. Blocks its thread.
    pub fn flush(&self, patience: Duration) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _too_slow_or_gone = written.recv_timeout(patience);
        }
    }
}

fn run(lines: &Receiver<Message>, mut output: impl Write) {
    while let Ok(message) = lines.recv() {
        match message {
            // There is nobody to tell that nobody reads.
            Message::Line(line) => drop(output.write_all(&line)),
            Message::Flush(done) => drop(done.try_send(())),
        }
    }
}

impl<'a> MakeWriter<'a> for OwnLog {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { log: self, text: Vec::new() }
    }
}

/// One line, handed over when it is dropped.
#[derive(Debug)]
pub struct Line<'a> {
    log: &'a OwnLog,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let room = MOST_BYTES.saturating_sub(self.text.len());
        self.text.extend_from_slice(text.get(..room).unwrap_or(text));
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.text.len() >= MOST_BYTES {
            self.text.push(b'\n'); // Its own was cut off.
        }
        if !self.text.is_empty() && self.log.queue.try_send(Message::Line(std::mem::take(&mut self.text))).is_err() {
            self.log.dropped.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_reader_that_has_stopped_holds_nobody_up() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let log = OwnLog::start(writer).expect("a thread");
        let say = |number: usize| writeln!(log.make_writer(), "{number} {}", "a".repeat(1000)).expect("taken");
        (0..2 * QUEUE).for_each(say); // More than the pipe and the queue hold.
        assert!(log.dropped().get() > 0);
        log.flush(Duration::ZERO);
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).expect("text");
            text
        });
        while log.queue.try_send(Message::Line(b"last\n".to_vec())).is_err() {
            std::thread::yield_now();
        }
        log.flush(Duration::from_secs(30));
        let lost = log.dropped().get();
        drop(log);
        let text = reading.join().expect("it ends");
        assert!(text.ends_with("last\n") && text.lines().count() as u64 + lost == 2 * QUEUE as u64 + 1, "{lost}");
    }

    #[test]
    fn a_line_is_bounded() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let log = OwnLog::start(writer).expect("a thread");
        writeln!(log.make_writer(), "{}", "a".repeat(2 * MOST_BYTES)).expect("taken");
        writeln!(log.make_writer(), "b").expect("taken");
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        assert_eq!(text, format!("{}\nb\n", "a".repeat(MOST_BYTES)));
    }
}
