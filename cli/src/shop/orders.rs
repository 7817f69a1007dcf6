//! Takes an order: asks inventory (gRPC), then payment (HTTP), then writes it into the ledger (TCP).

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, bail, ensure};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    CALL_DEADLINE, Receipt,
    inventory::Inventory,
    payment::Paid,
    serve::{self, Answer, Service},
};
use crate::client::Client;

/// Longest line that the ledger is expected to send back.
const LONGEST_LINE_BYTES: u64 = 1024;

/// The orders service.
#[derive(Debug)]
pub(super) struct Orders {
    mesh: Client,
    inventory: Inventory,
    ledger: SocketAddr,
    taken: AtomicU64,
}

impl Orders {
    /// Orders that reach others through these ports of the sidecar beside them.
    pub(super) fn new(outbound: SocketAddr, ledger: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self {
            mesh: Client::new(outbound, CALL_DEADLINE),
            inventory: Inventory::new(outbound)?,
            ledger,
            taken: AtomicU64::new(0),
        })
    }

    async fn take(&self) -> anyhow::Result<Receipt> {
        let stock = self.inventory.stock("saddle").await.context("inventory")?;
        let payment = self.pay().await.context("payment")?;
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        let line = format!("order {number}\n");
        let echo = timeout(CALL_DEADLINE, self.write_down(&line)).await;
        let ledger = echo.context("ledger: too late")?.context("ledger")?;
        let ledger_ms = start.elapsed().as_secs_f64() * 1000.0;
        Ok(Receipt { stock, payment, ledger, ledger_ms })
    }

    async fn pay(&self) -> anyhow::Result<String> {
        let reply = self.mesh.get("payment.shop", "/pay").await?;
        if !reply.is_success() {
            let reason = reply.reason.as_deref().unwrap_or("none");
            bail!("{} (reason {reason})", reply.status);
        }
        Ok(serde_json::from_slice::<Paid>(&reply.body)?.version)
    }

    /// Sends the line, ends, and expects it back, and the end.
    async fn write_down(&self, line: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.ledger).await?;
        stream.write_all(line.as_bytes()).await?;
        stream.shutdown().await?;
        let mut back = String::new();
        stream.take(LONGEST_LINE_BYTES).read_to_string(&mut back).await?;
        ensure!(back == line, "sent {line:?}, got {back:?}");
        Ok(back.trim_end().to_owned())
    }
}

impl Service for Orders {
    async fn answer(&self, _request: Request<Incoming>) -> Answer {
        match self.take().await {
            Ok(receipt) => serve::json(&receipt),
            Err(error) => serve::text(StatusCode::BAD_GATEWAY, &format!("{error:#}")),
        }
    }
}
