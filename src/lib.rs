//! The Pillion sidecar.
//!
//! | layer | module |
//! |---|---|
//! | 5 | `main`, `app`, `application`, `listeners`, `readiness`, `worker`, `admin`, `observe`, `init` |
//! | 4 | `proxy`: the walk of a request; `dns` |
//! | 3 | `discovery`, `snapshot`, `upstream` |
//! | 2 | `identity`, `tls`, `net`, `http`, `route`, `filter`, `balance`, `policy`, `resilience` |
//! | 1 | `config`, `telemetry`, `error`, `drain`, `slot`, `store`, `bootstrap` |
//!
//! Imports go down only; `tests/layering.rs` holds that.

pub mod admin;
mod app;
mod application;
pub mod backoff;
pub mod balance;
pub mod bootstrap;
pub mod config;
pub mod discovery;
pub mod dns;
pub mod drain;
pub mod error;
pub mod filter;
pub mod http;
pub mod identity;
mod init;
pub mod listeners;
pub mod net;
pub mod observe;
pub mod policy;
pub mod proxy;
pub mod readiness;
pub mod resilience;
pub mod route;
pub mod slot;
pub mod snapshot;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod worker;

pub use app::main;
