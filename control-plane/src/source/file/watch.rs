//! Watches a directory: reads it again a moment after something changed, and from
//! time to time even if nothing seems to have.
//!
//! Runs on a thread of its own, because it waits for the file system. Events only
//! say "look"; however many there are, one look serves them all.

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::{Duration, SystemTime},
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tracing::{debug, error, warn};

use super::{scan::Files, state::State};
use crate::source::Update;

/// How long to wait after the first event of several.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How often to look without being told: file systems that do not tell, events
/// that were lost.
const POLL: Duration = Duration::from_secs(5);

/// The directory cannot be read at start.
#[derive(Debug, thiserror::Error)]
#[error("configuration directory {dir}: {source}")]
pub struct DirectoryError {
    dir: String,
    source: io::Error,
}

/// A directory as a source of configuration.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    files: Files,
    state: State,
}

impl Directory {
    /// Reads `root` for the first time.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn open(root: &Path) -> Result<(Self, Update), DirectoryError> {
        let fail = |source| DirectoryError { dir: root.display().to_string(), source };
        let mut directory = Self { root: root.to_owned(), files: Files::new(root.to_owned()), state: State::default() };
        directory.files.scan(SystemTime::now()).map_err(fail)?;
        let update = directory.state.compose(directory.files.contents());
        Ok((directory, update))
    }

    /// Calls `publish` with each new state, until it returns `false`.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn watch(self, publish: impl FnMut(Update) -> bool + Send + 'static) -> io::Result<()> {
        thread::Builder::new().name("config-watch".to_owned()).spawn(move || self.run(publish))?;
        Ok(())
    }

    fn run(mut self, mut publish: impl FnMut(Update) -> bool) {
        let (wake, woken) = sync_channel(1);
        // Kept so that waiting never ends for want of a sender.
        let _watcher = watcher(&self.root, wake.clone());
        let mut wait = DEBOUNCE;
        loop {
            let told = match woken.recv_timeout(wait) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if told {
                thread::sleep(DEBOUNCE);
                drain(&woken);
            }
            match self.files.scan(SystemTime::now()) {
                Ok(outcome) => {
                    wait = outcome.again.unwrap_or(POLL);
                    if outcome.changed && !publish(self.state.compose(self.files.contents())) {
                        return;
                    }
                }
                Err(error) => {
                    error!(dir = %self.root.display(), %error, "cannot read the configuration, what was read stays in force");
                    wait = POLL;
                }
            }
        }
    }
}

/// Tells about changes. Without it there is still the regular look.
fn watcher(root: &Path, wake: SyncSender<()>) -> Option<RecommendedWatcher> {
    let told = move |event: notify::Result<Event>| {
        let relevant = event.map_or(true, |event| !matches!(event.kind, EventKind::Access(_)));
        if relevant && let Err(TrySendError::Disconnected(())) = wake.try_send(()) {
            debug!("nobody watches the configuration any more");
        }
    };
    let watcher = notify::recommended_watcher(told).and_then(|mut watcher| {
        watcher.watch(root, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    watcher
        .map_err(|error| {
            warn!(%error, "changes are not told by the system, looking every {POLL:?} instead");
        })
        .ok()
}

fn drain(woken: &Receiver<()>) {
    while woken.try_recv().is_ok() {}
}
