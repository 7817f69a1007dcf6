//! xDS: translating the mesh into resources and serving them.
//!
//! ```text
//! core::mesh ── translate ──> Catalog ── watch ──> stream (delta or SotW) ──> client
//!                                                     │ subscriptions, versions sent
//!                                                     └ ACK, NACK ──> Nodes
//! ```
//!
//! [`catalog`] says what a viewer may see under a name and in which version.
//! [`subscriptions`] knows what a stream holds; [`delta`] and [`sotw`] put it into
//! the two variants of the protocol. None of these do I/O. [`server`] drives
//! them: one task per stream, which keeps no queue: a slow client is sent the
//! newest state when it is ready for more.

pub mod catalog;
pub mod delta;
pub mod dialect;
pub mod kind;
pub mod nodes;
pub(crate) mod owner;
pub mod server;
pub mod sotw;
pub mod subscriptions;
#[cfg(test)]
pub(crate) mod tests;
mod translate;
mod version;
