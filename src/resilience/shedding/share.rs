//! Who gets the places within a limit: by criticality, and fairly among callers.
//!
//! Nothing waits here, so what is more important cannot overtake; places are kept for it instead. Of each caller and
//! criticality it is remembered how many were lately under way at most, and how many were refused: its *demand*, which
//! fades by half each second. A place that is free is *kept* from a request when the demand of somebody who goes before it
//! exceeds what that one has now. Nobody is refused while less than half of the limit is used, nor while the demands of
//! all together fit.
//!
//! Who goes before whom
//! - the caller's own requests of higher criticality, always;
//! - what others ask at higher criticality, up to their fair share: the limit divided by the callers with demand;
//! - what others ask at the same criticality, up to their fair share, once the caller has its own;
//! - whatever others ask at all, up to half of their fair share, their *guarantee*: so that nobody takes everything by
//!   calling it critical. Who is below its own guarantee gives way to nobody.
//!
//! One more place is kept for each caller that came in the last half minute and has nothing under way, a tenth of the
//! limit for all of them together; and one for the caller's own higher criticalities that came then.
//!
//! The order of classes is that of Google's "Site Reliability Engineering", chapter 21; to refuse by caller within a class,
//! without a queue, is WeChat's DAGOR (SoCC 2018), whose random share of users is here a fair share of callers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pillion_wire::load_shedding::Criticality;
use tokio::time::Instant;

/// Callers that are told apart; more are one.
const MOST_CALLERS: usize = 256;
/// How long a caller that asks nothing is remembered.
const REMEMBERED: Duration = Duration::from_secs(30);
/// How often demands fade.
const FADING: Duration = Duration::from_millis(50);

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no place.
    Full,
    /// What is left is kept for what is more important.
    Criticality,
    /// What is left is kept for callers that have less.
    Caller,
}

/// A place that was given.
#[derive(Clone, Debug)]
pub struct Place {
    /// `None`: of a caller beyond those that are told apart.
    caller: Option<Arc<str>>,
    criticality: Criticality,
}

/// All places, by who has them.
#[derive(Debug)]
pub struct Shares {
    in_flight: u32,
    callers: HashMap<Arc<str>, Caller>,
    others: Caller,
    faded: Instant,
}

#[derive(Debug)]
struct Caller {
    in_flight: u32,
    seen: Instant,
    flows: [Flow; Criticality::ALL.len()],
}

#[derive(Debug, Default)]
struct Flow {
    in_flight: u32,
    demand: f32,
    seen: Option<Instant>,
}

impl Why {
    /// For metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Criticality => "criticality",
            Self::Caller => "caller",
        }
    }

    /// All of them.
    pub const ALL: [Self; 3] = [Self::Full, Self::Criticality, Self::Caller];

    /// Its place in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

impl Shares {
    /// Nothing is under way.
    pub fn new(now: Instant) -> Self {
        Self { in_flight: 0, callers: HashMap::new(), others: Caller::new(now), faded: now }
    }

    /// How many are under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Callers that are told apart now.
    pub fn callers(&self) -> usize {
        self.callers.len()
    }

    /// A place among `limit`, to be given back by [`Self::leave`].
    ///
    /// # Errors
    /// [`Why`] says for whom it is kept.
    pub fn enter(
        &mut self,
        caller: &Arc<str>,
        criticality: Criticality,
        limit: u32,
        now: Instant,
    ) -> Result<Place, Why> {
        self.fade(now);
        let is_known = self.callers.contains_key(caller) || self.make_room(caller, now);
        let verdict = self.judge(is_known.then_some(caller), criticality, limit, now);
        let own = if is_known { self.callers.get_mut(caller) } else { None }.unwrap_or(&mut self.others);
        own.seen = now;
        let Some(flow) = own.flows.get_mut(criticality.index()) else { return Err(Why::Full) };
        flow.seen = Some(now);
        if let Err(why) = verdict {
            flow.demand = (flow.demand.max(flow.in_flight as f32) + 1.0).min(limit as f32);
            return Err(why);
        }
        flow.in_flight += 1;
        flow.demand = flow.demand.max(flow.in_flight as f32);
        own.in_flight += 1;
        self.in_flight += 1;
        Ok(Place { caller: is_known.then(|| Arc::clone(caller)), criticality })
    }

