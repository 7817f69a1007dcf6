//! The control plane asks: on the connection that carries its configuration we open one more stream, by which it reads
//! the pages of our admin port and taps our requests (`pillion.observe.v1.Observe/Connect`).
//!
//! It can read, and nothing else. A control plane that does not know the service is left in peace until the next
//! connection.

mod session;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::admin::Admin;
use crate::backoff::Backoff;
use crate::discovery::Link;

/// A stream that lasted for this long was no failure.
const LASTED: Duration = Duration::from_secs(30);

/// Serves whatever connection there is, for as long as the program runs.
pub async fn run(admin: Arc<Admin>, mut links: watch::Receiver<Option<Link>>) -> Infallible {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let link = links.borrow_and_update().clone();
        let again = match link {
            None => None,
            Some(link) => tokio::select! {
                ended = session::serve(&admin, link) => Some(ended),
                _ = links.changed() => {
                    backoff.reset();
                    continue;
                }
            },
        };
        match again {
            Some(Err(status)) if status.code() == Code::Unimplemented => {
                tracing::debug!("the control plane does not ask: it is of an earlier version");
            }
            Some(ended) => {
                if began.elapsed() > LASTED {
                    backoff.reset();
                }
                let wait = backoff.next(rand::random());
                tracing::debug!(?ended, ?wait, "the control plane's questions ended");
                tokio::select! {
                    () = sleep(wait) => continue,
                    _ = links.changed() => continue,
                }
            }
            None => {}
        }
        if links.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
