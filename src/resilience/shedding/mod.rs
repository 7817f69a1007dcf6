//! Load shedding of a port of our application: as many requests under way as it serves without queueing, and a choice of
//! whom to refuse when there are more.
//!
//! [`Gradient`] finds the limit, [`Shares`] the places within it; both are told the time and do nothing themselves. A
//! [`Shedder`] is both behind one short lock, for all workers. Nothing queues: who has no place is told so at once. Only
//! while minRTT is measured are requests that have a place held back; `gradient` says for how long at most.
//!
//! A response that goes on for `STREAM` after its head is a stream. Its place is free from then on, whether or not anybody
//! takes more of it: time alone does that, whenever anybody looks.
//!
//! At no time is anybody let in while as many as the limit are under way; a limit that falls cuts nobody. It never falls
//! below the least that is configured.

mod caller;
mod gradient;
mod share;

pub use gradient::Gradient;
pub use share::{Place, Shares, Why};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pillion_wire::load_shedding::{Criticality, Gradient as Settings};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// A response that goes on for longer than this after its head is a stream.
const STREAM: Duration = Duration::from_secs(1);

/// The limit of one port and all that is under way.
#[derive(Debug)]
pub struct Shedder {
    state: Mutex<State>,
    /// Somebody who is held back may look again.
    freed: Notify,
    shed: [[AtomicU64; Why::ALL.len()]; Criticality::ALL.len()],
}

#[derive(Debug)]
struct State {
    gradient: Gradient,
    shares: Shares,
    /// Of those under way, who is held back.
    held: u32,
    /// Responses that go on, in the order of their heads: when they become streams, and which places are free then.
    answered: BTreeMap<u64, (Instant, Place)>,
    /// Heads that there have been.
    heads: u64,
}

/// A request's place; given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    shedder: Arc<Shedder>,
    place: Place,
    /// When it was let through; `None`: it is held back.
    since: Option<Instant>,
    /// The number of its response's head, once that is there.
    head: Option<u64>,
    /// Nothing is to be concluded from its end.
    settled: bool,
}

/// How things stand, for people.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// How many may be under way.
    pub limit: u32,
    /// How many are, those held back included.
    pub in_flight: u32,
    /// How many are held back.
    pub held: u32,
    /// The latency without load, once it is known.
    pub min_rtt: Option<Duration>,
    /// The latency of the last window.
    pub sample_rtt: Option<Duration>,
    /// Is the latency without load being measured?
    pub is_measuring: bool,
    /// Callers that are told apart now.
    pub callers: usize,
}

impl Shedder {
    /// Nothing is under way.
    pub fn new(settings: Settings) -> Self {
        let now = Instant::now();
        let gradient = Gradient::new(settings, now);
        let state = State { gradient, shares: Shares::new(now), held: 0, answered: BTreeMap::new(), heads: 0 };
        Self { state: Mutex::new(state), freed: Notify::new(), shed: Default::default() }
    }

    /// Goes on with other settings. All that is under way keeps its place, and what is known of callers stays.
    pub fn set(&self, settings: &Settings) {
        let mut state = self.state.lock();
        if state.gradient.settings() == settings {
            return;
        }
        state.gradient.set(settings.clone(), Instant::now(), rand::random);
        drop(state);
        self.freed.notify_waiters(); // More may be let through now, or nobody be held back.
    }

    /// A place for a request of `caller`; while minRTT is measured perhaps after a while.
    ///
    /// # Errors
    /// [`Why`] there is none.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place back.
    pub async fn enter(self: &Arc<Self>, caller: &Arc<str>, criticality: Criticality) -> Result<Ticket, Why> {
        let now = Instant::now();
        let (entered, released) = self.state.lock().enter(caller, criticality, now);
        if released {
            self.freed.notify_waiters();
        }
        let (place, is_held) = entered.inspect_err(|why| self.count(criticality, *why))?;
        let since = (!is_held).then_some(now);
        let mut ticket = Ticket { shedder: Arc::clone(self), place, since, head: None, settled: false };
        if is_held {
            Box::pin(ticket.wait()).await;
        }
        Ok(ticket)
    }

    fn count(&self, criticality: Criticality, why: Why) {
        let counter = self.shed.get(criticality.index()).and_then(|counters| counters.get(why.index()));
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests that were refused, by criticality (as in [`Criticality::ALL`]) and reason (as in [`Why::ALL`]).
    pub fn shed(&self) -> [[u64; Why::ALL.len()]; Criticality::ALL.len()] {
        self.shed.each_ref().map(|counters| counters.each_ref().map(|counter| counter.load(Ordering::Relaxed)))
    }

    /// How things stand.
    pub fn report(&self) -> Report {
        let mut state = self.state.lock();
        if state.free_streams(Instant::now()) {
            self.freed.notify_waiters();
        }
        Report {
            limit: state.gradient.limit(),
            in_flight: state.shares.in_flight(),
            held: state.held,
            min_rtt: state.gradient.min_rtt(),
            sample_rtt: state.gradient.sample_rtt(),
            is_measuring: state.gradient.is_measuring(),
            callers: state.shares.callers(),
        }
    }
}

impl State {
    /// A place, and whether it is held back; and whether those who are may look again.
    fn enter(
        &mut self,
        caller: &Arc<str>,
        criticality: Criticality,
        now: Instant,
    ) -> (Result<(Place, bool), Why>, bool) {
        let released = self.pass_time(now);
        let in_service = self.shares.in_flight() - self.held;
        let place = self.shares.enter(caller, criticality, self.gradient.limit(), now);
        self.gradient.handle_in_flight(self.shares.in_flight());
        let entered = place.map(|place| {
            let is_held = self.gradient.holds(in_service, now);
            self.held += u32::from(is_held);
            (place, is_held)
        });
        (entered, released)
    }

