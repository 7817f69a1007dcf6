//! A request body that can be sent again: it is passed on as it comes, and kept up to a limit.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;

use super::{Body, BoxError};

/// A body, and what has been read of it.
#[derive(Debug)]
pub struct Repeat {
    shared: Arc<Mutex<Shared>>,
    exact: Option<u64>,
}

#[derive(Debug)]
struct Shared {
    body: Body,
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// The body has been read to its end.
    complete: bool,
    /// Bytes that may still be kept; `None`: there were more, and none are kept any longer.
    room: Option<usize>,
    /// It failed: no reader can have all of it.
    failed: bool,
    /// Of the readers only the last may read.
    reader: u32,
}

/// Reads the body from its beginning.
#[derive(Debug)]
pub(super) struct Reader {
    shared: Arc<Mutex<Shared>>,
    number: u32,
    at: usize,
    trailers_sent: bool,
    exact: Option<u64>,
}

impl Repeat {
    /// Keeps up to `limit` bytes of `body`.
    pub fn new(body: Body, limit: usize) -> Self {
        let exact = body.size_hint().exact();
        let shared = Shared {
            complete: body.is_end_stream(),
            body,
            chunks: Vec::new(),
            trailers: None,
            room: Some(limit),
            failed: false,
            reader: 0,
        };
        Self { shared: Arc::new(Mutex::new(shared)), exact }
    }

    /// The whole body, if [`Self::is_whole`]. Readers from before get an error instead of more.
    pub fn reader(&self) -> Body {
        let mut shared = self.shared.lock();
        if shared.complete && shared.chunks.is_empty() && shared.trailers.is_none() && shared.room.is_some() {
            return Body::default();
        }
        shared.reader += 1;
        let number = shared.reader;
        drop(shared);
        Body::repeated(Reader {
            shared: Arc::clone(&self.shared),
            number,
            at: 0,
            trailers_sent: false,
            exact: self.exact,
        })
    }

    /// All that was read is kept, so that the body can be sent again.
    pub fn is_whole(&self) -> bool {
        let shared = self.shared.lock();
        shared.room.is_some() && !shared.failed
    }
}

impl Shared {
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.complete = true,
            Some(Err(_)) => self.failed = true,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(trailers.clone());
                    self.complete = true;
                }
            }
        }
        Poll::Ready(frame)
    }

    fn keep(&mut self, data: &Bytes) {
        self.room = self.room.and_then(|room| room.checked_sub(data.len()));
        if self.room.is_some() {
            self.chunks.push(data.clone());
        } else {
            self.chunks = Vec::new();
        }
    }
}

impl Reader {
    /// As [`http_body::Body::poll_frame`].
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut shared = self.shared.lock();
        if shared.reader != self.number {
            return Poll::Ready(Some(Err("the request is being sent again".into())));
        }
        if let Some(chunk) = shared.chunks.get(self.at) {
            self.at += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if shared.complete {
            let trailers = shared.trailers.clone().filter(|_| !self.trailers_sent);
            self.trailers_sent = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(shared.poll_more(cx));
        self.at = shared.chunks.len();
        self.trailers_sent = shared.trailers.is_some();
        Poll::Ready(frame)
    }

    /// As [`http_body::Body::is_end_stream`].
    pub(super) fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock();
        let is_read = shared.complete || shared.body.is_end_stream();
        is_read && self.at >= shared.chunks.len() && (shared.trailers.is_none() || self.trailers_sent)
    }

    /// As [`http_body::Body::size_hint`], before the first frame.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self.exact {
            Some(exact) if self.at == 0 => SizeHint::with_exact(exact),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::sync::mpsc;

    use super::*;

    async fn read(body: Body) -> Result<Vec<u8>, BoxError> {
        Ok(body.collect().await?.to_bytes().to_vec())
    }

    fn fed(chunks: &[&'static str]) -> Body {
        let (sender, receiver) = mpsc::channel(chunks.len().max(1));
        for chunk in chunks {
            sender.try_send(Ok(Bytes::from_static(chunk.as_bytes()))).expect("room");
        }
        Body::fed(receiver)
    }

    #[tokio::test]
    async fn a_body_within_the_limit_is_the_same_each_time() {
        let repeat = Repeat::new(fed(&["one ", "two ", "three"]), 13);
        for _ in 0..3 {
            assert_eq!(read(repeat.reader()).await.expect("whole"), b"one two three");
            assert!(repeat.is_whole());
        }
        let empty = Repeat::new(Body::default(), 0);
        assert!(empty.reader().is_empty() && empty.is_whole());
    }

    #[tokio::test]
    async fn a_larger_body_passes_once_and_nothing_of_it_is_kept() {
        let repeat = Repeat::new(fed(&["one ", "two ", "three"]), 12);
        assert_eq!(read(repeat.reader()).await.expect("whole"), b"one two three");
        assert!(!repeat.is_whole());
        assert!(repeat.shared.lock().chunks.is_empty());
    }

    #[tokio::test]
    async fn what_was_read_of_it_comes_first_and_then_the_rest() {
        let (sender, receiver) = mpsc::channel(2);
        let repeat = Repeat::new(Body::fed(receiver), 100);
        sender.send(Ok(Bytes::from_static(b"begun "))).await.expect("open");
        let mut first = repeat.reader();
        let frame = first.frame().await.expect("a frame").expect("no error");
        assert_eq!(frame.into_data().expect("data"), "begun ");
        let second = repeat.reader();
        assert!(first.frame().await.expect("a frame").is_err(), "it may take nothing from the second");
        sender.send(Ok(Bytes::from_static(b"ended"))).await.expect("open");
        drop(sender);
        assert_eq!(read(second).await.expect("whole"), b"begun ended");
    }

    #[tokio::test]
    async fn a_body_that_fails_is_not_whole() {
        let (sender, receiver) = mpsc::channel(1);
        let repeat = Repeat::new(Body::fed(receiver), 100);
        sender.send(Err("gone".into())).await.expect("open");
        assert!(read(repeat.reader()).await.is_err());
        assert!(!repeat.is_whole());
    }

    #[tokio::test]
    async fn its_length_is_known_when_the_original_s_was() {
        let repeat = Repeat::new(Body::full("four"), 3);
        assert_eq!(repeat.reader().size_hint().exact(), Some(4));
        assert_eq!(Repeat::new(fed(&["x"]), 3).reader().size_hint().exact(), None);
    }
}
