//! How the control plane asks sidecars: one long stream that the sidecar opens.
//!
//! ```text
//! service Observe { rpc Connect(stream Report) returns (stream Ask); }   // package pillion.observe.v1
//! ```
//! A sidecar's admin port is on a localhost of its own, which nobody else can reach. So the sidecar, on the connection
//! that carries its xDS stream, opens a stream by which it is asked: [`Ask`] comes, [`Report`] goes. The first report is
//! a [`Hello`] with the node of the xDS stream, believed under the same conditions. Written by hand, as [`crate::ca`] is.
//!
//! Messages grow by new fields: whoever does not know one ignores it. A control plane that does not know the service at
//! all answers `UNIMPLEMENTED`.

pub mod client;
mod request;
pub mod server;
mod state;

use serde::{Deserialize, Serialize};

pub use request::{MOST_FIELDS, TapError, is_sensitive};
pub use state::{Certificate, Configuration, Rejected, Sidecars, State, Summary};

use crate::xds::core::Node;

/// Full name of the service.
pub const SERVICE_NAME: &str = "pillion.observe.v1.Observe";
/// Path of its only method.
pub const CONNECT_PATH: &str = "/pillion.observe.v1.Observe/Connect";
/// Longest message either way, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// A page is sent in pieces of at most this many bytes.
pub const PIECE_BYTES: usize = 128 << 10;
/// Longest page, in bytes; a longer one is refused.
pub const MAX_PAGE_BYTES: usize = 16 << 20;
/// Taps that one sidecar serves, and one control plane, at a time.
pub const MOST_TAPS: usize = 16;

/// What a sidecar says.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Report {
    /// One of it.
    #[prost(oneof = "report::What", tags = "1, 2, 3, 4")]
    pub what: Option<report::What>,
}

/// Kinds of [`Report`].
pub mod report {
    /// One of them.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum What {
        /// Who opens the stream. The first report, and only that.
        #[prost(message, tag = "1")]
        Hello(super::Hello),
        /// A piece of a page.
        #[prost(message, tag = "2")]
        Piece(super::Piece),
        /// Requests that a tap saw.
        #[prost(message, tag = "3")]
        Tapped(super::Tapped),
        /// What was asked is not done.
        #[prost(message, tag = "4")]
        Refused(super::Refused),
    }
}

/// Who opens the stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// As on the xDS stream.
    #[prost(message, optional, boxed, tag = "1")]
    pub node: Option<Box<Node>>,
}

/// A piece of a page of the sidecar's admin port.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Piece {
    /// Of the [`Ask`].
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// HTTP status, of the whole page.
    #[prost(uint32, tag = "2")]
    pub status: u32,
    /// Content type, of the whole page.
    #[prost(string, tag = "3")]
    pub content_type: String,
    /// At most [`PIECE_BYTES`].
    #[prost(bytes = "vec", tag = "4")]
    pub bytes: Vec<u8>,
    /// Is it the last one?
    #[prost(bool, tag = "5")]
    pub last: bool,
}

/// Requests that a tap saw.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tapped {
    /// Of the [`Ask`].
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// In the order in which they ended.
    #[prost(message, repeated, tag = "2")]
    pub events: Vec<TapEvent>,
    /// How many matched since the last message and are not here, since there were too many.
    #[prost(uint64, tag = "3")]
    pub lost: u64,
}

/// What was asked is not done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refused {
    /// Of the [`Ask`].
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// For a person.
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// What a control plane wants.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ask {
    /// Chosen by the control plane, new for each.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// One of it.
    #[prost(oneof = "ask::What", tags = "2, 3, 4")]
    pub what: Option<ask::What>,
}

/// Kinds of [`Ask`].
pub mod ask {
    /// One of them.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum What {
        /// A page of the admin port, by GET.
        #[prost(message, tag = "2")]
        Page(super::Page),
        /// Requests from now on, until it is cancelled.
        #[prost(message, tag = "3")]
        Tap(super::TapRequest),
        /// No longer wanted.
        #[prost(message, tag = "4")]
        Cancel(super::Cancel),
    }
}

