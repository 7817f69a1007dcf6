//! The dashboard: what the mesh looks like now, as JSON and as a page.
//!
//! ```text
//! server (own port: hosts, origins, sessions) ──> assets   the page: static files, embedded
//!                                             └─> api ──> graph, detail   from catalog, nodes and load reports
//! admin port (this machine) ───────────────────> api
//! ```
//! Off the data path: it reads what is there, in bounded time, and holds up nobody.

pub mod api;
pub mod auth;
mod detail;
pub mod graph;
mod page;
pub mod server;
mod topology;
