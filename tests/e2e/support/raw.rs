//! Bytes as they are: for what no well-behaved client would send.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Sends bytes, closes its half when `close`, and reads until the peer closes, resets, or is silent for `silence`.
pub fn exchange(to: SocketAddr, bytes: &[u8], close: bool, silence: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).expect("a listener");
    stream.set_read_timeout(Some(silence)).expect("a duration above zero");
    // A peer that answers early and resets is part of what is tested.
    let _reset = stream.write_all(bytes);
    if close {
        let _gone = stream.shutdown(Shutdown::Write);
    }
    let (mut received, mut buffer) = (Vec::new(), [0_u8; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return received,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
        }
    }
}
