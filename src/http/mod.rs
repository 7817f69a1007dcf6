//! HTTP as hyper speaks it: bodies, header rules of a proxy, both ends of a connection, upgrades.

mod body;
mod client;
mod error;
mod forwarded;
mod headers;
mod http1;
mod http2;
mod repeat;
mod server;
mod stream;
mod switch;
mod tee;
mod unary;
mod watch;

pub use body::{Body, BoxError};
pub use client::{Http1, Unsent, connect_http1};
pub use error::HttpError;
pub use forwarded::Caller;
pub use headers::{clean_request, clean_response, upgrade_token};
pub use http2::{Http2, Http2Tunnel, Receive, connect_http2};
pub use repeat::Repeat;
pub use server::{ServerSettings, serve};
pub use stream::{Duplex, duplex};
pub use switch::Switch;
pub use tee::{Level, tee};
pub use unary::{frame, unframe};
pub use watch::Activity;
