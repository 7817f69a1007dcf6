//! The last minutes of every edge, by who reports them.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use super::{
    report::{EdgeKey, Endpoint, Sums, Told},
    ring::{Add as _, Rings},
};

/// Clients whose reports are kept.
pub const MOST_REPORTERS: usize = 2_000;
/// Edges that are kept, over all reporters.
pub const MOST_EDGES: usize = 8_192;
/// Edges that are kept of one reporter.
pub const MOST_EDGES_EACH: usize = 300;
/// Endpoints that are kept of one reporter.
pub const MOST_ENDPOINTS_EACH: usize = 512;
/// Endpoints that are kept, over all reporters.
pub const MOST_ENDPOINTS: usize = 50_000;
/// Clients of one identity that no document names (whose names the clients choose), of [`MOST_REPORTERS`].
pub const MOST_STRANGERS_EACH: usize = 128;
/// Edges of all of those together, of [`MOST_EDGES`].
pub const MOST_STRANGE_EDGES_EACH: usize = 1024;
/// How often what is old is looked for.
const SWEEP_SECONDS: u64 = 5;
/// After so many seconds without a report nothing of a reporter is left.
pub const FORGOTTEN_AFTER: u64 = 900;

/// Who reports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reporter {
    /// Namespace of its proven identity.
    pub namespace: String,
    /// Its workload, or `Node.id` of a client that is no sidecar of ours.
    pub name: String,
    /// Its service account.
    pub service_account: String,
    /// The client's family.
    pub dialect: &'static str,
}

/// All reports of the last minutes.
#[derive(Debug, Default)]
pub struct Store(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    reporters: BTreeMap<Reporter, Reports>,
    edges: usize,
    endpoints: usize,
    swept: u64,
    /// By namespace and service account.
    strangers: HashMap<(String, String), Share>,
}

/// What an identity takes up for clients that no document names.
#[derive(Debug, Default)]
struct Share {
    reporters: usize,
    edges: usize,
}

/// What is kept of one reporter.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// The time that its reports cover, in milliseconds.
    pub covered: Rings<u64>,
    /// Its edges.
    pub edges: BTreeMap<EdgeKey, Rings<Sums>>,
    /// Its endpoints by cluster, as they stood in its last report.
    pub endpoints: BTreeMap<String, Vec<Endpoint>>,
    /// When its last report came, in Unix seconds.
    pub last: u64,
    /// No document names it.
    is_stranger: bool,
}

/// What did not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overflow {
    /// Clusters of the report that were left out.
    pub clusters: u64,
}

impl Reporter {
    fn identity(&self) -> (String, String) {
        (self.namespace.clone(), self.service_account.clone())
    }
}

impl Store {
    /// Takes a report in that covers `covered_ms`, at `now` (Unix seconds). What there is no room for is left out and
    /// counted. Whoever is a `stranger`, named by no document, shares little room with all others of its identity: it
    /// chooses its name itself, and could be any number of clients.
    pub fn take(&self, reporter: &Reporter, stranger: bool, told: Vec<Told>, covered_ms: u64, now: u64) -> Overflow {
        let mut inner = self.0.lock();
        inner.forget(now);
        let inner = &mut *inner;
        let mut overflow = Overflow::default();
        let mut share = stranger.then(|| inner.strangers.entry(reporter.identity()).or_default());
        if !inner.reporters.contains_key(reporter) {
            let is_full = share.as_ref().is_some_and(|share| share.reporters >= MOST_STRANGERS_EACH);
            if is_full || inner.reporters.len() >= MOST_REPORTERS {
                overflow.clusters = told.len() as u64;
                return overflow;
            }
            if let Some(share) = &mut share {
                share.reporters += 1;
            }
            inner.reporters.insert(reporter.clone(), Reports::default());
        }
        let Some(reports) = inner.reporters.get_mut(reporter) else { return overflow };
        reports.last = now;
        reports.is_stranger = stranger;
        reports.covered.add(now, &covered_ms);
        inner.endpoints -= reports.endpoints.values().map(Vec::len).sum::<usize>();
        reports.endpoints.clear();
        let mut room = MOST_ENDPOINTS_EACH.min(MOST_ENDPOINTS - inner.endpoints);
        for Told { key, sums, mut endpoints } in told {
            endpoints.truncate(room);
            if !endpoints.is_empty() {
                room -= endpoints.len();
                inner.endpoints += endpoints.len();
                reports.endpoints.entry(key.cluster.clone()).or_default().append(&mut endpoints);
            }
            if sums.is_empty() {
                continue;
            }
            if let Some(rings) = reports.edges.get_mut(&key) {
                rings.add(now, &sums);
                continue;
            }
            let is_full = share.as_ref().is_some_and(|share| share.edges >= MOST_STRANGE_EDGES_EACH);
            if !is_full && inner.edges < MOST_EDGES && reports.edges.len() < MOST_EDGES_EACH {
                inner.edges += 1;
                if let Some(share) = &mut share {
                    share.edges += 1;
                }
                reports.edges.entry(key).or_default().add(now, &sums);
            } else {
                overflow.clusters += 1;
            }
        }
        overflow
    }

