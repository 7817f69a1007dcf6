//! How long things may take.

use std::time::Duration;

/// `spec.timeouts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// TCP and TLS set-up of one connection to an endpoint (`Cluster.connect_timeout`); 5 s when `None`.
    pub connect: Option<Duration>,
}
