//! Where a request finds its destination: the snapshot first, the control plane when it is new.

use std::sync::Arc;
use std::time::Duration;

use pillion_wire::name::Destination;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Lookup, Outbound, Target};
use crate::slot::Slot;

/// Looks destinations up and asks `discovery` for new ones. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Directory {
    outbound: Arc<Slot<Outbound>>,
    demand: mpsc::Sender<Destination>,
}

/// Why a destination cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The control plane does not know it.
    #[error("the control plane knows no such destination")]
    Unknown,
    /// No answer in time.
    #[error("no answer from the control plane in time")]
    Timeout,
    /// Too many new destinations at once.
    #[error("too many new destinations are being looked up")]
    Overloaded,
}

impl Directory {
    /// `demand` leads to the discovery task, which publishes its answers in `outbound`.
    pub fn new(outbound: Arc<Slot<Outbound>>, demand: mpsc::Sender<Destination>) -> Self {
        Self { outbound, demand }
    }

    /// The current snapshot.
    pub fn outbound(&self) -> &Slot<Outbound> {
        &self.outbound
    }

    /// The slot behind [`Self::outbound`], for the one task that publishes into it.
    pub fn shared_outbound(&self) -> Arc<Slot<Outbound>> {
        Arc::clone(&self.outbound)
    }

    /// The target for `destination`, waiting up to `wait` when it has to be asked for.
    ///
    /// # Errors
    /// [`Unresolved`] says why there is none.
    ///
    /// # Cancel safety
    /// Dropping the future leaves at most a demand behind; its answer serves the next caller.
    pub async fn resolve(&self, destination: &Destination, wait: Duration) -> Result<Arc<Target>, Unresolved> {
        if let Some(lookup) = self.outbound.load().targets.get(destination) {
            return lookup.target();
        }
        let mut changes = self.outbound.subscribe();
        self.demand.try_send(destination.clone()).map_err(|_full| Unresolved::Overloaded)?;
        let answer = async {
            loop {
                if let Some(lookup) = self.outbound.load().targets.get(destination) {
                    return lookup.target();
                }
                if changes.changed().await.is_err() {
                    return Err(Unresolved::Timeout);
                }
            }
        };
        timeout(wait, answer).await.unwrap_or(Err(Unresolved::Timeout))
    }
}

impl Lookup {
    fn target(&self) -> Result<Arc<Target>, Unresolved> {
        match self {
            Self::Known(target) => Ok(Arc::clone(target)),
            Self::Unknown => Err(Unresolved::Unknown),
        }
    }
}
