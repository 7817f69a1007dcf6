//! Bytes as they are: for what no well-behaved client would send.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for a peer that is to end the connection.
const DEADLINE: Duration = Duration::from_secs(20);

/// Sends bytes and reads until the peer ends the connection; text, since that is what HTTP/1.1 answers in.
///
/// # Panics
/// When the peer does not end it in time: a connection that is kept open shows that something is still expected.
pub fn talk(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).expect("a listener");
    stream.set_read_timeout(Some(DEADLINE)).expect("a duration above zero");
    // A peer that answers early and resets is part of what is tested.
    let _reset = stream.write_all(bytes);
    let (mut received, mut buffer) = (Vec::new(), [0_u8; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => received.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let (sent, received) = (bytes.escape_ascii(), received.escape_ascii());
                panic!("{to} did not end the connection; sent {sent:.2000}, received {received:.2000}");
            }
            _ => return String::from_utf8_lossy(&received).into_owned(),
        }
    }
}

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
