//! What the control plane says, asked for on demand and turned into snapshots.
//!
//! A sidecar asks only for what its workload talks to: its memory depends on
//! what it uses, never on the size of the mesh. Whatever happens to the
//! connection, everything that was received stays in force.
//!
//! ```text
//! demand ──> assemble ── subscriptions ──> xds/delta ── requests ──> xds/client ──> control plane
//!               │    <──── updates ───── xds/translate <─ responses ──┘
//!               └──> Slot<Outbound>, Slot<Option<Inbound>>
//! ```
//! Clusters that are found by name (`STRICT_DNS`, `LOGICAL_DNS`) get their endpoints from `names`, by the same way as those
//! that the control plane says.

pub mod assemble;
mod ledger;
mod names;
mod source;
mod update;
pub mod xds;

pub use ledger::{Entry, Ledger, Refused};
pub use names::Naming;
pub use source::Context;
pub use update::{Change, Config, Kind, Update};
pub use xds::Link;

use std::convert::Infallible;

use source::SOURCES;

/// Destinations and hosts that may wait to be asked for; a demand beyond that fails at once.
pub const DEMAND_CAPACITY: usize = 1024;

/// Keeps the context's `outbound` and `inbound` as the control plane says, for the destinations and hosts that come in by
/// `demand`, and asks nameservers for clusters that are found by name.
///
/// `inbound` holds `None` until the first configuration has been applied; without
/// a mesh port, until the control plane has been reached. What is accepted is kept in `store`, if there is one, and
/// used again after a restart until the control plane has been reached.
pub async fn run(context: Context) -> Infallible {
    match SOURCES.first() {
        Some(source) => {
            tracing::debug!(source = source.name(), "configuration source");
            source.run(context).await
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::source::SOURCES;

    #[test]
    fn source_names_are_unique() {
        for (at, source) in SOURCES.iter().enumerate() {
            assert!(!SOURCES.iter().skip(at + 1).any(|other| other.name() == source.name()));
        }
    }
}
