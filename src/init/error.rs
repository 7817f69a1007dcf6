//! Why it did not work. The first word of each message is the failure's name, which scripts may rely on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why `init` failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    /// No `CAP_NET_ADMIN`.
    #[error(
        "no_permission: changing and reading a network namespace's rules needs CAP_NET_ADMIN in it; run as root, give the \
         container that capability, or use a user namespace of your own: unshare -Urn"
    )]
    NoPermission,
    /// Nothing could program the rules.
    #[error(
        "no_backend: nothing could program the rules; tried\n{tried}\ninstall nftables or iptables, and load or build the \
         kernel's features that these messages name"
    )]
    NoBackend {
        /// Each backend with its failure, one a line.
        tried: String,
    },
    /// The sidecar is not there yet.
    #[error(
        "no_listener: nothing listens on {address} (waited {waited:?}: {source}), and the rules would refuse all that \
         applications call; start the sidecar first, wait longer (--wait 30s), or use --without-listener"
    )]
    NoListener {
        /// Where it should.
        address: SocketAddr,
        /// How long we waited.
        waited: Duration,
        /// Of the last attempt.
        source: io::Error,
    },
    /// The namespace has no way to the outside, so nothing can be dialled.
    #[error(
        "no_route: cannot verify, as there is no route to {tried}; configure the namespace's interfaces first (ip route add \
         default …)"
    )]
    NoRoute {
        /// Addresses that were dialled.
        tried: String,
    },
    /// A connection did not arrive at the sidecar.
    #[error(
        "not_redirected: {target} was dialled, and should have arrived at port {port} of this namespace, but {found}"
    )]
    NotRedirected {
        /// What was dialled.
        target: SocketAddr,
        /// Where it should have arrived.
        port: u16,
        /// What happened instead.
        found: String,
    },
    /// The kernel does not show the inbound rules.
    #[error("inbound_missing: no backend's rules redirect to the inbound port {port}; {looked}")]
    InboundMissing {
        /// The inbound port.
        port: u16,
        /// Where we looked.
        looked: String,
    },
    /// Rules could not be removed.
    #[error("undo_failed: not everything could be removed:\n{0}")]
    Undo(String),
    /// The routes of tproxy could not be made.
    #[error("routing_failed: tproxy needs a routing rule and a route: {0}; install iproute2, or use --mode redirect")]
    Routing(Failure),
}

/// Why a program did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Not installed.
    #[error("{0}: not installed")]
    Missing(&'static str),
    /// Could not be started.
    #[error("{program}: cannot be started: {source}")]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Ended with an error.
    #[error("{command}: {status}: {stderr}")]
    Status {
        /// With its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
}

/// A failed attempt to dial.
#[derive(Debug)]
pub(super) enum Dial {
    /// No route, or no source address.
    NoRoute(IpAddr),
    /// Anything else.
    Failed(String),
}
