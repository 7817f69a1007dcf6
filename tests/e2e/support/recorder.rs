//! An HTTP/1.1 application that takes nothing for granted: it reads bytes as RFC 9112 has them, to the letter, and
//! writes down every request head that it was sent. What a proxy let through shows here and nowhere else.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Answers 200 to every head at once (to `GET /slow` after a while), before it reads the body, so that a request that announces a body which never
/// comes takes the bytes of the next one.
pub struct Recorder {
    /// Where it listens.
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    /// Listens on a free port. Its threads end with the test's process.
    pub fn start(ip: IpAddr) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let heads = Arc::clone(&recorded);
                thread::spawn(move || serve(stream, &heads));
            }
        });
        Self { address, heads }
    }

    /// The heads so far, in order of arrival, each without the empty line that ends it.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no test thread panicked").clone()
    }

    /// The request lines so far, without the version: `GET /a`.
    pub fn requests(&self) -> Vec<String> {
        let line = |head: &String| head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
        self.heads().iter().map(line).collect()
    }
}

fn serve(mut stream: TcpStream, heads: &Mutex<Vec<String>>) {
    let mut bytes = Vec::new();
    while let Some(head) = take_head(&mut stream, &mut bytes) {
        let skipped = field(&head, "content-length").and_then(|length| length.parse::<usize>().ok());
        let chunked = field(&head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        if head.starts_with("GET /slow") {
            thread::sleep(Duration::from_millis(200));
        }
        heads.lock().expect("no test thread panicked").push(head);
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
            return;
        }
        let complete = if chunked {
            skip_chunks(&mut stream, &mut bytes)
        } else {
            skip(&mut stream, &mut bytes, skipped.unwrap_or(0))
        };
        if complete.is_none() {
            return;
        }
    }
    if !bytes.is_empty() {
        let rest = format!("INCOMPLETE {}", bytes.escape_ascii());
        heads.lock().expect("no test thread panicked").push(rest);
    }
}

fn take_head(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<String> {
    take_until(stream, bytes, b"\r\n\r\n")
}

fn skip_chunks(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    loop {
        let size = take_until(stream, bytes, b"\r\n")?;
        let size = usize::from_str_radix(&size, 16).ok()?;
        if size == 0 {
            // Trailer fields, up to an empty line.
            while !take_until(stream, bytes, b"\r\n")?.is_empty() {}
            return Some(());
        }
        skip(stream, bytes, size + 2)?;
    }
}

fn take_until(stream: &mut TcpStream, bytes: &mut Vec<u8>, end: &[u8]) -> Option<String> {
    loop {
        if let Some(at) = bytes.windows(end.len()).position(|window| window == end) {
            let taken = String::from_utf8_lossy(&bytes[..at]).into_owned();
            bytes.drain(..at + end.len());
            return Some(taken);
        }
        read_more(stream, bytes)?;
    }
}

fn skip(stream: &mut TcpStream, bytes: &mut Vec<u8>, count: usize) -> Option<()> {
    while bytes.len() < count {
        read_more(stream, bytes)?;
    }
    bytes.drain(..count);
    Some(())
}

fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
    bytes.extend_from_slice(&buffer[..count]);
    Some(())
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.trim()))
}
