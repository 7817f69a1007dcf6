//! Clusters that are found by name: their hosts come from nameservers, as if a control plane said them.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::{Change, Config, Kind, Update};
use crate::config::Dns;
use crate::dns::{self, Lookups, Resolutions};

/// News that may wait to be taken.
const CAPACITY: usize = 64;

/// What names are asked with, and where it is told how they stand.
#[derive(Clone, Debug)]
pub struct Naming {
    /// Asks.
    pub lookups: Arc<Lookups>,
    /// Tells.
    pub resolutions: Arc<Resolutions>,
}

/// One watch for each [`Dns`] that is in use.
#[derive(Debug)]
pub(super) struct Names {
    naming: Naming,
    watches: HashMap<String, AbortHandle>,
    sender: mpsc::Sender<Update>,
    news: mpsc::Receiver<Update>,
}

impl Names {
    /// Watches nothing yet.
    pub(super) fn new(naming: Naming) -> Self {
        let (sender, news) = mpsc::channel(CAPACITY);
        Self { naming, watches: HashMap::new(), sender, news }
    }

    /// From now on the hosts of `dns` are wanted.
    pub(super) fn begin(&mut self, dns: Arc<Dns>) {
        let key = dns.key();
        let sender = self.sender.clone();
        let told = async move |endpoints: crate::config::Endpoints| {
            let (kind, name) = (Kind::Endpoints, endpoints.name.clone());
            sender.send(Update { kind, name, change: Change::Accepted(Config::Endpoints(endpoints)) }).await.is_ok()
        };
        let Naming { lookups, resolutions } = self.naming.clone();
        let task = tokio::spawn(dns::watch(dns, lookups, resolutions, told));
        if let Some(old) = self.watches.insert(key, task.abort_handle()) {
            old.abort();
        }
    }

    /// They are no longer wanted.
    pub(super) fn end(&mut self, key: &str) {
        if let Some(watch) = self.watches.remove(key) {
            watch.abort();
        }
    }

    /// The next news.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn next(&mut self) -> Update {
        match self.news.recv().await {
            Some(update) => update,
            None => std::future::pending().await, // We hold a sender ourselves.
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.watches.values().for_each(AbortHandle::abort);
    }
}
