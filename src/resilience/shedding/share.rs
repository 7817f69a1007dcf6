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

use super::caller::{Caller, Kept, Share};

/// Callers that are told apart; more are one.
const MOST_CALLERS: usize = 256;
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
    /// Callers that were active when demands last faded, and those that have become so.
    active: u32,
    /// What is kept for all of them, as of their last requests.
    kept: Kept,
    faded: Instant,
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
        Self {
            in_flight: 0,
            callers: HashMap::new(),
            others: Caller::new(now),
            active: 0,
            kept: Kept::default(),
            faded: now,
        }
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
        self.fade(limit, now);
        let is_known = self.callers.contains_key(caller) || self.make_room(caller, now);
        let own = if is_known { self.callers.get_mut(caller) } else { None }.unwrap_or(&mut self.others);
        let was_active = own.is_active();
        own.asks(criticality, now);
        self.active += u32::from(!was_active);
        let share = share(limit, self.active);
        let places = Places { limit, in_flight: self.in_flight, share };
        let verdict = places.judge(own, &self.kept, criticality, now);
        match verdict {
            Ok(()) => {
                own.enters(criticality);
                self.in_flight += 1;
            }
            Err(_) => own.is_refused(criticality, limit),
        }
        let kept = own.to_be_kept(share, now);
        self.kept.replace(&own.kept, &kept);
        own.kept = kept;
        verdict.map(|()| Place { caller: is_known.then(|| Arc::clone(caller)), criticality })
    }

    /// Gives a place back.
    pub fn leave(&mut self, place: &Place, limit: u32, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let own = match &place.caller {
            Some(caller) => self.callers.get_mut(caller),
            None => Some(&mut self.others),
        };
        let Some(own) = own else { return };
        own.leaves(place.criticality);
        let kept = own.to_be_kept(share(limit, self.active), now);
        self.kept.replace(&own.kept, &kept);
        own.kept = kept;
    }

    fn fade(&mut self, limit: u32, now: Instant) {
        let passed = now.saturating_duration_since(self.faded);
        if passed < FADING {
            return;
        }
        self.faded = now;
        let factor = (-passed.as_secs_f32()).exp2();
        self.active = 0;
        for caller in self.callers.values_mut().chain([&mut self.others]) {
            caller.fade(factor);
            self.active += u32::from(caller.is_active());
        }
        let share = share(limit, self.active);
        self.kept = Kept::default();
        for caller in self.callers.values_mut().chain([&mut self.others]) {
            caller.kept = caller.to_be_kept(share, now);
            self.kept.replace(&Kept::default(), &caller.kept);
        }
    }

    /// False: there are too many callers, all of whom have something under way.
    fn make_room(&mut self, caller: &Arc<str>, now: Instant) -> bool {
        if self.callers.len() >= MOST_CALLERS {
            let idle = self.callers.iter().filter(|(_, caller)| caller.in_flight == 0);
            let Some(oldest) = idle.min_by_key(|(_, caller)| caller.seen).map(|(name, _)| Arc::clone(name)) else {
                return false;
            };
            if let Some(gone) = self.callers.remove(&oldest) {
                self.kept.replace(&gone.kept, &Kept::default());
                self.active = self.active.saturating_sub(gone.is_active().into());
            }
        }
        self.callers.insert(Arc::clone(caller), Caller::new(now));
        true
    }
}

fn share(limit: u32, active: u32) -> Share {
    let fair = limit.div_ceil(active.max(1));
    Share { fair, guarantee: fair.div_ceil(2) }
}

/// What there is to be given.
struct Places {
    limit: u32,
    in_flight: u32,
    share: Share,
}

impl Places {
    /// May `own`, for which a part of what is `kept` is, have one?
    fn judge(&self, own: &Caller, kept: &Kept, criticality: Criticality, now: Instant) -> Result<(), Why> {
        if self.in_flight >= self.limit {
            return Err(Why::Full);
        }
        if self.in_flight == 0 || (self.in_flight + 1).saturating_mul(2) <= self.limit {
            return Ok(());
        }
        let free = self.limit - self.in_flight;
        let important = own.wanted_above(criticality, now);
        if own.in_flight < self.share.guarantee {
            return if free > important { Ok(()) } else { Err(Why::Criticality) };
        }
        let has_fair_share = own.in_flight >= self.share.fair;
        let (all, mine) = (kept.from(criticality, has_fair_share), own.kept.from(criticality, has_fair_share));
        let important = important + all.important.saturating_sub(mine.important);
        let idle = kept.idle.saturating_sub(own.kept.idle).min((self.limit / 10).max(1));
        let rest = all.rest.saturating_sub(mine.rest) + idle;
        match free {
            free if free <= important => Err(Why::Criticality),
            free if free <= important + rest => Err(Why::Caller),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is kept for all is what is kept for each, however requests come, end and time passes.
        #[test]
        fn sums_stay_what_they_are(
            steps in prop::collection::vec((0..400_u32, 0..4_usize, 0..3_u8, 0..2000_u64), 1..600), limit in 1..50_u32,
        ) {
            let mut now = Instant::now();
            let (mut shares, mut held) = (Shares::new(now), Vec::new());
            for (number, criticality, what, millis) in steps {
                match what {
                    0 if !held.is_empty() => shares.leave(&held.swap_remove(number as usize % held.len()), limit, now),
                    1 if number % 10 == 0 => now += Duration::from_millis(millis),
                    _ => {
                        let caller = Arc::from(number.to_string());
                        held.extend(shares.enter(&caller, Criticality::ALL[criticality], limit, now));
                    }
                }
                let mut sum = Kept::default();
                for caller in shares.callers.values().chain([&shares.others]) {
                    sum.replace(&Kept::default(), &caller.kept);
                }
                prop_assert_eq!(sum, shares.kept);
                prop_assert!(shares.in_flight <= limit && shares.in_flight as usize == held.len());
                let of_callers: u32 = shares.callers.values().chain([&shares.others]).map(|own| own.in_flight).sum();
                prop_assert_eq!(of_callers, shares.in_flight);
            }
        }
    }
}
