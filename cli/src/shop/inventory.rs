//! Knows what is in stock: `shop.Inventory/Stock`, one gRPC method, client and server written by hand in the shape that
//! a code generator would give them.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::Service,
    server::{Grpc, NamedService, UnaryService},
    transport::{Channel, Endpoint, Server, Uri},
};
use tonic_prost::ProstCodec;

use super::CALL_DEADLINE;

const METHOD: &str = "/shop.Inventory/Stock";
/// How many pieces there are of everything.
const PIECES: u32 = 12;

/// What is asked for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct StockRequest {
    #[prost(string, tag = "1")]
    article: String,
}

/// How many there are.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct StockResponse {
    #[prost(uint32, tag = "1")]
    pieces: u32,
}

/// The client.
#[derive(Debug)]
pub(super) struct Inventory {
    channel: Channel,
}

impl Inventory {
    /// A client that reaches `inventory.shop:50051` through this outbound port.
    pub(super) fn new(outbound: SocketAddr) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{outbound}"))?;
        let endpoint = endpoint.origin(Uri::from_static("http://inventory.shop:50051")).timeout(CALL_DEADLINE);
        Ok(Self { channel: endpoint.connect_lazy() })
    }

    /// How many pieces of an article there are.
    pub(super) async fn stock(&self, article: &str) -> anyhow::Result<u32> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await?;
        let request = Request::new(StockRequest { article: article.to_owned() });
        let codec = ProstCodec::<StockRequest, StockResponse>::default();
        let response = grpc.unary(request, PathAndQuery::from_static(METHOD), codec).await?;
        Ok(response.into_inner().pieces)
    }
}

/// Serves for ever.
pub(super) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let connections = TcpListenerStream::new(listener);
    Server::builder().add_service(InventoryServer).serve_with_incoming(connections).await?;
    Ok(())
}

#[derive(Debug, Clone, Copy)]
struct InventoryServer;

impl NamedService for InventoryServer {
    const NAME: &'static str = "shop.Inventory";
}

impl Service<http::Request<Body>> for InventoryServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("shop.Inventory has one method, Stock").into_http());
            }
            let codec = ProstCodec::<StockResponse, StockRequest>::default();
            Ok(Grpc::new(codec).unary(Stock, request).await)
        })
    }
}

#[derive(Debug)]
struct Stock;

impl UnaryService<StockRequest> for Stock {
    type Response = StockResponse;
    type Future = Ready<Result<Response<StockResponse>, Status>>;

    fn call(&mut self, _request: Request<StockRequest>) -> Self::Future {
        ready(Ok(Response::new(StockResponse { pieces: PIECES })))
    }
}