/// A page of the sidecar's admin port.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Page {
    /// Such as `/config_dump`.
    #[prost(string, tag = "1")]
    pub path: String,
    /// What follows the `?`, percent-encoded.
    #[prost(string, tag = "2")]
    pub query: String,
}

/// No longer wanted: the [`Ask`] with the same id.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Cancel {}

/// Which requests are wanted, and how much of them. Fields that are empty or zero let everything through.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TapRequest {
    /// Who is called: see [`TapRequest::parse`].
    #[prost(string, tag = "1")]
    pub to: String,
    /// Who calls.
    #[prost(string, tag = "2")]
    pub from: String,
    /// Name of the route; a `*` at its end stands for anything.
    #[prost(string, tag = "3")]
    pub route: String,
    /// Status codes, any of them.
    #[prost(message, repeated, tag = "4")]
    pub statuses: Vec<StatusRange>,
    /// Took at least this long, in microseconds.
    #[prost(uint64, tag = "5")]
    pub slower_micros: u64,
    /// HTTP method, or `TCP`.
    #[prost(string, tag = "6")]
    pub method: String,
    /// Beginning of the path.
    #[prost(string, tag = "7")]
    pub path: String,
    /// Reason codes, any of them; `*`: any at all.
    #[prost(string, repeated, tag = "8")]
    pub reasons: Vec<String>,
    /// `outbound`, `inbound`, or both when empty.
    #[prost(string, tag = "9")]
    pub direction: String,
    /// Of a million requests that match, so many by chance; 0: all.
    #[prost(uint32, tag = "10")]
    pub sample: u32,
    /// Are names of request header fields wanted?
    #[prost(bool, tag = "11")]
    pub field_names: bool,
    /// Fields whose values are wanted, in lower case. Never sensitive ones.
    #[prost(string, repeated, tag = "12")]
    pub field_values: Vec<String>,
}

/// Status codes, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct StatusRange {
    /// The first.
    #[prost(uint32, tag = "1")]
    pub first: u32,
    /// The last.
    #[prost(uint32, tag = "2")]
    pub last: u32,
}

/// One request (or TCP connection) that ended, as one of its two sidecars saw it. Texts are cut; there is never a query,
/// nor the value of a header field that was not asked for by its name.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct TapEvent {
    /// When it ended, in milliseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub time_ms: u64,
    /// Who saw it: `<namespace>/<workload>`.
    #[prost(string, tag = "2")]
    pub workload: String,
    /// `outbound`: the caller's sidecar; `inbound`: the other one.
    #[prost(string, tag = "3")]
    pub direction: String,
    /// HTTP method, or `TCP`.
    #[prost(string, tag = "4")]
    pub method: String,
    /// Host and port that were asked for, without user information.
    #[prost(string, tag = "5")]
    pub authority: String,
    /// Path without query.
    #[prost(string, tag = "6")]
    pub path: String,
    /// `HTTP/1.1`, `HTTP/2`, `TCP`.
    #[prost(string, tag = "7")]
    pub protocol: String,
    /// HTTP status; 0 without one.
    #[prost(uint32, tag = "8")]
    pub response_code: u32,
    /// Reason code of the proxy; empty when all went well.
    #[prost(string, tag = "9")]
    pub reason: String,
    /// Envoy's response flag; empty when all went well.
    #[prost(string, tag = "10")]
    pub response_flags: String,
    /// Destination as the control plane knows it.
    #[prost(string, tag = "11")]
    pub destination: String,
    /// Name of the route.
    #[prost(string, tag = "12")]
    pub route_name: String,
    /// Name of the cluster.
    #[prost(string, tag = "13")]
    pub upstream_cluster: String,
    /// Address that it was sent to.
    #[prost(string, tag = "14")]
    pub upstream_host: String,
    /// Address that it came from.
    #[prost(string, tag = "15")]
    pub downstream_remote_address: String,
    /// SPIFFE id of the other end.
    #[prost(string, tag = "16")]
    pub peer: String,
    /// `mutual` or `none`, towards that other end.
    #[prost(string, tag = "17")]
    pub tls: String,
    /// Hosts tried.
    #[prost(uint32, tag = "18")]
    pub attempts: u32,
    /// From the request's head to its end.
    #[prost(double, tag = "19")]
    pub duration_ms: f64,
    /// Bytes of response body.
    #[prost(uint64, tag = "20")]
    pub bytes_sent: u64,
    /// Bytes of request content, or of tunnelled data, received.
    #[prost(uint64, tag = "21")]
    pub bytes_received: u64,
    /// Fields of the request's head, when they are wanted.
    #[prost(message, repeated, tag = "22")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_headers: Vec<Field>,
    /// The trace that it belongs to, in 32 hexadecimal digits; empty for none.
    #[prost(string, tag = "23")]
    pub trace_id: String,
}

