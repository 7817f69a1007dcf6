//! One ADS stream: opened, fed with requests, read. What it carries is `delta`'s business.

use std::pin::Pin;

use futures_util::stream;
use pillion_wire::xds::discovery::{AggregatedDiscoveryServiceClient, DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::bootstrap::Bootstrap;
use crate::identity::Identity;
use crate::identity::credentials::{Credentials, CredentialsError};
use crate::tls::control::{self, ControlError};

/// Largest response that is taken. 10,000 endpoints are about 2 MiB.
const MAX_RESPONSE_BYTES: usize = 16 << 20;
/// Requests that may wait for the server's flow control.
const REQUESTS_IN_FLIGHT: usize = 16;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the join token holds characters that HTTP does not allow")]
    Token(#[from] InvalidMetadataValue),
}

/// A stream that is open, or about to be: its first request may be what the server waits for to answer.
pub(crate) struct AdsStream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Responses,
    line: Line,
}

/// The connection below a stream, for other streams, and what proves there who we are.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The connection.
    pub(crate) channel: Channel,
    /// Goes with each call.
    pub(crate) metadata: MetadataMap,
}

enum Responses {
    Opening(Pin<Box<dyn Future<Output = Result<Streaming<DeltaDiscoveryResponse>, Status>> + Send>>),
    Open(Box<Streaming<DeltaDiscoveryResponse>>),
}

/// What comes from the server.
#[derive(Debug)]
pub(crate) enum Event {
    /// It accepted the stream.
    Opened,
    /// It has news.
    Response(Box<DeltaDiscoveryResponse>),
    /// It closed the stream in good order.
    Closed,
}

/// Connects and begins a stream, as `identity` once there is one, else with the join token.
///
/// `failures` counts the streams in a row that came to nothing: after an odd number the token is tried.
///
/// # Cancel safety
/// Dropping the future closes what was opened.
pub(crate) async fn open(
    bootstrap: &Bootstrap,
    identity: Option<&Identity>,
    failures: u32,
) -> Result<AdsStream, OpenError> {
    let Credentials { roots, proof } = Credentials::load(bootstrap, identity, failures)?;
    let channel = control::connect(&bootstrap.control_plane.address, &bootstrap.id, roots, proof.certificate()).await?;
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES);
    let (requests, queue) = mpsc::channel(REQUESTS_IN_FLIGHT);
    let queue = stream::unfold(queue, |mut queue| async { queue.recv().await.map(|request| (request, queue)) });
    let mut request = Request::new(queue);
    proof.authorize(request.metadata_mut())?;
    let line = Line { channel, metadata: request.metadata().clone() };
    let opening = async move { client.delta_aggregated_resources(request).await.map(tonic::Response::into_inner) };
    Ok(AdsStream { requests, responses: Responses::Opening(Box::pin(opening)), line })
}

impl AdsStream {
    /// A way to send requests that does not borrow the stream.
    pub(crate) fn sender(&self) -> mpsc::Sender<DeltaDiscoveryRequest> {
        self.requests.clone()
    }

    /// The connection below.
    pub(crate) fn line(&self) -> Line {
        self.line.clone()
    }

    /// What comes next from the server.
    ///
    /// # Errors
    /// The status that ended the stream.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Event, Status> {
        match &mut self.responses {
            Responses::Opening(opening) => {
                let opened = opening.as_mut().await;
                self.responses = Responses::Open(Box::new(opened?));
                Ok(Event::Opened)
            }
            Responses::Open(responses) => match responses.message().await? {
                Some(response) => Ok(Event::Response(Box::new(response))),
                None => Ok(Event::Closed),
            },
        }
    }
}
