//! What a request that changes the protocol leaves behind.

use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

use super::Http2Tunnel;
use crate::net::{Replay, Transport};

/// What the connection or stream of a request becomes when the answer says that the protocol changes. Nothing comes of
/// it when the answer does not say so.
#[derive(Debug)]
pub enum Switch {
    /// The HTTP/1.1 connection that we accepted.
    Accepted(oneshot::Receiver<Replay<Transport>>),
    /// The HTTP/1.1 connection that we dialled.
    Dialled(OnUpgrade),
    /// The HTTP/2 stream of a `CONNECT`.
    Http2(oneshot::Receiver<Http2Tunnel>),
    /// The request asks for nothing of the kind, or is one of HTTP/2, which has its bodies for that.
    None,
}
