//! Who is calling: everything known about an accepted connection that its requests need.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use pillion_wire::name::Destination;
use pillion_wire::spiffe::SpiffeId;

use super::Worker;
use super::authority::Authority;
use crate::drain::Drain;
use crate::error::ProxyError;
use crate::http::Caller;
use crate::net::Phase;

/// An accepted connection, shared by the requests on it.
#[derive(Debug)]
pub(super) struct Client {
    /// The worker that serves it.
    pub(super) worker: Arc<Worker>,
    /// Where it comes from.
    pub(super) address: SocketAddr,
    /// Which way its requests go.
    pub(super) way: Way,
    /// Is a request being served?
    pub(super) phase: Phase,
    /// The proven identity of an inbound caller as text, else empty.
    pub(super) peer: Arc<str>,
    /// What our application is told about an inbound caller.
    pub(super) caller: Option<Caller>,
    /// What the last request named, and what that means: the next one most often names the same.
    named: Mutex<Option<(Box<str>, Arc<Destination>)>>,
}

/// Which way requests of a connection go, and by what they find their destination.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// From our application: the destination is in each request.
    Outbound,
    /// From our application, on a port that is bound to one destination.
    Bound(Destination),
    /// From another sidecar: each request names the application port.
    Mesh(SpiffeId),
    /// From outside the mesh, on the front port of an application port.
    Front {
        /// The application's port.
        port: u16,
        /// The address that was dialled, when the connection was intercepted.
        address: Option<IpAddr>,
        /// A mesh identity shown in mutual TLS; `None` in plaintext.
        peer: Option<SpiffeId>,
    },
}

impl Client {
    /// A connection from `address`, on which nothing is being served yet.
    pub(super) fn new(worker: Arc<Worker>, address: SocketAddr, way: Way) -> Self {
        let peer = worker.recorder.identity(way.peer());
        let scheme = match &way {
            Way::Outbound | Way::Bound(_) => None,
            Way::Front { peer: Some(_), .. } => Some("https"),
            Way::Mesh(_) | Way::Front { .. } => Some("http"),
        };
        let identity = worker.shared.identity.load();
        let us = identity.as_ref().as_ref().map(|identity| &identity.id);
        let caller = scheme.map(|scheme| Caller::new(address.ip(), scheme, us, way.peer()));
        Self { worker, address, way, phase: Phase::default(), peer, caller, named: Mutex::default() }
    }

    /// The destination that a request of this connection means.
    pub(super) fn destination(&self, authority: &Authority) -> Result<Arc<Destination>, ProxyError> {
        let mut named = self.named.lock();
        if let Some((last, destination)) = named.as_ref()
            && **last == *authority.as_str()
        {
            return Ok(Arc::clone(destination));
        }
        let destination = Arc::new(authority.destination()?);
        *named = Some((authority.as_str().into(), Arc::clone(&destination)));
        Ok(destination)
    }
}

impl Way {
    /// For metrics and logs.
    pub(super) fn direction(&self) -> &'static str {
        match self {
            Self::Outbound | Self::Bound(_) => "outbound",
            Self::Mesh(_) | Self::Front { .. } => "inbound",
        }
    }

    /// When connections of this way are to end: what the application uses ends last.
    pub(super) fn drain(&self, worker: &Worker) -> Drain {
        match self {
            Self::Outbound | Self::Bound(_) => worker.shared.drain.of_application(),
            Self::Mesh(_) | Self::Front { .. } => worker.shared.drain.clone(),
        }
    }

    /// The proven identity of an inbound caller.
    pub(super) fn peer(&self) -> Option<&SpiffeId> {
        match self {
            Self::Mesh(peer) => Some(peer),
            Self::Front { peer, .. } => peer.as_ref(),
            Self::Outbound | Self::Bound(_) => None,
        }
    }
}
