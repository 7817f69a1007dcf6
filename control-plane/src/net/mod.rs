//! The control plane's port: TLS, then HTTP/2, then gRPC.
//!
//! Everything that a connection may keep waiting before it has said who it is has
//! a deadline here: the handshake, and the 24 bytes with which HTTP/2 begins.

pub mod port;
mod preface;
pub mod tls;
