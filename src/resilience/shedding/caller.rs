//! What one caller has, wants, and is to be left.

use std::time::Duration;

use pillion_wire::load_shedding::Criticality;
use tokio::time::Instant;

/// How long a caller that asks nothing is remembered.
const REMEMBERED: Duration = Duration::from_secs(30);
/// A demand from which on a caller counts as active; it asks for no whole place yet.
const ACTIVE: f32 = 0.4;

/// See the module.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) in_flight: u32,
    pub(super) seen: Instant,
    flows: [Flow; Criticality::ALL.len()],
    /// What is kept for it, as it is counted in the sum for all.
    pub(super) kept: Kept,
}

/// One caller's requests of one criticality.
#[derive(Debug, Default)]
struct Flow {
    in_flight: u32,
    demand: f32,
    seen: Option<Instant>,
}

/// Places that are kept from others' requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// By the criticality of those, and whether whoever asks has its fair share.
    places: [[Part; 2]; Criticality::ALL.len()],
    /// Callers that may come again and have nothing.
    pub(super) idle: u32,
}

/// Places, by why they are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// For what is more important.
    pub(super) important: u32,
    /// For whoever has less.
    pub(super) rest: u32,
}

/// What a caller may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// The limit divided by the callers that are active.
    pub(super) fair: u32,
    /// What it gets whatever others ask.
    pub(super) guarantee: u32,
}

impl Caller {
    pub(super) fn new(now: Instant) -> Self {
        Self { in_flight: 0, seen: now, flows: Default::default(), kept: Kept::default() }
    }

    /// It has something under way, or lately wanted to.
    pub(super) fn is_active(&self) -> bool {
        self.in_flight > 0 || self.flows.iter().any(|flow| flow.demand >= ACTIVE)
    }

    /// It asks for a place.
    pub(super) fn asks(&mut self, criticality: Criticality, now: Instant) {
        self.seen = now;
        if let Some(flow) = self.flows.get_mut(criticality.index()) {
            flow.seen = Some(now);
            flow.demand = flow.demand.max(ACTIVE);
        }
    }

    /// It got one.
    pub(super) fn enters(&mut self, criticality: Criticality) {
        self.in_flight += 1;
        if let Some(flow) = self.flows.get_mut(criticality.index()) {
            flow.in_flight += 1;
            flow.demand = flow.demand.max(flow.in_flight as f32);
        }
    }

    /// It got none of `limit`.
    pub(super) fn is_refused(&mut self, criticality: Criticality, limit: u32) {
        if let Some(flow) = self.flows.get_mut(criticality.index()) {
            flow.demand = (flow.demand.max(flow.in_flight as f32) + 1.0).min(limit as f32);
        }
    }

    /// It gives one back.
    pub(super) fn leaves(&mut self, criticality: Criticality) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(flow) = self.flows.get_mut(criticality.index()) {
            flow.in_flight = flow.in_flight.saturating_sub(1);
        }
    }

    /// What is not in use of its demands shrinks to this part.
    pub(super) fn fade(&mut self, factor: f32) {
        for flow in &mut self.flows {
            let has = flow.in_flight as f32;
            flow.demand = has + (flow.demand - has).max(0.0) * factor;
        }
    }

    /// What is kept for its own requests above `criticality`; one place at least if there were any lately.
    pub(super) fn wanted_above(&self, criticality: Criticality, now: Instant) -> u32 {
        let above = || self.flows.iter().skip(criticality.index() + 1);
        let wanted = above().map(Flow::wanted).sum();
        let is_awaited = wanted == 0 && above().any(|flow| flow.in_flight == 0 && flow.was_seen(now));
        if is_awaited { 1 } else { wanted }
    }

    /// What is to be kept for it.
    pub(super) fn to_be_kept(&self, share: Share, now: Instant) -> Kept {
        let wanted = self.flows.each_ref().map(Flow::wanted);
        let all: u32 = wanted.iter().sum();
        let was_seen = || self.flows.iter().any(|flow| flow.was_seen(now));
        let mut kept = Kept { idle: u32::from(self.in_flight == 0 && all == 0 && was_seen()), ..Kept::default() };
        if all == 0 {
            return kept;
        }
        let up_to = |share: u32| share.saturating_sub(self.in_flight);
        let guaranteed = all.min(up_to(share.guarantee));
        let mut above = all;
        for (parts, same) in kept.places.iter_mut().zip(wanted) {
            above -= same;
            for (part, counted) in parts.iter_mut().zip([above, above + same]) {
                let places = counted.min(up_to(share.fair)).max(guaranteed);
                part.important = above.min(places);
                part.rest = places - part.important;
            }
        }
        kept
    }
}

impl Flow {
    /// Whole places: what has faded to less than half of one is none.
    fn wanted(&self) -> u32 {
        (self.demand - self.in_flight as f32).max(0.0).round() as u32
    }

    fn was_seen(&self, now: Instant) -> bool {
        self.seen.is_some_and(|seen| now.saturating_duration_since(seen) < REMEMBERED)
    }
}

impl Kept {
    /// What is kept from a request of this criticality.
    pub(super) fn from(&self, criticality: Criticality, has_fair_share: bool) -> Part {
        let parts = self.places.get(criticality.index());
        parts.and_then(|parts| parts.get(usize::from(has_fair_share))).copied().unwrap_or_default()
    }

    /// Adds one caller's, in place of what was `before`, which is a part of it.
    pub(super) fn replace(&mut self, before: &Self, now: &Self) {
        self.idle = self.idle.saturating_sub(before.idle) + now.idle;
        let both = before.places.iter().flatten().zip(now.places.iter().flatten());
        for (sum, (before, now)) in self.places.iter_mut().flatten().zip(both) {
            sum.important = sum.important.saturating_sub(before.important) + now.important;
            sum.rest = sum.rest.saturating_sub(before.rest) + now.rest;
        }
    }
}