    /// Forgets a reporter at once: its workload is gone.
    pub fn remove(&self, reporter: &Reporter) {
        let mut inner = self.0.lock();
        if let Some(reports) = inner.reporters.remove(reporter) {
            inner.edges -= reports.edges.len();
            inner.endpoints -= reports.endpoints.values().map(Vec::len).sum::<usize>();
            if let Some(share) = inner.strangers.get_mut(&reporter.identity()).filter(|_| reports.is_stranger) {
                share.reporters = share.reporters.saturating_sub(1);
                share.edges = share.edges.saturating_sub(reports.edges.len());
            }
        }
    }

    /// Those who report at `now`.
    pub fn reporters(&self, now: u64) -> Vec<(Reporter, u64)> {
        let mut inner = self.0.lock();
        inner.forget(now);
        inner.reporters.iter().map(|(reporter, reports)| (reporter.clone(), reports.last)).collect()
    }

    /// Reads everything. Whoever reads holds reports up meanwhile: it is to be short.
    pub fn read<T>(&self, now: u64, read: impl FnOnce(&BTreeMap<Reporter, Reports>) -> T) -> T {
        let mut inner = self.0.lock();
        inner.forget(now);
        read(&inner.reporters)
    }
}

impl Inner {
    /// Looks at everything, so not with each report.
    fn forget(&mut self, now: u64) {
        if now.abs_diff(self.swept) < SWEEP_SECONDS {
            return;
        }
        self.swept = now;
        let (mut edges, mut endpoints) = (0, 0);
        let mut strangers: HashMap<(String, String), Share> = HashMap::new();
        self.reporters.retain(|reporter, reports| {
            reports.edges.retain(|_, rings| rings.slots(now, FORGOTTEN_AFTER).next().is_some());
            let is_there = reports.last + FORGOTTEN_AFTER > now;
            if is_there {
                edges += reports.edges.len();
                endpoints += reports.endpoints.values().map(Vec::len).sum::<usize>();
                if reports.is_stranger {
                    let share = strangers.entry(reporter.identity()).or_default();
                    share.reporters += 1;
                    share.edges += reports.edges.len();
                }
            }
            is_there
        });
        (self.edges, self.endpoints, self.strangers) = (edges, endpoints, strangers);
    }
}

