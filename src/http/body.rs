//! One body type for everything that we send.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::repeat::Reader;
use super::tee::{Copy, Tee};
use super::{Activity, Receive};
use crate::telemetry::{Flow, Messages};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body to send: passed through from a peer, made by us, or fed by a tunnel.
#[derive(Debug, Default)]
pub struct Body(Kind);

#[derive(Debug, Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Http1(Incoming),
    Http2(Receive),
    Fed(mpsc::Receiver<Result<Bytes, BoxError>>),
    Teed(Box<Tee>, usize),
    Copied(Box<Copy>),
    Repeat(Reader),
    Watched(Box<Body>, Activity),
    Counted(Box<Body>, Flow, Option<Messages>),
}

impl Body {
    /// Just these bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Full(bytes.into()))
    }

    /// What arrives on `source`; it ends when all senders are dropped, and fails with an error that is sent.
    pub fn fed(source: mpsc::Receiver<Result<Bytes, BoxError>>) -> Self {
        Self(Kind::Fed(source))
    }

    /// With copies, each of which may lag behind by `limit` bytes.
    pub(super) fn teed(tee: Tee, limit: usize) -> Self {
        Self(Kind::Teed(Box::new(tee), limit))
    }

    /// A copy of another body.
    pub(super) fn copied(copy: Copy) -> Self {
        Self(Kind::Copied(Box::new(copy)))
    }

    /// One that is read again.
    pub(super) fn repeated(reader: Reader) -> Self {
        Self(Kind::Repeat(reader))
    }

    /// The same, which notes when something of it is taken.
    #[must_use]
    pub fn watched(self, activity: &Activity) -> Self {
        if self.is_empty() { self } else { Self(Kind::Watched(Box::new(self), activity.clone())) }
    }

    /// The same, of which it is counted what is taken; messages of gRPC too, if it is made of them.
    #[must_use]
    pub fn counted(self, flow: &Flow, is_grpc: bool) -> Self {
        Self(Kind::Counted(Box::new(self), flow.clone(), is_grpc.then(Messages::default)))
    }

    /// True when there is nothing to send: such a request can be sent again.
    pub fn is_empty(&self) -> bool {
        http_body::Body::is_end_stream(self)
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        Self(Kind::Http1(incoming))
    }
}

impl From<Receive> for Body {
    fn from(receive: Receive) -> Self {
        Self(Kind::Http2(receive))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Kind::Http2(receive) => receive.poll_frame(cx),
            Kind::Http1(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            Kind::Fed(source) => source.poll_recv(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
            Kind::Teed(tee, limit) => tee.poll_frame(*limit, cx),
            Kind::Copied(copy) => copy.poll_frame(cx),
            Kind::Repeat(reader) => reader.poll_frame(cx),
            Kind::Watched(body, activity) => {
                let polled = Pin::new(body.as_mut()).poll_frame(cx);
                if polled.is_ready() {
                    activity.touch();
                }
                polled
            }
            Kind::Counted(body, flow, messages) => {
                let polled = Pin::new(body.as_mut()).poll_frame(cx);
                if let Poll::Ready(Some(Ok(frame))) = &polled
                    && let Some(data) = frame.data_ref()
                {
                    flow.add(data.len(), messages.as_mut().map_or(0, |messages| messages.begin_in(data)));
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Http1(incoming) => incoming.is_end_stream(),
            Kind::Http2(receive) => receive.is_end_stream(),
            Kind::Fed(_) => false,
            Kind::Teed(tee, _) => tee.inner().is_end_stream(),
            Kind::Copied(copy) => copy.ended(),
            Kind::Repeat(reader) => reader.is_end_stream(),
            Kind::Watched(body, _) | Kind::Counted(body, ..) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Http1(incoming) => incoming.size_hint(),
            Kind::Http2(receive) if receive.is_end_stream() => SizeHint::with_exact(0),
            Kind::Teed(tee, _) => tee.inner().size_hint(),
            Kind::Http2(_) | Kind::Fed(_) | Kind::Copied(_) => SizeHint::default(),
            Kind::Repeat(reader) => reader.size_hint(),
            Kind::Watched(body, _) | Kind::Counted(body, ..) => body.size_hint(),
        }
    }
}
