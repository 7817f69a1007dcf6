//! The front end: passes an order on to `orders.shop` and shows the receipt.

use std::net::SocketAddr;

use http::{Request, StatusCode};
use hyper::body::Incoming;

use super::{
    CALL_DEADLINE,
    serve::{self, Answer, Service},
};
use crate::client::Client;

/// The front end.
#[derive(Debug)]
pub(super) struct Web {
    mesh: Client,
}

impl Web {
    /// A front end that reaches others through this outbound port.
    pub(super) const fn new(outbound: SocketAddr) -> Self {
        Self { mesh: Client::new(outbound, CALL_DEADLINE) }
    }
}

impl Service for Web {
    async fn answer(&self, _request: Request<Incoming>) -> Answer {
        match self.mesh.get("orders.shop", "/order").await {
            Ok(reply) if reply.is_success() => match serde_json::from_slice::<super::Receipt>(&reply.body) {
                Ok(receipt) => serve::json(&receipt),
                Err(error) => serve::text(StatusCode::BAD_GATEWAY, &format!("orders: no receipt: {error}")),
            },
            Ok(reply) => {
                let reason = reply.reason.as_deref().unwrap_or("none");
                let said = format!("orders: {} (reason {reason}): {}", reply.status, reply.text());
                serve::text(StatusCode::BAD_GATEWAY, &said)
            }
            Err(error) => serve::text(StatusCode::BAD_GATEWAY, &format!("orders: {error}")),
        }
    }
}
