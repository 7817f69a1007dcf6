//! Graceful stop: everything that serves is spawned through [`Drain`], so that stopping can wait for it.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Counts what is being served and tells it when to finish. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    tasks: TaskTracker,
    stop: CancellationToken,
    application_gone: CancellationToken,
}

impl Drain {
    /// Spawns `task` on the current runtime and counts it until it ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Completes when stopping begins.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// The same, as seen by what the application itself uses: for it, stopping begins when the application has gone
    /// ([`Self::application_gone`]).
    pub fn of_application(&self) -> Self {
        Self { stop: self.application_gone.clone(), ..self.clone() }
    }

    /// What serves the application itself is no longer needed.
    pub fn application_gone(&self) {
        self.application_gone.cancel();
    }

    /// Has stopping begun?
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Tells all tasks to finish what they have and take nothing new.
    pub fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
    }

    /// Waits until all tasks have ended, at most `deadline`. Returns how many are left and will be cut.
    pub async fn finish(&self, deadline: Duration) -> usize {
        // A timeout says the same as the count.
        let _ended = tokio::time::timeout(deadline, self.tasks.wait()).await;
        self.tasks.len()
    }
}
