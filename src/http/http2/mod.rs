//! HTTP/2, by `h2` itself at both ends of a connection.
//!
//! hyper's layer over `h2` keeps from us what a proxy needs to know: how a `CONNECT` tunnel ended, when the peer's
//! SETTINGS have come, and when a turn of the connection is over, which is when gathered writes go out ([`Gather`]).

mod client;
mod gather;
mod keep_alive;
mod receive;
mod send;
mod server;
mod tunnel;

pub use client::{Http2, connect_http2};
pub use receive::Receive;
pub use tunnel::Http2Tunnel;

pub(super) use server::serve;

/// Flow-control windows. A sender in bulk is seldom stopped (a quarter more bytes a second than with half of it), and
/// the streams that another sidecar opens on one connection cannot fill the connection's together, so that stalled
/// ones do not stop the others.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Bytes of one message that may wait to be sent.
const SEND_BUFFER: usize = 256 << 10;
/// Streams that we reset and remember for a second, since their peer may not know yet: frames for others count as its
/// errors.
const REMEMBERED_RESETS: usize = 4096;
/// Longest frame that a peer may send.
const MAX_FRAME: u32 = 64 << 10;
