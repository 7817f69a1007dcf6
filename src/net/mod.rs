//! Sockets and bytes: binding, dialling, looking at the first bytes, copying.

mod chunk;
mod client_hello;
mod copy;
mod detect;
mod dialer;
mod eyeballs;
mod head_timeout;
mod intercept;
mod lifetime;
mod namespace;
mod read_ahead;
mod replay;
mod socket;
mod transport;

pub use client_hello::{ClientHello, ClientHelloVerdict, MAX_CLIENT_HELLO, client_hello};
pub use copy::{Broken, Copied, Stream, copy};
pub use detect::{PREFACE, Protocol, Verdict, detect};
pub use dialer::{Dialer, Via};
pub use eyeballs::race;
pub use head_timeout::{HeadTimeout, Phase, Serving, SlowHead};
pub use intercept::{is_local, is_reachable, original_destination};
pub use lifetime::{Expired, Lifetime};
pub use namespace::Namespace;
pub use read_ahead::ReadAhead;
pub use replay::Replay;
pub use socket::{Reach, dial, listen, reset_on_close, tune};
pub use transport::Transport;
