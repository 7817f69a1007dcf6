//! Another network namespace than ours: that of the application, when we run beside it and not in it.
//!
//! A socket belongs for ever to the namespace in which it was made, whoever uses it. So one thread enters
//! the namespace and makes sockets there; everything else may happen on any thread.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

/// A thread in a network namespace. Cheap to clone; it ends with its last clone.
#[derive(Clone, Debug)]
pub struct Namespace {
    path: Arc<Path>,
    jobs: Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Namespace {
    /// Enters the namespace that `path` (`/proc/PID/ns/net`) stands for.
    ///
    /// # Errors
    /// When there is none, or we may not enter it: that takes `CAP_SYS_ADMIN` over it and over ourselves (`setns(2)`).
    pub fn enter(path: &Path) -> io::Result<Self> {
        let namespace = File::open(path)?;
        let (jobs, queue) = channel::<Job>();
        let (entered, answer) = channel();
        std::thread::Builder::new().name("namespace".to_owned()).spawn(move || {
            let result = setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
            let is_inside = result.is_ok();
            if entered.send(result).is_ok() && is_inside {
                queue.into_iter().for_each(|job| job());
            }
        })?;
        answer.recv().map_err(|_gone| gone())??;
        Ok(Self { path: Arc::from(path), jobs })
    }

    /// What it was entered by.
    pub fn path(&self) -> PathBuf {
        self.path.to_path_buf()
    }

    /// What `make` returns when it runs inside. It must not block.
    ///
    /// # Errors
    /// Those of `make`.
    pub async fn run<T: Send + 'static>(&self, make: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        let job = Box::new(move || drop(done.send(make())));
        self.jobs.send(job).map_err(|_gone| gone())?;
        result.await.map_err(|_gone| gone())?
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread in the application's network namespace is gone")
}
