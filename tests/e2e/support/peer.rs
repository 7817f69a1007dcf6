//! Sockets in the test's own hands: for ends of a connection whose every move the test decides.

use std::io::{self, Read, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::mesh::Mesh;

/// A read or write that takes longer fails the test instead of hanging it.
const DEADLINE: Duration = Duration::from_secs(20);

/// An application that handles each connection on a thread of its own. It ends with the test.
pub fn tcp_server(mesh: &Mesh, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let ip: IpAddr = mesh.ip();
    let listener = TcpListener::bind((ip, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (patient(stream.expect("accepted")), Arc::clone(&serve));
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Connects.
pub fn connect(to: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(to).unwrap_or_else(|error| panic!("cannot connect to {to}: {error}")))
}

/// Opens a tunnel to `destination` with `CONNECT` in HTTP/1.1.
pub fn tunnel(proxy: SocketAddr, destination: &str) -> TcpStream {
    let mut stream = connect(proxy);
    write!(stream, "CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n\r\n").expect("a listener that reads");
    let head = read_http_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    stream
}

/// Reads up to the empty line after a message's head, and not one byte further. What came before the end, if it ended.
pub fn read_http_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("a head in time") == 1 {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Reads until the peer ends the connection: what came, and how it ended.
pub fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut received = Vec::new();
    let result = stream.read_to_end(&mut received);
    (received, result.map(drop))
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(DEADLINE)).expect("above zero");
    stream.set_write_timeout(Some(DEADLINE)).expect("above zero");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}
