//! Connections that come to rest, over real sockets.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body::Body as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;

const GET: &str = "GET /first HTTP/1.1\r\nHost: a\r\n\r\n";
const DEADLINE: Duration = Duration::from_secs(20);

/// A client, and the connection that it is served on.
struct Pair {
    client: TcpStream,
    phase: Phase,
    drain: Drain,
    served: JoinHandle<Result<(), HttpError>>,
}

impl Pair {
    async fn start(idle_timeout: Duration) -> Self {
        Self::with(idle_timeout, |request, _switch| text(request.uri().path())).await
    }

    async fn with<F>(idle_timeout: Duration, handle: F) -> Self
    where
        F: Fn(Request<Body>, Switch) -> Response<Body> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let transport = Transport::Accepted(Replay::new(listener.accept().await.unwrap().0));
        let (phase, drain) = (Phase::default(), Drain::default());
        let settings = ServerSettings {
            head_timeout: DEADLINE,
            idle_timeout,
            max_streams: 1,
            max_header_bytes: 64 << 10,
            max_headers: 100,
            age: None,
        };
        let (its_phase, its_drain) = (phase.clone(), drain.clone());
        let served = tokio::spawn(async move {
            let handle = |request, switch| {
                let (serving, answer) = (its_phase.begin(), handle(request, switch));
                async move {
                    drop(serving);
                    answer
                }
            };
            serve(transport, &settings, &its_phase, &its_drain, handle).await
        });
        Self { client, phase, drain, served }
    }

    async fn send(&mut self, bytes: &str) {
        self.client.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Reads one answer and returns its head and body.
    async fn answer(&mut self) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(DEADLINE, self.client.read_u8()).await.expect("an answer").unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).map_or("0", |rest| rest.lines().next().unwrap());
        let mut body = vec![0; length.parse().unwrap()];
        timeout(DEADLINE, self.client.read_exact(&mut body)).await.expect("a body").unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    async fn asks(&mut self, request: &str, body: &str) {
        self.send(request).await;
        assert_eq!(self.answer().await.1, body);
    }

    async fn rests(&self) {
        self.becomes(true).await;
    }

    async fn becomes(&self, at_rest: bool) {
        let until = Instant::now() + DEADLINE;
        while self.phase.is_at_rest() != at_rest {
            assert!(Instant::now() < until, "it never became at rest: {at_rest}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn is_closed(&mut self) {
        let mut rest = Vec::new();
        timeout(DEADLINE, self.client.read_to_end(&mut rest)).await.expect("an end").unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

fn text(text: &str) -> Response<Body> {
    Response::new(Body::full(text.to_owned()))
}

#[tokio::test]
async fn a_connection_at_rest_serves_its_next_request_each_time() {
    let mut pair = Pair::start(DEADLINE).await;
    pair.asks(GET, "/first").await;
    for _ in 0..2 {
        pair.rests().await;
        pair.asks("GET /next HTTP/1.1\r\nHost: a\r\n\r\n", "/next").await;
        assert!(!pair.phase.is_at_rest());
        pair.asks(GET, "/first").await;
    }
    drop(pair.client);
    assert!(pair.served.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_head_in_pieces_and_pipelined_requests_wake_it() {
    let mut pair = Pair::start(DEADLINE).await;
    pair.asks(GET, "/first").await;
    pair.rests().await;
    for piece in ["G", "ET /pieces HTT", "P/1.1\r\nHost: a\r\n"] {
        pair.send(piece).await;
        pair.becomes(false).await;
    }
    pair.asks("\r\n", "/pieces").await;
    pair.rests().await;
    pair.send(&format!("{GET}GET /second HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert_eq!((pair.answer().await.1, pair.answer().await.1), ("/first".to_owned(), "/second".to_owned()));
}

#[tokio::test]
async fn half_a_head_that_came_with_the_request_before_is_kept() {
    let mut pair = Pair::start(DEADLINE).await;
    pair.asks(&format!("{GET}GET /half HTTP/1.1\r\nHo"), "/first").await;
    // At rest for no longer than it takes to see that something had been read.
    tokio::time::sleep(Duration::from_secs(1)).await;
    pair.asks("st: a\r\n\r\n", "/half").await;
}

#[tokio::test]
async fn requests_that_arrive_about_when_it_comes_to_rest_are_served() {
    let mut pair = Pair::start(DEADLINE).await;
    for late in (480..=520).step_by(4) {
        pair.asks(GET, "/first").await;
        let (first, rest) = GET.split_at(9);
        tokio::time::sleep(Duration::from_millis(late)).await;
        pair.send(first).await;
        pair.asks(rest, "/first").await;
    }
}

#[tokio::test]
async fn it_ends_at_the_idle_deadline_and_not_before() {
    let idle = Duration::from_millis(1200);
    let mut pair = Pair::start(idle).await;
    pair.asks(GET, "/first").await;
    pair.rests().await;
    pair.asks(GET, "/first").await;
    let asked = Instant::now();
    pair.rests().await;
    pair.is_closed().await;
    assert!(asked.elapsed() >= idle - Duration::from_millis(50), "{:?}", asked.elapsed());
    assert!(pair.served.await.unwrap().is_ok());
}

#[tokio::test]
async fn it_ends_when_stopping_begins_unless_a_request_has_begun() {
    let mut pair = Pair::start(DEADLINE).await;
    pair.asks(GET, "/first").await;
    pair.rests().await;
    pair.drain.stop();
    pair.is_closed().await;
    assert!(pair.served.await.unwrap().is_ok());

    let mut pair = Pair::start(DEADLINE).await;
    pair.asks(GET, "/first").await;
    pair.rests().await;
    let (first, rest) = GET.split_at(9);
    pair.send(first).await;
    pair.becomes(false).await;
    pair.drain.stop();
    pair.send(rest).await;
    let (head, body) = pair.answer().await;
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert_eq!(body, "/first");
    pair.is_closed().await;
}

#[tokio::test]
async fn what_the_client_has_not_taken_yet_is_not_lost() {
    const SIZE: usize = 32 << 20;
    let mut pair = Pair::with(DEADLINE, |_request, _switch| text(&"x".repeat(SIZE))).await;
    pair.send(GET).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!pair.phase.is_at_rest());
    assert_eq!(pair.answer().await.1.len(), SIZE);
    pair.rests().await;
    pair.send(GET).await;
    assert_eq!(pair.answer().await.1.len(), SIZE);
}

#[tokio::test]
async fn a_body_that_goes_on_after_its_answer_is_not_lost() {
    let (sender, mut received) = unbounded_channel();
    let mut pair = Pair::with(DEADLINE, move |request, _switch| {
        tokio::spawn(collect(request.into_body(), sender.clone()));
        text("early")
    })
    .await;
    pair.asks("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n012", "early").await;
    pair.rests().await;
    pair.send("3456789").await;
    assert_eq!(timeout(DEADLINE, received.recv()).await.unwrap().unwrap(), b"0123456789");
    pair.is_closed().await;
}

async fn collect(body: Body, whole: UnboundedSender<Vec<u8>>) {
    let mut body = body;
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    whole.send(bytes).unwrap();
}

#[tokio::test]
async fn it_is_handed_over_when_the_protocol_changes_with_what_came_early() {
    let (sender, mut handed) = unbounded_channel();
    let mut pair = Pair::with(DEADLINE, move |request, switch| {
        let Switch::Accepted(connection) = switch else { return text("plain") };
        let mut response = Response::new(Body::default());
        if request.method() == Method::CONNECT || request.headers()["upgrade"] == "echo" {
            sender.send(connection).unwrap();
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
        }
        response
    })
    .await;
    pair.asks(GET, "plain").await;
    pair.asks("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: none\r\n\r\n", "").await;
    pair.rests().await;
    pair.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly").await;
    assert!(pair.answer().await.0.starts_with("http/1.1 101 "));
    let mut stream = timeout(DEADLINE, handed.recv().await.unwrap()).await.unwrap().unwrap();
    let mut early = [0; 5];
    stream.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early");
    stream.write_all(b"back").await.unwrap();
    drop(stream);
    let mut back = String::new();
    pair.client.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "back");
    assert!(pair.served.await.unwrap().is_ok());
}
