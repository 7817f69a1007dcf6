//! Sockets and bytes: binding, dialling, looking at the first bytes, copying.

mod client_hello;
mod copy;
mod detect;
mod head_timeout;
mod replay;
mod socket;
mod transport;

pub use client_hello::{ClientHelloVerdict, MAX_CLIENT_HELLO, client_hello};
pub use copy::{Copied, copy};
pub use detect::{PREFACE, Protocol, Verdict, detect};
pub use head_timeout::{HeadTimeout, Phase, Serving, SlowHead};
pub use replay::Replay;
pub use socket::{dial, listen, reset_on_close, tune};
pub use transport::Transport;
