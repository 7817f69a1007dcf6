//! One signal to stop, seen by everything that runs.

use std::sync::Arc;

use tokio::sync::watch;

/// Becomes requested once and stays so.
#[derive(Clone, Debug)]
pub struct Shutdown {
    state: watch::Receiver<bool>,
    // Kept so that a receiver never sees its sender go.
    sender: Arc<watch::Sender<bool>>,
}

impl Shutdown {
    /// Not requested yet.
    #[must_use]
    pub fn new() -> Self {
        let (sender, state) = watch::channel(false);
        Self { state, sender: Arc::new(sender) }
    }

    /// Asks everything to stop.
    pub fn request(&self) {
        self.sender.send_replace(true);
    }

    /// Waits until it is requested.
    ///
    /// # Cancel safety
    ///
    /// Safe: it only waits.
    pub async fn requested(&self) {
        let mut state = self.state.clone();
        // Fails only without a sender, which `self` holds.
        let _ = state.wait_for(|requested| *requested).await;
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}
