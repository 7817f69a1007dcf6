//! HTTP as hyper speaks it: bodies, header rules of a proxy, both ends of a connection, upgrades.

mod body;
mod client;
mod forwarded;
mod headers;
mod http1;
mod http2;
mod server;
mod stream;
mod tunnel;

pub use body::{Body, BoxError};
pub use client::{Http1, Http2, connect_http1, connect_http2};
pub use forwarded::Caller;
pub use headers::{clean_request, clean_response, upgrade_token};
pub use server::{ServerSettings, serve};
pub use stream::{Duplex, duplex};
pub use tunnel::{Cutter, Http2Tunnel};
