//! A body that is sent to one peer while others get copies of it, who never hold it up.
//!
//! Copies share the bytes themselves; what a copy has not sent yet is bounded, and when a slow receiver lets it grow
//! beyond that, the copy ends with an error and the original goes on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Body, BoxError};

/// What a frame costs besides its bytes, so that empty ones are not free.
const FRAME_COST: usize = 64;

/// A body, and those who get copies of its frames.
#[derive(Debug)]
pub(super) struct Tee {
    body: Body,
    copies: Vec<Original>,
    /// Bytes until the end, when that is known.
    left: Option<u64>,
}

/// The sending end of a copy.
#[derive(Debug)]
struct Original {
    frames: UnboundedSender<Option<Frame<Bytes>>>,
    level: Arc<Level>,
}

/// The receiving end of a copy.
#[derive(Debug)]
pub(super) struct Copy {
    /// `None` is the end.
    frames: UnboundedReceiver<Option<Frame<Bytes>>>,
    level: Arc<Level>,
    ended: bool,
}

/// How much of a copy waits to be sent.
#[derive(Debug, Default)]
pub struct Level {
    waiting: AtomicUsize,
    overflowed: Notify,
}

impl Level {
    /// Completes when the receiver was too slow. Who sends the copy may be stuck in the middle of it, and would not see.
    ///
    /// # Cancel safety
    /// May be dropped and called again, until it has completed.
    pub async fn overflowed(&self) {
        self.overflowed.notified().await;
    }
}

/// The body itself, and `copies` of it, each of which may lag behind by `limit` bytes. `length` is what the head says.
pub fn tee(body: Body, copies: usize, limit: usize, length: Option<u64>) -> (Body, Vec<(Body, Arc<Level>)>) {
    if body.is_empty() {
        return (body, (0..copies).map(|_| (Body::default(), Arc::default())).collect());
    }
    let left = length.or_else(|| body.size_hint().exact());
    let mut tee = Tee { body, copies: Vec::with_capacity(copies), left };
    let copies = (0..copies).map(|_| {
        let (sender, frames) = unbounded_channel();
        let level = Arc::new(Level::default());
        tee.copies.push(Original { frames: sender, level: Arc::clone(&level) });
        (Body::copied(Copy { frames, level: Arc::clone(&level), ended: false }), level)
    });
    let copies = copies.collect();
    (Body::teed(tee, limit), copies)
}

impl Tee {
    pub(super) fn poll_frame(
        &mut self,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.copies.retain(|copy| copy.push(frame, limit));
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.left = self.left.map(|left| left.saturating_sub(length));
                // Who sends a body need not ask again when it knows that this was all.
                if self.left == Some(0) || frame.is_trailers() || self.body.is_end_stream() {
                    self.end();
                }
            }
            Some(Err(_)) => self.copies.clear(),
            None => self.end(),
        }
        Poll::Ready(frame)
    }

    pub(super) fn inner(&self) -> &Body {
        &self.body
    }

    fn end(&mut self) {
        for copy in self.copies.drain(..) {
            let _gone = copy.frames.send(None);
        }
    }
}

impl Original {
    /// False: it is of no use any more.
    fn push(&self, frame: &Frame<Bytes>, limit: usize) -> bool {
        let (copy, cost) = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => (Frame::data(data.clone()), data.len() + FRAME_COST),
            (None, Some(trailers)) => (Frame::trailers(trailers.clone()), FRAME_COST),
            (None, None) => return true,
        };
        if self.level.waiting.fetch_add(cost, Ordering::Relaxed) + cost > limit {
            self.level.overflowed.notify_one();
            return false;
        }
        self.frames.send(Some(copy)).is_ok()
    }
}

impl Copy {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(self.frames.poll_recv(cx)) {
            Some(Some(frame)) => {
                let cost = frame.data_ref().map_or(0, Bytes::len) + FRAME_COST;
                self.level.waiting.fetch_sub(cost, Ordering::Relaxed);
                return Poll::Ready(Some(Ok(frame)));
            }
            Some(None) => None,
            None => Some(Err(io::Error::from(io::ErrorKind::ConnectionReset).into())),
        };
        self.ended = true;
        Poll::Ready(frame)
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;
    use tokio::sync::mpsc;

    use super::*;

    async fn next(body: &mut Body) -> Option<Result<Frame<Bytes>, BoxError>> {
        poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
    }

    fn fed(chunks: &[&'static str], end: bool) -> Body {
        let (sender, receiver) = mpsc::channel(16);
        for chunk in chunks {
            sender.try_send(Ok(Bytes::from_static(chunk.as_bytes()))).expect("room");
        }
        if !end {
            sender.try_send(Err(io::Error::from(io::ErrorKind::ConnectionReset).into())).expect("room");
        }
        Body::fed(receiver)
    }

    #[tokio::test]
    async fn copies_get_what_the_original_gets() {
        let (body, copies) = tee(fed(&["one,", "two"], true), 2, 4096, None);
        assert_eq!(body.collect().await.expect("whole").to_bytes(), "one,two");
        for (copy, level) in copies {
            assert_eq!(copy.collect().await.expect("whole").to_bytes(), "one,two");
            assert!(level.overflowed().now_or_never().is_none());
        }
    }

    #[tokio::test]
    async fn a_copy_of_what_was_cut_is_cut() {
        for (chunks, end, taken) in [(&["one"][..], false, 2), (&["one", "two"], true, 1)] {
            let (mut body, mut copies) = tee(fed(chunks, end), 1, 4096, None);
            for _ in 0..taken {
                drop(next(&mut body).await);
            }
            drop(body); // As when the client leaves.
            let (copy, _) = copies.remove(0);
            assert!(copy.collect().await.is_err());
        }
    }

    #[tokio::test]
    async fn a_known_length_ends_the_copy_although_nobody_asks_for_more() {
        let (mut body, mut copies) = tee(fed(&["12", "345"], true), 1, 4096, Some(5));
        drop((next(&mut body).await, next(&mut body).await));
        drop(body);
        assert_eq!(copies.remove(0).0.collect().await.expect("whole").to_bytes(), "12345");
    }

    #[tokio::test]
    async fn a_slow_copy_is_given_up_and_the_original_goes_on() {
        let (body, mut copies) = tee(fed(&["one", "two", "three"], true), 1, 2 * FRAME_COST + 6, None);
        assert_eq!(body.collect().await.expect("whole").to_bytes(), "onetwothree");
        let (copy, level) = copies.remove(0);
        assert!(level.overflowed().now_or_never().is_some());
        assert!(copy.collect().await.is_err());
    }
}