    /// Gives a place back.
    pub fn leave(&mut self, place: &Place) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let own = match &place.caller {
            Some(caller) => self.callers.get_mut(caller),
            None => Some(&mut self.others),
        };
        let Some(own) = own else { return };
        own.in_flight = own.in_flight.saturating_sub(1);
        if let Some(flow) = own.flows.get_mut(place.criticality.index()) {
            flow.in_flight = flow.in_flight.saturating_sub(1);
        }
    }

    fn judge(&self, caller: Option<&Arc<str>>, criticality: Criticality, limit: u32, now: Instant) -> Result<(), Why> {
        if self.in_flight >= limit {
            return Err(Why::Full);
        }
        if self.in_flight == 0 || (self.in_flight + 1).saturating_mul(2) <= limit {
            return Ok(());
        }
        let free = (limit - self.in_flight) as f32;
        let own = caller.and_then(|caller| self.callers.get(caller)).unwrap_or(&self.others);
        let active = self.all().filter(|caller| caller.is_active() || std::ptr::eq(*caller, own)).count().max(1);
        let fair = (limit as f32 / active as f32).ceil();
        let guarantee = (fair / 2.0).ceil();

        let mut important = own.wanted_above(criticality, now);
        let (mut rest, mut idle) = (0.0, 0_u32);
        if (own.in_flight as f32) < guarantee {
            return if free > important { Ok(()) } else { Err(Why::Criticality) };
        }
        for other in self.all().filter(|other| !std::ptr::eq(*other, own)) {
            let [above, same, below] = other.wanted(criticality);
            let same = if own.in_flight as f32 >= fair { same } else { 0.0 };
            let up_to = |share: f32| (share - other.in_flight as f32).max(0.0);
            let kept = (above + same).min(up_to(fair)).max((above + same + below).min(up_to(guarantee)));
            let of_importance = above.min(kept);
            important += of_importance;
            rest += kept - of_importance;
            idle += u32::from(other.in_flight == 0 && kept < 1.0 && other.was_seen(now));
        }
        rest += (idle as f32).min((limit as f32 / 10.0).max(1.0));
        match free {
            free if free <= important => Err(Why::Criticality),
            free if free <= important + rest => Err(Why::Caller),
            _ => Ok(()),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Caller> {
        self.callers.values().chain([&self.others])
    }

    fn fade(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.faded);
        if passed < FADING {
            return;
        }
        self.faded = now;
        let factor = (-passed.as_secs_f32()).exp2();
        for caller in self.callers.values_mut().chain([&mut self.others]) {
            for flow in &mut caller.flows {
                let has = flow.in_flight as f32;
                flow.demand = has + (flow.demand - has).max(0.0) * factor;
            }
        }
    }

    /// False: there are too many callers, all of whom have something under way.
    fn make_room(&mut self, caller: &Arc<str>, now: Instant) -> bool {
        if self.callers.len() >= MOST_CALLERS {
            let idle = self.callers.iter().filter(|(_, caller)| caller.in_flight == 0);
            let Some(oldest) = idle.min_by_key(|(_, caller)| caller.seen).map(|(name, _)| Arc::clone(name)) else {
                return false;
            };
            self.callers.remove(&oldest);
        }
        self.callers.insert(Arc::clone(caller), Caller::new(now));
        true
    }
}

impl Caller {
    fn new(now: Instant) -> Self {
        Self { in_flight: 0, seen: now, flows: Default::default() }
    }

    /// It has something under way, or wants to.
    fn is_active(&self) -> bool {
        self.in_flight > 0 || self.flows.iter().any(|flow| flow.demand >= 0.5)
    }

    fn was_seen(&self, now: Instant) -> bool {
        // Nobody has been seen among those who are not told apart until there are so many.
        self.flows.iter().any(|flow| flow.was_seen(now))
    }

    /// What is kept of its demand above, at and below `criticality`.
    fn wanted(&self, criticality: Criticality) -> [f32; 3] {
        let mut wanted = [0.0; 3];
        for (index, flow) in self.flows.iter().enumerate() {
            let [above, same, below] = &mut wanted;
            let sum = match index.cmp(&criticality.index()) {
                std::cmp::Ordering::Greater => above,
                std::cmp::Ordering::Equal => same,
                std::cmp::Ordering::Less => below,
            };
            *sum += flow.wanted();
        }
        wanted
    }

    /// The same above it, and one place more for what came lately and has none.
    fn wanted_above(&self, criticality: Criticality, now: Instant) -> f32 {
        let above = || self.flows.iter().skip(criticality.index() + 1);
        let wanted: f32 = above().map(Flow::wanted).sum();
        let is_awaited = wanted < 1.0 && above().any(|flow| flow.in_flight == 0 && flow.was_seen(now));
        if is_awaited { 1.0 } else { wanted }
    }
}

impl Flow {
    /// Whole places: what has faded to less than half of one is none.
    fn wanted(&self) -> f32 {
        (self.demand - self.in_flight as f32).max(0.0).round()
    }

    fn was_seen(&self, now: Instant) -> bool {
        self.seen.is_some_and(|seen| now.saturating_duration_since(seen) < REMEMBERED)
    }
}
