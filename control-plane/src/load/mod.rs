//! What clients report of their traffic (LRS), and what is kept of it.
//!
//! ```text
//! service (a stream per client) ── report ──> store (rings per edge) <── view ── dashboard, `pillion top`
//! ```
//! Bounded: at most [`store::MOST_REPORTERS`] clients, [`store::MOST_EDGES`] edges over all of them, each with
//! [`ring::FINE`] slots of 5 s and [`ring::COARSE`] slots of 30 s (15 minutes), 144 bytes a slot: an edge that is busy all the
//! time takes 8 KiB, all of them 64 MiB. An edge without traffic takes a few hundred bytes. 1,000 workloads with four
//! edges each way fit.

pub mod report;
pub mod ring;
pub mod service;
pub mod store;
