//! The host that a session belongs to.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::standing::{BREAKER, EJECTED, UNHEALTHY};
use super::{Host, Upstream};

impl Upstream {
    /// The host of this cluster at `address`, for a call of its session: also one that drains, if the cluster says so.
    /// `None`: there is none, it is out of service, or, unless `strict`, it is not usable for whatever reason. That it was
    /// not checked yet does not count: the session is there, and nowhere else.
    pub fn session_host(&self, address: SocketAddr, strict: bool, now: impl Fn() -> Instant) -> Option<Arc<Host>> {
        let hosts = self.hosts.load();
        let host = hosts.at(address)?;
        let standing = &host.standing;
        // Only one host will do: one that was out of reach may be back, and one that is full says so itself.
        let may = match strict {
            false => host.is_usable_unchecked(now),
            true => {
                standing.allows_unchecked(now) || (standing.is_full() && !standing.has(BREAKER | EJECTED | UNHEALTHY))
            }
        };
        may.then(|| Arc::clone(host))
    }
}
