//! Counts by edge, in bounded number.

use std::collections::HashMap;
use std::sync::Arc;

use super::Counts;
use crate::telemetry::Record;
use crate::telemetry::metrics::{RECENT, at, place, places};

/// Edges that are told apart between two reports; what comes on others is counted together.
pub const MOST_EDGES: usize = 256;

/// Between whom something happened, as seen from here. All texts come from configuration and from verified certificates.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// To our application, from `peer`?
    pub inbound: bool,
    /// The cluster, or our own port; empty when no cluster was chosen.
    pub cluster: Arc<str>,
    /// What the application asked for; empty when the control plane does not know it.
    pub destination: Arc<str>,
    /// Who called: a SPIFFE id, empty for nobody that is known. Always empty for outbound edges.
    pub peer: Arc<str>,
}

impl Edge {
    pub(super) fn of(record: &Record) -> Self {
        let inbound = record.direction == "inbound";
        let peer = if inbound { Arc::clone(&record.peer) } else { Arc::default() };
        Self { inbound, cluster: Arc::clone(&record.cluster), destination: Arc::clone(&record.destination), peer }
    }

    fn other(inbound: bool) -> Self {
        Self { inbound, cluster: Arc::from("other"), destination: Arc::default(), peer: Arc::default() }
    }

    fn is_of(&self, record: &Record) -> bool {
        self.inbound == (record.direction == "inbound")
            && Arc::ptr_eq(&self.cluster, &record.cluster)
            && Arc::ptr_eq(&self.destination, &record.destination)
            && (!self.inbound || Arc::ptr_eq(&self.peer, &record.peer))
    }
}

/// Counts of at most [`MOST_EDGES`] edges, and of all others.
#[derive(Debug, Default)]
pub struct Edges {
    counts: Vec<(Edge, Counts)>,
    places: HashMap<Edge, usize>,
    /// Where to find an edge by where its labels lie in memory.
    recent: Vec<usize>,
}

impl Edges {
    /// All that was counted.
    pub fn iter(&self) -> impl Iterator<Item = &(Edge, Counts)> {
        self.counts.iter()
    }

    /// Nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The counts of the edge that `record` is about.
    pub(super) fn of(&mut self, record: &Record) -> &mut Counts {
        if self.recent.is_empty() {
            self.recent.resize(RECENT, usize::MAX);
        }
        let places = places(of(record));
        let kept = places.into_iter().filter_map(|place| self.recent.get(place).copied());
        let is_kept = |index: &usize| self.counts.get(*index).is_some_and(|(edge, _)| edge.is_of(record));
        let found = kept.into_iter().find(is_kept);
        let index = found.unwrap_or_else(|| {
            let index = self.index(&Edge::of(record));
            self.remember(places, index);
            index
        });
        self.at(index)
    }

    /// The earlier one moves on.
    fn remember(&mut self, [first, second]: [usize; 2], index: usize) {
        let earlier = self.recent.get_mut(first).map(|recent| std::mem::replace(recent, index));
        if let (Some(earlier), Some(recent)) = (earlier, self.recent.get_mut(second)) {
            *recent = earlier;
        }
    }

    pub(super) fn named(&mut self, edge: &Edge) -> &mut Counts {
        let index = self.index(edge);
        self.at(index)
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (edge, counts) in &other.counts {
            self.named(edge).add(counts);
        }
    }

    fn index(&mut self, edge: &Edge) -> usize {
        if let Some(index) = self.places.get(edge) {
            return *index;
        }
        let is_full = self.counts.len() >= MOST_EDGES;
        let other = Edge::other(edge.inbound);
        if is_full && *edge != other {
            return self.index(&other); // Two more at most.
        }
        self.counts.push((edge.clone(), Counts::default()));
        self.places.insert(edge.clone(), self.counts.len() - 1);
        self.counts.len() - 1
    }

    #[expect(clippy::indexing_slicing, reason = "indices come from `index` alone, and nothing is ever removed")]
    fn at(&mut self, index: usize) -> &mut Counts {
        &mut self.counts[index].1
    }
}

/// Who answers makes no difference to an outbound edge.
fn of(record: &Record) -> u64 {
    let peer = if record.direction == "inbound" { at(&record.peer) } else { 0 };
    place([at(&record.destination), at(&record.cluster), peer])
}
