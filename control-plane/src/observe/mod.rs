//! Seeing the mesh: what sidecars run, and their requests as they happen.
//!
//! ```text
//! sidecar ── Observe/Connect ──> service ──> Sidecars (hub) <── summary, tap <── Api <── admin port, dashboard
//! any xDS client ── ACK, NACK ──> Nodes ────────────────────────^   └── csds <── admin port (gRPC)
//! ```
//! Everything is asked for when somebody looks and kept nowhere. What is asked of a sidecar is bounded in time, size and
//! number; a slow reader of a tap loses events, which is told, and holds up nobody.

pub mod api;
pub mod csds;
mod hub;
pub mod logging;
mod matcher;
mod service;
mod summary;
mod tap;

pub use hub::{Answer, AskError, Sidecars};
pub use service::Service;
