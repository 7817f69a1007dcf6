//! A body that comes in an HTTP/2 stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::Frame;

use super::send::Sending;
use crate::http::BoxError;

/// Data, then trailers. Window is given back as data is taken out.
#[derive(Debug)]
pub struct Receive {
    stream: RecvStream,
    data_ended: bool,
    /// The body of the request that this answers.
    sending: Option<Sending>,
}

impl Receive {
    pub(super) fn new(stream: RecvStream, sending: Option<Sending>) -> Self {
        Self { stream, data_ended: false, sending }
    }

    /// Nothing more will come.
    pub fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// As [`http_body::Body::poll_frame`].
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It fails when the stream is over, and then nobody waits for window.
                    let _over = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(failure(error)),
                None => self.data_ended = true,
            }
        }
        match ready!(Pin::new(&mut self.stream).poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(failure(error)),
        }
    }
}

impl Drop for Receive {
    /// An answer that came to its end says nothing about the request, which is sent on; to give one up ends both.
    fn drop(&mut self) {
        if let Some(sending) = self.sending.as_mut().filter(|_| self.stream.is_end_stream()) {
            sending.detach();
        }
    }
}

/// A reset with `NO_ERROR` says that the rest is not needed (RFC 9113, section 8.1).
fn failure(error: h2::Error) -> Option<Result<Frame<Bytes>, BoxError>> {
    (error.reason() != Some(Reason::NO_ERROR)).then(|| Err(error.into()))
}
