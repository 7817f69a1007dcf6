//! What routes do to requests and responses, one file per filter. Pure: heads and chances in, verdicts out.
//!
//! The order is Envoy's: `cors`, `fault`, then the router's own: `redirect`, or `rewrite` and `headers`, and `mirror`; on
//! the way back `headers`, `cors`. `proxy/filters` walks it.

mod active;
pub mod cors;
pub mod fault;
pub mod headers;
pub mod mirror;
pub mod redirect;
pub mod rewrite;

pub use active::{Active, Turn};
