//! What both ends of our HTTP/2 connections allow themselves.

mod server;

pub(super) use server::serve;

use std::time::Duration;

/// Flow-control windows: the streams that another sidecar opens on one connection cannot fill the connection's
/// together, so that stalled ones do not stop the others.
pub(super) const STREAM_WINDOW: u32 = 256 << 10;
pub(super) const CONNECTION_WINDOW: u32 = 32 << 20;
/// Bytes of one message that may wait to be sent.
pub(super) const SEND_BUFFER: usize = 256 << 10;
/// A silent HTTP/2 peer is asked whether it is still there.
pub(super) const PING_EVERY: Duration = Duration::from_secs(30);
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(10);
