//! Sending a body in an HTTP/2 stream.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::{Reason, SendStream};
use http_body::Body;
use tokio::task::AbortHandle;

use crate::http::BoxError;

/// A body that is being sent beside what else happens, until this is dropped: the stream is reset then.
#[derive(Debug)]
pub(super) struct Sending(Option<AbortHandle>);

impl Sending {
    /// Sends `body`. `None`: it is sent already.
    pub(super) fn start<B>(body: B, stream: SendStream<Bytes>) -> Option<Self>
    where
        B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        let mut sending = Box::pin(send_body(body, stream));
        if sending.as_mut().now_or_never().is_some() {
            return None;
        }
        Some(Self(Some(tokio::spawn(async move { drop(sending.await) }).abort_handle())))
    }

    /// Goes on by itself, until the body or the stream ends.
    pub(super) fn detach(&mut self) {
        self.0 = None;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Sends `body` and ends the stream; resets it when the body fails.
///
/// # Errors
/// When the peer resets the stream, or the connection is gone.
///
/// # Cancel safety
/// Dropped before its end, it resets the stream (CANCEL).
pub(super) async fn send_body<B>(body: B, mut stream: SendStream<Bytes>) -> Result<(), h2::Error>
where
    B: Body<Data = Bytes, Error = BoxError>,
{
    let mut body = pin!(body);
    loop {
        match next_frame(&mut stream, body.as_mut()).await? {
            None => return stream.send_data(Bytes::new(), true),
            Some(Err(error)) => {
                stream.send_reset(reason(&error));
                return Ok(());
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let is_last = body.is_end_stream();
                    if !data.is_empty() {
                        capacity(&mut stream).await?;
                    } else if !is_last {
                        continue; // Some peers count empty frames as an attack.
                    }
                    stream.send_data(data, is_last)?;
                    if is_last {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return stream.send_trailers(trailers);
                    }
                }
            },
        }
    }
}

/// The next frame; a peer that resets the stream is noticed also while there is none.
async fn next_frame<B>(
    stream: &mut SendStream<Bytes>,
    mut body: Pin<&mut B>,
) -> Result<Option<Result<http_body::Frame<Bytes>, BoxError>>, h2::Error>
where
    B: Body<Data = Bytes, Error = BoxError>,
{
    poll_fn(|cx| {
        if let Poll::Ready(reset) = stream.poll_reset(cx) {
            return Poll::Ready(Err(reset?.into()));
        }
        body.as_mut().poll_frame(cx).map(Ok)
    })
    .await
}

/// Waits until the peer takes at least a byte: no more than one chunk then waits in memory.
async fn capacity(stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    stream.reserve_capacity(1);
    poll_fn(|cx| {
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(Reason::CANCEL.into())),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// A body that was reset is reset onwards for the same reason.
fn reason(error: &BoxError) -> Reason {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason().unwrap_or(Reason::INTERNAL_ERROR);
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}