    /// One who is held back looks again; and whether the others who are may, too.
    fn may_go(&mut self, now: Instant) -> (Result<(), Instant>, bool) {
        let released = self.pass_time(now);
        let in_service = self.shares.in_flight() - self.held;
        let verdict = match self.gradient.holds(in_service, now).then(|| self.gradient.held_until()).flatten() {
            // Later heads become streams later than that.
            Some(until) => Err(until.min(self.answered.values().next().map_or(now + STREAM, |(due, _)| *due))),
            None => {
                self.held -= 1;
                Ok(())
            }
        };
        (verdict, released)
    }

    /// True: those who are held back are to look again.
    fn pass_time(&mut self, now: Instant) -> bool {
        let has_freed = self.free_streams(now);
        let held = self.gradient.held_until().is_some();
        self.gradient.handle_time(now, rand::random);
        has_freed || (held && self.gradient.held_until().is_none())
    }

    /// The places of what is a stream by now. True: those who are held back are to look again.
    fn free_streams(&mut self, now: Instant) -> bool {
        let limit = self.gradient.limit();
        let mut has_freed = false;
        while let Some(first) = self.answered.first_entry()
            && first.get().0 <= now
        {
            let (_due, place) = first.remove();
            self.shares.leave(&place, limit, now);
            has_freed = true;
        }
        has_freed && self.held > 0
    }
}

impl Ticket {
    /// When it was let through.
    pub fn since(&self) -> Instant {
        self.since.unwrap_or_else(Instant::now)
    }

    /// The head of its response is there. What goes on for `STREAM` after it has no place from then on.
    pub fn answered(&mut self, now: Instant) {
        let mut state = self.shedder.state.lock();
        let head = state.heads;
        state.heads += 1;
        state.answered.insert(head, (now + STREAM, self.place.clone()));
        self.head = Some(head);
    }

    /// Tells that it took so long, if nothing has been said yet and it is no stream.
    pub fn took(&mut self, latency: Duration, now: Instant) {
        let since = self.since.unwrap_or(now);
        self.tell(now, |gradient| gradient.handle_latency(since, latency, now, rand::random));
    }

    /// Tells that it failed after so long, in the same way: it would have taken at least that.
    pub fn failed(&mut self, after: Duration, now: Instant) {
        self.tell(now, |gradient| gradient.handle_given_up(after));
    }

    fn tell(&mut self, now: Instant, what: impl FnOnce(&mut Gradient)) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let mut state = self.shedder.state.lock();
        let has_freed = state.free_streams(now);
        let was_held = state.gradient.held_until().is_some();
        if self.head.is_none_or(|head| state.answered.contains_key(&head)) {
            what(&mut state.gradient);
        }
        let released = has_freed || (was_held && state.gradient.held_until().is_none());
        drop(state);
        if released {
            self.shedder.freed.notify_waiters();
        }
    }

    /// Nothing is to be concluded from how long it takes.
    pub fn says_nothing(&mut self) {
        self.settled = true;
    }

    async fn wait(&mut self) {
        loop {
            let mut freed = std::pin::pin!(self.shedder.freed.notified());
            freed.as_mut().enable(); // Before looking: what is freed from now on is not missed.
            let now = Instant::now();
            let (verdict, released) = self.shedder.state.lock().may_go(now);
            if released {
                self.shedder.freed.notify_waiters();
            }
            match verdict {
                Ok(()) => {
                    self.since = Some(now);
                    return;
                }
                Err(until) => {
                    tokio::select! {
                        () = freed => {}
                        () = sleep_until(until) => {}
                    }
                }
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.shedder.state.lock();
        let has_freed = state.free_streams(now);
        let is_stream = self.head.is_some_and(|head| state.answered.remove(&head).is_none());
        match self.since {
            None => state.held = state.held.saturating_sub(1),
            Some(since) if !self.settled && !is_stream => {
                state.gradient.handle_given_up(now.saturating_duration_since(since));
            }
            Some(_) => {}
        }
        if !is_stream {
            let limit = state.gradient.limit();
            state.shares.leave(&self.place, limit, now);
        }
        let somebody_waits = state.held > 0;
        drop(state);
        if has_freed {
            self.shedder.freed.notify_waiters();
        } else if somebody_waits {
            self.shedder.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
