//! Where a request finds its destination: the snapshot first, the control plane when it is new.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pillion_wire::name::{Destination, ListenerName, host_name};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Lookup, Outbound, Target};
use crate::slot::Slot;

/// Looks destinations up and asks `discovery` for new ones. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Directory {
    outbound: Arc<Slot<Outbound>>,
    demand: mpsc::Sender<Demand>,
}

/// What the control plane is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Demand {
    /// How to reach a destination.
    Destination(Destination),
    /// The addresses of a host name, as [`host_name`] returns it.
    Host(String),
}

impl Demand {
    /// The name of the `Listener` that is the answer.
    pub fn listener(&self) -> ListenerName {
        match self {
            Self::Destination(destination) => ListenerName::Outbound(destination.clone()),
            Self::Host(host) => ListenerName::Host(host.clone()),
        }
    }

    /// What the `Listener` called `name` is the answer to.
    pub fn of_listener(name: &str) -> Option<Self> {
        match name.parse().ok()? {
            ListenerName::Outbound(destination) => Some(Self::Destination(destination)),
            ListenerName::Host(host) => Some(Self::Host(host)),
            ListenerName::Inbound(_) | ListenerName::GrpcServer(_) => None,
        }
    }
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
    /// Too many new destinations at once, or too many in all.
    #[error("too many destinations are looked up or known")]
    Overloaded,
}

impl Directory {
    /// `demand` leads to the discovery task, which publishes its answers in `outbound`.
    pub fn new(outbound: Arc<Slot<Outbound>>, demand: mpsc::Sender<Demand>) -> Self {
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
        self.look(|outbound| outbound.target(destination), || Demand::Destination(destination.clone()), wait).await
    }

    /// The same without asking or waiting. `None`: it has to be asked for.
    pub fn lookup(&self, destination: &Destination) -> Option<Result<Arc<Target>, Unresolved>> {
        self.outbound.load().target(destination)
    }

    /// The addresses that DNS answers for the host `name`, in any spelling, waiting up to `wait` when they have to
    /// be asked for. None: the name exists and has no address.
    ///
    /// # Errors
    /// [`Unresolved`]; a name that cannot be one of the mesh is unknown at once.
    ///
    /// # Cancel safety
    /// As [`Self::resolve`].
    pub async fn host(&self, name: &str, wait: Duration) -> Result<Arc<[IpAddr]>, Unresolved> {
        let name = host_name(name).map_err(|_no_host| Unresolved::Unknown)?;
        let find = |outbound: &Outbound| outbound.hosts.get(&name).map(Lookup::known);
        self.look(find, || Demand::Host(name.clone()), wait).await
    }

    async fn look<T: ?Sized>(
        &self,
        find: impl Fn(&Outbound) -> Option<Result<Arc<T>, Unresolved>>,
        demand: impl FnOnce() -> Demand,
        wait: Duration,
    ) -> Result<Arc<T>, Unresolved> {
        if let Some(found) = find(&self.outbound.load()) {
            return found;
        }
        let mut changes = self.outbound.subscribe();
        self.demand.try_send(demand()).map_err(|_full| Unresolved::Overloaded)?;
        let answer = async {
            loop {
                if let Some(found) = find(&self.outbound.load()) {
                    return found;
                }
                if changes.changed().await.is_err() {
                    return Err(Unresolved::Timeout);
                }
            }
        };
        timeout(wait, answer).await.unwrap_or(Err(Unresolved::Timeout))
    }
}

impl Outbound {
    fn target(&self, destination: &Destination) -> Option<Result<Arc<Target>, Unresolved>> {
        let known = self.targets.get(destination)?.known();
        if let Ok(target) = &known
            && !target.used.load(Ordering::Relaxed)
        {
            target.used.store(true, Ordering::Relaxed); // Only then: a store would take the line from other workers.
        }
        Some(known)
    }
}

impl<T: ?Sized> Lookup<T> {
    fn known(&self) -> Result<Arc<T>, Unresolved> {
        match self {
            Self::Known(known) => Ok(Arc::clone(known)),
            Self::Unknown => Err(Unresolved::Unknown),
            Self::Refused => Err(Unresolved::Overloaded),
        }
    }
}
