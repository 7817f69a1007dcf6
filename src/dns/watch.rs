//! Keeps the hosts of a cluster up to date that are found by name, for as long as somebody wants them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::hosts::{Addresses, hosts};
use super::lookup::Lookups;
use super::refresh::{Belief, Refresh, Standing};
use crate::config::{Dns, Endpoints};

/// How the names of clusters stand, for the admin pages and for whoever finds no host. Touched by no request that finds one.
#[derive(Debug, Default)]
pub struct Resolutions(Mutex<BTreeMap<String, BTreeMap<Arc<str>, Known>>>);

#[derive(Debug)]
struct Known {
    standing: Standing,
    belief: Belief,
}

impl Resolutions {
    /// How the names stand of the cluster whose hosts are called `key`, see [`Dns::key`].
    pub fn of(&self, key: &str) -> BTreeMap<Arc<str>, Standing> {
        let all = self.0.lock();
        let names = all.get(key).into_iter().flatten();
        names.map(|(name, known)| (Arc::clone(name), known.standing.clone())).collect()
    }

    /// What was wrong the last time with one of these names, and with which.
    pub fn trouble(&self, key: &str) -> Option<(Arc<str>, String)> {
        let all = self.0.lock();
        all.get(key)?.iter().find_map(|(name, known)| Some((Arc::clone(name), known.standing.trouble.clone()?)))
    }

    /// What is known of `name`, whichever clusters it is asked for.
    fn belief(&self, name: &str) -> Belief {
        let all = self.0.lock();
        let known = all.values().filter_map(|names| names.get(name));
        known.fold(Belief::default(), |all, known| all.and(known.belief.clone()))
    }

    fn set(&self, key: &str, name: &Arc<str>, refresh: &Refresh) -> Standing {
        let (standing, belief) = (refresh.standing(), refresh.belief());
        let known = Known { standing: standing.clone(), belief };
        self.0.lock().entry(key.to_owned()).or_default().insert(Arc::clone(name), known);
        standing
    }

    fn forget(&self, key: &str) {
        self.0.lock().remove(key);
    }
}

/// Tells `told` the hosts of `dns`: first when every name was asked for once, in vain or not, then whenever they change.
/// Ends when nobody listens any more.
///
/// # Cancel safety
/// Dropping it ends all questions; nothing is left in `resolutions`.
pub async fn watch(
    dns: Arc<Dns>,
    lookups: Arc<Lookups>,
    resolutions: Arc<Resolutions>,
    told: impl AsyncFn(Endpoints) -> bool,
) {
    let forgetting = Forgetting { key: dns.key(), resolutions: Arc::clone(&resolutions) };
    let names: BTreeSet<Arc<str>> = dns.names().cloned().collect();
    let (sender, mut news) = mpsc::channel(names.len().max(1));
    let mut tasks = JoinSet::new();
    for name in &names {
        let (dns, lookups, resolutions) = (Arc::clone(&dns), Arc::clone(&lookups), Arc::clone(&resolutions));
        tasks.spawn(keep(Arc::clone(name), dns, forgetting.key.clone(), lookups, resolutions, sender.clone()));
    }
    drop(sender);
    let mut known = Addresses::new();
    let mut last = None;
    loop {
        if known.len() == names.len() {
            let now = hosts(&dns, &known);
            if last.as_ref() != Some(&now) {
                if !told(now.clone()).await {
                    return;
                }
                last = Some(now);
            }
        }
        match news.recv().await {
            Some((name, addresses)) => drop(known.insert(name, addresses)),
            None => std::future::pending().await, // Addresses only: they never change.
        }
    }
}

/// How long the first answer is waited for. Less than a request waits for its destination, so that it is told why there
/// is none.
const FIRST_PATIENCE: Duration = Duration::from_secs(4);
/// The same of later ones: enough to get to the last of three nameservers.
const PATIENCE: Duration = Duration::from_secs(15);

/// One name.
async fn keep(
    name: Arc<str>,
    dns: Arc<Dns>,
    key: String,
    lookups: Arc<Lookups>,
    resolutions: Arc<Resolutions>,
    news: mpsc::Sender<(Arc<str>, Vec<std::net::IpAddr>)>,
) {
    // Other settings are another watch, and no reason to forget what the one before it knows.
    let mut refresh = Refresh::new(&dns).believing(resolutions.belief(&name));
    let mut patience = FIRST_PATIENCE;
    let (mut was_well, mut had_any) = (true, true);
    loop {
        loop {
            match *refresh.poll_questions() {
                [] => break,
                [one, other, ..] => {
                    let (first, second) =
                        tokio::join!(lookups.find(&name, one, patience), lookups.find(&name, other, patience));
                    refresh.handle_found(one, first);
                    refresh.handle_found(other, second);
                }
                [family] => refresh.handle_found(family, lookups.find(&name, family, patience).await),
            }
        }
        patience = PATIENCE;
        let next = refresh.end(Instant::now(), rand::random());
        let standing = resolutions.set(&key, &name, &refresh);
        let (is_well, has_any) = (standing.trouble.is_none(), !standing.addresses.is_empty());
        if (is_well, has_any) != (was_well, had_any) {
            log(&name, &standing); // Each change is a line, and not each question.
        }
        (was_well, had_any) = (is_well, has_any);
        if news.send((Arc::clone(&name), refresh.addresses())).await.is_err() {
            return;
        }
        sleep_until(next).await;
    }
}

fn log(name: &str, standing: &Standing) {
    match &standing.trouble {
        Some(trouble) if standing.is_stale => {
            tracing::warn!(name, trouble, addresses = ?standing.addresses, "the last addresses of a name stay in use");
        }
        Some(trouble) => tracing::warn!(name, trouble, "a name has no address"),
        None => tracing::info!(name, addresses = ?standing.addresses, ttl = ?standing.ttl, "a name is found again"),
    }
}

/// Whatever ends the watch, what it said is no longer so.
struct Forgetting {
    key: String,
    resolutions: Arc<Resolutions>,
}

impl Drop for Forgetting {
    fn drop(&mut self) {
        self.resolutions.forget(&self.key);
    }
}
