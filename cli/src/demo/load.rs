//! The bounded load: customers at a constant rate, through the shopper's sidecar.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{client::Client, shop::Receipt};

const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Requests in flight; when all are taken the load waits, so a slow shop is not buried.
const IN_FLIGHT: usize = 64;
/// Failures kept with their time and cause.
const KEPT_FAILURES: usize = 1000;

/// What the customers saw.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    /// Requests that ended.
    pub(super) requests: u64,
    /// Those of them that were not answered with a receipt.
    pub(super) failed: u64,
    /// When and why, the first thousand.
    pub(super) failures: Vec<(Instant, String)>,
    /// How long the ledger took, in milliseconds.
    pub(super) ledger_ms: Vec<f64>,
    /// Receipts by version of payment.
    pub(super) versions: BTreeMap<String, u64>,
}

impl Tally {
    /// The share of a version of payment among the receipts since `earlier`, in percent.
    pub(super) fn share(&self, version: &str, earlier: &Self) -> f64 {
        let count = |tally: &Self, version: &str| tally.versions.get(version).copied().unwrap_or(0);
        let total = |tally: &Self| tally.versions.values().sum::<u64>();
        let (part, whole) = (count(self, version) - count(earlier, version), total(self) - total(earlier));
        if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
    }
}

/// A running load.
#[derive(Debug)]
pub(super) struct Load {
    tally: Arc<Mutex<Tally>>,
}

impl Load {
    /// A load that has sent nothing yet.
    pub(super) fn new() -> Self {
        Self { tally: Arc::default() }
    }

    /// What was seen so far.
    pub(super) fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Sends `rate` requests a second for `duration`, then waits for those in flight.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the requests in flight; they are not counted.
    pub(super) async fn run(&self, entrance: SocketAddr, rate: u32, duration: Duration) {
        let client = Arc::new(Client::new(entrance, REQUEST_DEADLINE));
        let places = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut ticks = interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut requests = JoinSet::new();
        let sending = async {
            loop {
                ticks.tick().await;
                while requests.try_join_next().is_some() {}
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let (client, tally) = (Arc::clone(&client), Arc::clone(&self.tally));
                requests.spawn(async move {
                    let outcome = buy(&client).await;
                    drop(place);
                    note(&mut lock(&tally), outcome);
                });
            }
        };
        // Ends by its duration.
        let _over = timeout(duration, sending).await;
        while requests.join_next().await.is_some() {}
    }
}

async fn buy(client: &Client) -> Result<Receipt, String> {
    let reply = client.get("web.shop", "/buy").await.map_err(|error| error.to_string())?;
    if !reply.is_success() {
        let reason = reply.reason.as_deref().unwrap_or("none");
        return Err(format!("{} (reason {reason}): {}", reply.status.as_u16(), reply.text()));
    }
    serde_json::from_slice(&reply.body).map_err(|error| format!("no receipt: {error}"))
}

fn note(tally: &mut Tally, outcome: Result<Receipt, String>) {
    tally.requests += 1;
    match outcome {
        Ok(receipt) => {
            tally.ledger_ms.push(receipt.ledger_ms);
            *tally.versions.entry(receipt.payment).or_default() += 1;
        }
        Err(why) => {
            tally.failed += 1;
            if tally.failures.len() < KEPT_FAILURES {
                tally.failures.push((Instant::now(), why));
            }
        }
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(version: &str) -> Result<Receipt, String> {
        Ok(Receipt { stock: 1, payment: version.to_owned(), ledger: String::new(), ledger_ms: 1.0 })
    }

    #[test]
    fn shares_count_from_the_earlier_tally() {
        let mut tally = Tally::default();
        for version in ["v1", "v1", "v2"] {
            note(&mut tally, receipt(version));
        }
        let before = tally.clone();
        for version in ["v1", "v2", "v2", "v2"] {
            note(&mut tally, receipt(version));
        }
        note(&mut tally, Err("503".to_owned()));
        assert_eq!(tally.share("v1", &before), 25.0);
        assert_eq!(before.share("v3", &Tally::default()), 0.0);
        assert_eq!((tally.requests, tally.failed, tally.failures.len()), (8, 1, 1));
    }
}
