//! HTTP as hyper speaks it: bodies, header rules of a proxy, both ends of a connection, upgrades.

mod body;
mod client;
mod forwarded;
mod headers;
mod http1;
mod http2;
mod server;
mod stream;
mod switch;

pub use body::{Body, BoxError};
pub use client::{Http1, SendError, Unsent, connect_http1};
pub use forwarded::{append_forwarded, client_cert};
pub use headers::{strip_hop_by_hop, strip_mesh, upgrade_token};
pub use http2::{Http2, Http2Tunnel, Receive, connect_http2};
pub use server::{ServeError, ServerSettings, serve};
pub use stream::{Duplex, duplex};
pub use switch::Switch;
