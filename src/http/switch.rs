//! What a request that changes the protocol leaves behind.

use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

use super::Http2Tunnel;

/// What the connection or stream of a request becomes when the answer says that the protocol changes. Nothing comes of
/// it when the answer does not say so.
#[derive(Debug)]
pub enum Switch {
    /// The HTTP/1.1 connection itself.
    Http1(OnUpgrade),
    /// The HTTP/2 stream of a `CONNECT`.
    Http2(oneshot::Receiver<Http2Tunnel>),
    /// Other requests of HTTP/2 have their bodies for that.
    None,
}
