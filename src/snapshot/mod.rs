//! Configuration compiled for use: immutable, swapped whole, loaded once per request.
//!
//! ```text
//! Outbound ── Destination ── Target ─┬ http: Routes ── VirtualHost ── Route ── Split ─┐
//!                                    └ tcp: Split ───────────────────────────────────┴─ Cluster ── Upstream (live)
//!          ── host name ─── addresses
//! Inbound  ── port ───────── InboundPort ── Host (live)
//! ```
//! `discovery` builds these; `proxy` reads them. The two meet nowhere else.

mod directory;
mod routes;

pub use directory::{Demand, Directory, Unresolved};
pub use routes::{Action, Cluster, Route, Routes, Split, VirtualHost};

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use pillion_wire::name::Destination;

use crate::config;
use crate::upstream::Host;

/// Everything that outbound traffic needs, by destination.
#[derive(Debug, Default)]
pub struct Outbound {
    /// What was asked for and answered. A destination that is missing has not been asked for yet.
    pub targets: HashMap<Destination, Lookup>,
    /// The same for host names, as DNS asks for them: their addresses, none when the name has none.
    pub hosts: HashMap<String, Lookup<[IpAddr]>>,
}

/// The control plane's answer for one destination, or for one host name.
#[derive(Debug)]
pub enum Lookup<T: ?Sized = Target> {
    /// It is known: here is how to reach it.
    Known(Arc<T>),
    /// The control plane has no such destination.
    Unknown,
}

impl<T: ?Sized> Clone for Lookup<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Known(known) => Self::Known(Arc::clone(known)),
            Self::Unknown => Self::Unknown,
        }
    }
}

/// One destination with all that it refers to.
#[derive(Debug)]
pub struct Target {
    /// What it is called.
    pub destination: Destination,
    /// Routes, when it takes HTTP.
    pub http: Option<Routes>,
    /// Clusters, when it takes opaque TCP.
    pub tcp: Option<Split>,
}

/// Everything that inbound traffic needs, by workload port.
#[derive(Debug, Default)]
pub struct Inbound {
    /// The application's ports.
    pub ports: BTreeMap<u16, InboundPort>,
}

/// One port of our own application.
#[derive(Clone, Debug)]
pub struct InboundPort {
    /// What we were told.
    pub config: config::InboundPort,
    /// The application, as a host to connect to.
    pub host: Arc<Host>,
}