impl Reports {
    /// What happened on an edge, and over how many seconds, within the last `window` seconds.
    #[must_use]
    pub fn rate(&self, rings: &Rings<Sums>, now: u64, window: u64) -> (Sums, f64) {
        let mut sums = Sums::default();
        rings.slots(now, window).for_each(|(_, slot)| sums.add(slot));
        (sums, self.covered.sum(now, window) as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reporter(name: &str) -> Reporter {
        let text = |text: &str| text.to_owned();
        Reporter { namespace: text("shop"), name: text(name), service_account: text(name), dialect: "pillion" }
    }

    fn told(cluster: String, success: u32) -> Told {
        let key = EdgeKey { inbound: false, cluster, destination: String::new(), peer: String::new() };
        Told { key, sums: Sums { success, ..Sums::default() }, endpoints: Vec::new() }
    }

    #[test]
    fn rates_are_over_the_time_that_reports_cover() {
        let store = Store::default();
        for now in [1000, 1005, 1010] {
            assert_eq!(
                store.take(&reporter("web"), false, vec![told("a".to_owned(), 50)], 5000, now),
                Overflow::default()
            );
        }
        let (sums, seconds) = store.read(1012, |all| {
            let reports = &all[&reporter("web")];
            reports.rate(reports.edges.values().next().unwrap(), 1012, 60)
        });
        assert!((f64::from(sums.success) / seconds - 10.0).abs() < 0.001);
    }

    #[test]
    fn one_identity_takes_no_more_than_its_share() {
        let store = Store::default();
        let edges = || (0..100).map(|cluster| told(format!("c{cluster}"), 1)).collect::<Vec<_>>();
        for now in [1000, 1010] {
            for number in 0..3000 {
                let stranger = Reporter { name: format!("x{number}"), dialect: "grpc", ..reporter("greedy") };
                store.take(&stranger, true, edges(), 5000, now);
            }
            let (reporters, kept) =
                store.read(now, |all| (all.len(), all.values().map(|reports| reports.edges.len()).sum::<usize>()));
            assert_eq!((reporters, kept), (MOST_STRANGERS_EACH, MOST_STRANGE_EDGES_EACH));
        }
        let another = Reporter { dialect: "grpc", ..reporter("modest") };
        assert_eq!(store.take(&another, true, edges(), 5000, 1010), Overflow::default());
        assert_eq!(store.take(&reporter("web"), false, edges(), 5000, 1010), Overflow::default());
        store.remove(&Reporter { name: "x0".to_owned(), dialect: "grpc", ..reporter("greedy") });
        let next = Reporter { name: "y".to_owned(), dialect: "grpc", ..reporter("greedy") };
        assert_eq!(store.take(&next, true, edges(), 5000, 1010), Overflow::default());
    }

    #[test]
    fn endpoints_without_room_leave_nothing_behind() {
        let store = Store::default();
        let endpoint = Endpoint {
            address: "10.0.0.1:80".to_owned(),
            state: String::new(),
            why: String::new(),
            identity: String::new(),
            in_progress: 0,
        };
        let clusters =
            (0..1500).map(|number| Told { endpoints: vec![endpoint.clone()], ..told(format!("c{number}"), 0) });
        store.take(&reporter("web"), false, clusters.collect(), 5000, 1000);
        assert_eq!(store.read(1000, |all| all[&reporter("web")].endpoints.len()), MOST_ENDPOINTS_EACH);
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out_and_the_old_is_forgotten() {
        let store = Store::default();
        for number in 0..40 {
            let clusters = (0..1000).map(|cluster| told(format!("c{cluster}"), 1)).collect();
            let overflow = store.take(&reporter(&format!("w{number}")), false, clusters, 5000, 1000);
            assert!(overflow.clusters >= 700);
        }
        let edges: usize = store.read(1000, |all| all.values().map(|reports| reports.edges.len()).sum());
        assert_eq!(edges, MOST_EDGES);
        store.remove(&reporter("w0"));
        assert_eq!(store.take(&reporter("x"), false, vec![told("a".to_owned(), 1)], 5000, 1000), Overflow::default());
        assert!(store.reporters(1000 + FORGOTTEN_AFTER).is_empty());
        assert_eq!(store.take(&reporter("y"), false, vec![told("a".to_owned(), 1)], 5000, 3000), Overflow::default());
    }
}
