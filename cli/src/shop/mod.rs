//! The demo's shop: ordinary small services that know nothing of a mesh but the address of the sidecar beside them.
//!
//! ```text
//! shopper -> web -> orders -> inventory  (gRPC)
//!                          -> payment    (HTTP, versions v1 and v2)
//!                          -> ledger     (TCP, echo)
//! ```
//!
//! One process per role. Each says on standard output where it listens, serves until SIGTERM, and dies with the demo.

mod inventory;
mod ledger;
mod orders;
mod payment;
mod serve;
mod web;

use std::{io::Write as _, net::SocketAddr, time::Duration};

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// How long a service of the shop waits for another.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// A service of the shop.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// The front end: calls orders over HTTP.
    Web {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
        /// Its sidecar's outbound HTTP port.
        #[arg(long)]
        outbound: SocketAddr,
    },
    /// Takes orders: calls inventory, payment and ledger.
    Orders {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
        /// Its sidecar's outbound HTTP port.
        #[arg(long)]
        outbound: SocketAddr,
        /// Its sidecar's local TCP port that leads to the ledger.
        #[arg(long)]
        ledger: SocketAddr,
    },
    /// Knows what is in stock: a gRPC server.
    Inventory {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Takes the money: an HTTP server that says its version.
    Payment {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
        /// What it says.
        #[arg(long)]
        version: String,
    },
    /// Writes it down: a TCP server that sends every byte back.
    Ledger {
        /// Where it listens.
        #[arg(long)]
        listen: SocketAddr,
    },
}

/// What orders, and in front of it web, answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    /// Number of pieces that inventory had.
    pub(crate) stock: u32,
    /// The version of payment that took the money.
    pub(crate) payment: String,
    /// What the ledger sent back.
    pub(crate) ledger: String,
    /// How long the ledger took, connection included, in milliseconds.
    pub(crate) ledger_ms: f64,
}

/// Plays one role until SIGTERM.
pub(crate) fn run(role: Role) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            outcome = play(role) => outcome,
            _ = terminated.recv() => Ok(()),
        }
    })
}

async fn play(role: Role) -> anyhow::Result<()> {
    match role {
        Role::Web { listen, outbound } => serve::http(bind(listen).await?, web::Web::new(outbound)).await,
        Role::Orders { listen, outbound, ledger } => {
            let orders = orders::Orders::new(outbound, ledger)?;
            serve::http(bind(listen).await?, orders).await
        }
        Role::Inventory { listen } => inventory::serve(bind(listen).await?).await,
        Role::Payment { listen, version } => serve::http(bind(listen).await?, payment::Payment::new(version)).await,
        Role::Ledger { listen } => ledger::serve(bind(listen).await?).await,
    }
}

async fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    use anyhow::Context as _;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let ready = serde_json::json!({ "event": "ready", "listen": listener.local_addr()?.to_string() });
    writeln!(std::io::stdout(), "{ready}")?;
    Ok(listener)
}