/// A header field.
#[derive(Clone, PartialEq, Eq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Field {
    /// In lower case.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Only of a field that was asked for.
    #[prost(string, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use tonic::codegen::tokio_stream::{iter, once};
    use tonic::{Code, Request, Response, Status, Streaming};

    use super::client::ObserveClient;
    use super::server::{Asks, Observe, ObserveServer};
    use super::*;

    /// Asks for one page of whoever says who it is.
    struct Once;

    #[tonic::async_trait]
    impl Observe for Once {
        async fn connect(&self, reports: Request<Streaming<Report>>) -> Result<Response<Asks>, Status> {
            match reports.into_inner().message().await?.and_then(|report| report.what) {
                Some(report::What::Hello(hello)) => {
                    let path = hello.node.unwrap_or_default().id;
                    let page = ask::What::Page(Page { path, query: String::new() });
                    Ok(Response::new(Box::pin(once(Ok(Ask { id: 1, what: Some(page) })))))
                }
                _ => Err(Status::invalid_argument("no hello")),
            }
        }
    }

    async fn first(reports: Vec<Report>) -> Result<Option<Ask>, Code> {
        let mut client = ObserveClient::new(ObserveServer::new(Once));
        let asks = client.connect(iter(reports)).await.map_err(|status| status.code())?;
        asks.into_inner().message().await.map_err(|status| status.code())
    }

    #[tokio::test]
    async fn client_and_server_understand_each_other() {
        let node = Node { id: "shop/orders".to_owned(), ..Node::default() };
        let hello = report::What::Hello(Hello { node: Some(Box::new(node)) });
        let asked = first(vec![Report { what: Some(hello) }]).await.unwrap().and_then(|ask| ask.what);
        let wanted = Page { path: "shop/orders".to_owned(), query: String::new() };
        assert_eq!(asked, Some(ask::What::Page(wanted)));
        assert_eq!(first(Vec::new()).await, Err(Code::InvalidArgument));
    }

    /// What an earlier control plane says, which sidecars take to mean that they are not asked.
    #[tokio::test]
    async fn whoever_does_not_know_the_service_says_so() {
        let mut server = ObserveServer::new(Once);
        let request =
            http::Request::post("/pillion.observe.v1.Observe/Other").body(tonic::body::Body::empty()).unwrap();
        let response = tonic::codegen::Service::call(&mut server, request).await.unwrap();
        assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), Code::Unimplemented);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Report::decode(&*bytes);
            let _ = Ask::decode(&*bytes);
        }

        #[test]
        fn events_round_trip_as_protobuf_and_as_json(path in ".{0,40}", status in any::<u16>(), name in "[a-z-]{1,9}") {
            let event = TapEvent {
                path,
                response_code: status.into(),
                request_headers: vec![Field { name, value: None }],
                ..TapEvent::default()
            };
            prop_assert_eq!(TapEvent::decode(&*event.encode_to_vec()), Ok(event.clone()));
            let text = serde_json::to_string(&event).unwrap();
            prop_assert_eq!(serde_json::from_str::<TapEvent>(&text).unwrap(), event);
        }
    }
}
