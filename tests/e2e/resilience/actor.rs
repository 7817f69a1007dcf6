//! An HTTP/1.1 application in the test's own process that does what the test says with each request.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    /// Method and path: `GET /a`.
    pub(super) line: String,
    /// The head as a whole, in lower case.
    pub(super) head: String,
    /// The content.
    pub(super) body: Vec<u8>,
}

/// What is done with a request.
pub(super) enum Act {
    /// A response of this status, with more fields (each with its line end).
    Answer(u16, String),
    /// Nothing, for as long as the caller waits.
    Hang,
    /// The head of an answer and the first of its two bytes, then nothing.
    Stall,
    /// An answer of so many bytes.
    Send(usize),
    /// The connection is cut.
    Cut,
}

/// A running application.
pub(super) struct Actor {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    gone: Arc<Mutex<Vec<String>>>,
    closed: Arc<AtomicUsize>,
}

impl Actor {
    /// Listens on a free port. Its threads end with the test's process.
    pub(super) fn start(ip: IpAddr, act: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let actor = Self { address, seen: Arc::default(), gone: Arc::default(), closed: Arc::default() };
        let (seen, gone, act) = (Arc::clone(&actor.seen), Arc::clone(&actor.gone), Arc::new(act));
        let closed = Arc::clone(&actor.closed);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, gone, act) = (Arc::clone(&seen), Arc::clone(&gone), Arc::clone(&act));
                let closed = Arc::clone(&closed);
                thread::spawn(move || {
                    serve(stream, &seen, &gone, act.as_ref());
                    closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        actor
    }

    /// One that always answers so.
    pub(super) fn answering(ip: IpAddr, status: u16) -> Self {
        Self::start(ip, move |_| Act::Answer(status, String::new()))
    }

    /// The requests so far for a path that begins so.
    pub(super) fn seen(&self, path: &str) -> Vec<Request> {
        let all = self.seen.lock().expect("no thread panicked");
        all.iter().filter(|request| request.path().starts_with(path)).cloned().collect()
    }

    /// Connections that have ended.
    pub(super) fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }

    /// Paths of requests whose caller went away before the answer.
    pub(super) fn gone(&self) -> Vec<String> {
        self.gone.lock().expect("no thread panicked").clone()
    }
}

impl Request {
    pub(super) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// The first value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find_map(|(key, value)| (key == name).then(|| value.trim()))
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    gone: &Mutex<Vec<String>>,
    act: &(dyn Fn(&Request) -> Act + Send + Sync),
) {
    let mut bytes = Vec::new();
    while let Some(request) = read(&mut stream, &mut bytes) {
        seen.lock().expect("no thread panicked").push(request.clone());
        let written = match act(&request) {
            Act::Answer(status, fields) => {
                let answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: 2\r\n{fields}\r\nok");
                stream.write_all(answer.as_bytes())
            }
            Act::Hang => return wait(&mut stream, &request, gone),
            Act::Stall => {
                let _gone = stream.write_all(b"HTTP/1.1 200 Said\r\ncontent-length: 2\r\n\r\no");
                return wait(&mut stream, &request, gone);
            }
            Act::Send(length) => {
                let head = format!("HTTP/1.1 200 Said\r\ncontent-length: {length}\r\n\r\n");
                stream.write_all(&[head.as_bytes(), &vec![b'x'; length]].concat())
            }
            Act::Cut => return,
        };
        if written.is_err() {
            return;
        }
    }
}

fn wait(stream: &mut TcpStream, request: &Request, gone: &Mutex<Vec<String>>) {
    let _limit = stream.set_read_timeout(Some(Duration::from_secs(120)));
    if matches!(stream.read(&mut [0; 64]), Ok(0)) {
        gone.lock().expect("no thread panicked").push(request.path().to_owned());
    }
}

fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, bytes)?;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    bytes.drain(..end);
    let line = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let mut request = Request { line, head: head.to_ascii_lowercase(), body: Vec::new() };
    if request.field("transfer-encoding") == Some("chunked") {
        loop {
            let line = loop {
                if let Some(at) = bytes.windows(2).position(|window| window == b"\r\n") {
                    break bytes.drain(..at + 2).collect::<Vec<u8>>();
                }
                more(stream, bytes)?;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
            take(stream, bytes, size, &mut request.body)?;
            take(stream, bytes, 2, &mut Vec::new())?;
            if size == 0 {
                return Some(request);
            }
        }
    }
    let length = request.field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    take(stream, bytes, length, &mut request.body)?;
    Some(request)
}

fn take(stream: &mut TcpStream, bytes: &mut Vec<u8>, count: usize, into: &mut Vec<u8>) -> Option<()> {
    while bytes.len() < count {
        more(stream, bytes)?;
    }
    into.extend(bytes.drain(..count));
    Some(())
}

fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 << 10];
    let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
    bytes.extend_from_slice(&buffer[..count]);
    Some(())
}
