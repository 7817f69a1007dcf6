//! Which outbound calls belong to which inbound request: by the trace id that applications pass on.
//!
//! An inbound request that came with a deadline, or as a retry, is kept here by its trace id, and by its `X-Request-Id`
//! where there is one, for as long as it is served: applications pass on either.
//! An outbound call with the same id gets at most the time that the request has left, is cancelled when the request's
//! client leaves, and is not retried when the request is a retry itself.
//!
//! *Collisions.* Several requests of one trace may be served at once, and nothing tells whose a call is: they count as
//! one with the latest deadline, that is a retry only if all of them are, and whose client left only when all left
//! without an answer. *Asynchronous work.* What begins after the answer belongs to nobody. What began before is not
//! cancelled by the answer, but keeps the deadline that it was given.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::HeaderMap;
use opentelemetry::TraceId;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Requests that are kept, at most. More are served without being joined.
pub const MOST: usize = 16_384;
/// Requests of one trace that are told apart. While there were more at once, calls of that trace are not joined.
const MOST_OF_ONE: usize = 64;

/// The requests that are being served and may be joined. Shared by all workers.
#[derive(Debug, Default)]
pub struct Table {
    groups: Mutex<HashMap<u64, Group>>,
    /// Requests in the table: with none, which is the rule where nothing is configured, nobody takes the lock.
    count: AtomicUsize,
    in_use: AtomicBool,
    hasher: RandomState,
}

/// Requests of one trace.
#[derive(Debug, Default)]
struct Group {
    members: Vec<(u64, Facts)>,
    next: u64,
    /// One of them was answered: what goes on may be meant to.
    answered: bool,
    /// There were too many.
    crowded: bool,
    gone: CancellationToken,
}

/// What is known of an inbound request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Until when its caller waits; `None`: nobody said.
    pub deadline: Option<Instant>,
    /// It is a try after the first.
    pub is_retry: bool,
}

/// An inbound request in the table. Dropped without [`Self::answered`], its client left.
#[derive(Debug)]
pub struct Member {
    table: Arc<Table>,
    /// Key and serial, in each group that it is in.
    places: [Option<(u64, u64)>; 2],
    answered: bool,
}

/// What holds for an outbound call.
#[derive(Clone, Debug)]
pub struct Join {
    /// Of the request that it belongs to.
    pub facts: Facts,
    /// Cancelled when the client of that request leaves.
    pub gone: CancellationToken,
}

impl Table {
    /// Puts a request with these fields, of which `trace` says what it belongs to, in. `None`: it has no id of a trace, or the table is full.
    ///
    /// One of which nothing is known counts from when the first other was seen: it has no limit, and so have those that it
    /// cannot be told from.
    pub fn enter(
        self: &Arc<Self>,
        trace: impl FnOnce(&HeaderMap) -> Option<TraceId>,
        headers: &HeaderMap,
        facts: Facts,
    ) -> Option<Member> {
        if !facts.say_something() && !self.in_use.load(Ordering::Relaxed) {
            return None;
        }
        let keys = self.keys(trace(headers), headers);
        if keys == [None; 2] {
            return None;
        }
        if !self.in_use.load(Ordering::Relaxed) {
            self.in_use.store(true, Ordering::Relaxed); // Only then: a store would take the line from other workers.
        }
        if self.count.fetch_add(1, Ordering::AcqRel) >= MOST {
            self.count.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        let mut groups = self.groups.lock();
        let places = keys.map(|key| Some((key?, groups.entry(key?).or_default().enter(facts)?)));
        drop(groups);
        if places == [None; 2] {
            self.count.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Member { table: Arc::clone(self), places, answered: false })
    }

    /// The request that a call with these fields belongs to, as `trace` says, else by its own id. A trace that began with the
    /// call itself belongs to nothing: `trace` has to say `None` then.
    pub fn find(&self, trace: impl FnOnce(&HeaderMap) -> Option<TraceId>, headers: &HeaderMap) -> Option<Join> {
        if self.is_empty() {
            return None;
        }
        let keys = self.keys(trace(headers), headers);
        let groups = self.groups.lock();
        let group = keys.iter().flatten().find_map(|key| groups.get(key)).filter(|group| !group.crowded)?;
        let all = || group.members.iter().map(|(_, facts)| facts);
        if !all().any(Facts::say_something) {
            return None;
        }
        let facts = Facts {
            deadline: all().map(|facts| facts.deadline).reduce(latest).flatten(),
            is_retry: all().all(|facts| facts.is_retry),
        };
        Some(Join { facts, gone: group.gone.clone() })
    }

    /// Is no request in it?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Requests in it.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn leave(&self, places: [Option<(u64, u64)>; 2], answered: bool) {
        let mut groups = self.groups.lock();
        for (key, serial) in places.into_iter().flatten() {
            let Some(group) = groups.get_mut(&key) else { continue };
            group.members.retain(|(member, _)| *member != serial);
            group.answered |= answered;
            if group.members.is_empty()
                && let Some(group) = groups.remove(&key)
                && !group.answered
            {
                group.gone.cancel();
            }
        }
        drop(groups);
        self.count.fetch_sub(1, Ordering::AcqRel);
    }

    /// Hashed with a secret: who makes ids up cannot make them collide.
    ///
    /// The first is that of W3C Trace Context or of B3 (both forms), the second `X-Request-Id` as a whole.
    fn keys(&self, trace: Option<TraceId>, headers: &HeaderMap) -> [Option<u64>; 2] {
        let id = headers.get("x-request-id").filter(|id| !id.is_empty());
        [trace.map(|trace| self.hasher.hash_one(trace)), id.map(|id| self.hasher.hash_one(id.as_bytes()))]
    }
}

impl Group {
    /// Its number in the group; `None`: there are too many.
    fn enter(&mut self, facts: Facts) -> Option<u64> {
        if self.members.len() >= MOST_OF_ONE {
            self.crowded = true;
            return None;
        }
        let serial = self.next;
        self.next += 1;
        self.members.push((serial, facts));
        Some(serial)
    }
}

impl Facts {
    fn say_something(&self) -> bool {
        self.is_retry || self.deadline.is_some()
    }
}

impl Member {
    /// Its answer went out to the end.
    pub fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.table.leave(self.places, self.answered);
    }
}

/// Nobody's deadline is later than any.
fn latest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.zip(other).map(|(one, other)| one.max(other))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::telemetry::trace;

    const TRACE: (&str, &str) = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    const SPAN: (&str, &str) = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01");

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
    }

    fn facts(deadline: Option<Instant>, is_retry: bool) -> Facts {
        Facts { deadline, is_retry }
    }

    #[test]
    fn a_call_belongs_to_the_request_of_its_trace_whatever_its_span() {
        let (table, deadline) = (Arc::new(Table::default()), Instant::now());
        let member =
            table.enter(trace::id, &headers(TRACE.0, TRACE.1), facts(Some(deadline), true)).expect("it has an id");
        assert_eq!(table.find(trace::id, &headers(SPAN.0, SPAN.1)).expect("joined").facts, facts(Some(deadline), true));
        assert!(
            table
                .find(trace::id, &headers("traceparent", "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
                .is_none()
        );
        assert!(table.find(trace::id, &headers("traceparent", "nonsense")).is_none());
        member.answered();
        assert!(table.find(trace::id, &headers(SPAN.0, SPAN.1)).is_none() && table.is_empty());
    }

    #[test]
    fn every_way_to_name_a_trace_is_read() {
        let table = Arc::new(Table::default());
        for (name, inbound, outbound) in [
            ("b3", "463ac35c9f6413ad-0020000000000001-1", "463ac35c9f6413ad-0020000000000002-1-0020000000000001"),
            ("x-request-id", "abc", "abc"),
        ] {
            let _member = table.enter(trace::id, &headers(name, inbound), facts(None, true)).expect("it has an id");
            assert!(table.find(trace::id, &headers(name, outbound)).is_some(), "{name}");
        }
        assert!(table.enter(trace::id, &HeaderMap::new(), facts(None, true)).is_none());
    }

    #[test]
    fn a_request_is_found_by_its_own_id_whatever_trace_it_is_in() {
        let table = Arc::new(Table::default());
        let (mut both, id) = (headers("x-request-id", "abc"), headers("x-request-id", "abc"));
        both.extend(headers(TRACE.0, TRACE.1));
        for (trace, inbound) in [(Some(TraceId::from(7)), &id), (None, &both)] {
            let of = |headers: &HeaderMap| trace.or_else(|| trace::id(headers));
            let member = table.enter(of, inbound, facts(None, true)).expect("it has ids");
            let call = table.find(trace::id, &id).expect("the application passed on the request's id only");
            let in_trace = if trace.is_none() { headers(TRACE.0, TRACE.1) } else { HeaderMap::new() };
            assert!(table.find(of, &in_trace).is_some(), "the trace only");
            assert_eq!(table.len(), 1);
            drop(member);
            assert!(call.gone.is_cancelled() && table.is_empty() && table.groups.lock().is_empty());
        }
    }

    #[test]
    fn requests_of_one_trace_are_taken_for_the_most_lenient_of_them() {
        let (table, now, id) = (Arc::new(Table::default()), Instant::now(), headers(TRACE.0, TRACE.1));
        let found = || table.find(trace::id, &id).expect("joined");
        let early = table.enter(trace::id, &id, facts(Some(now), true)).expect("it has an id");
        let late = table.enter(trace::id, &id, facts(Some(now + Duration::from_secs(1)), false)).expect("it has an id");
        let call = found();
        assert_eq!(call.facts, facts(Some(now + Duration::from_secs(1)), false));
        let endless = table.enter(trace::id, &id, facts(None, true)).expect("it has an id");
        assert_eq!(found().facts.deadline, None);
        drop((early, endless));
        assert!(!call.gone.is_cancelled(), "one client still waits");
        drop(late);
        assert!(call.gone.is_cancelled());
    }

    #[test]
    fn a_request_of_which_nothing_is_known_counts_beside_others_only() {
        let (table, now, id) = (Arc::new(Table::default()), Instant::now(), headers(TRACE.0, TRACE.1));
        assert!(table.enter(trace::id, &id, facts(None, false)).is_none(), "nobody else has been seen");
        let told = table.enter(trace::id, &id, facts(Some(now), true)).expect("it has an id");
        let call = table.find(trace::id, &id).expect("joined");
        let plain = table.enter(trace::id, &id, facts(None, false)).expect("it has an id");
        assert_eq!(table.find(trace::id, &id).expect("joined").facts, facts(None, false));
        drop(told);
        assert!(table.find(trace::id, &id).is_none() && !call.gone.is_cancelled());
        drop(plain);
        assert!(call.gone.is_cancelled(), "nobody waits for it");
    }

    #[test]
    fn an_answer_cancels_nothing() {
        let (table, id) = (Arc::new(Table::default()), headers(TRACE.0, TRACE.1));
        let (one, two) =
            (table.enter(trace::id, &id, facts(None, true)), table.enter(trace::id, &id, facts(None, true)));
        let call = table.find(trace::id, &id).expect("joined");
        one.expect("it has an id").answered();
        drop(two);
        assert!(!call.gone.is_cancelled());
    }

    #[test]
    fn it_never_holds_more_than_its_most() {
        let table = Arc::new(Table::default());
        let id = |number: usize| {
            let value = HeaderValue::from(number);
            HeaderMap::from_iter([(HeaderName::from_static("x-request-id"), value)])
        };
        let enter = |number| table.enter(trace::id, &id(number), facts(None, true));
        let members: Vec<_> = (0..MOST).map(|number| enter(number).expect("room")).collect();
        assert!(enter(MOST).is_none());
        drop(members);
        let crowd: Vec<_> = (0..MOST_OF_ONE).map(|_| enter(1).expect("room")).collect();
        assert!(table.find(trace::id, &id(1)).is_some());
        assert!(enter(1).is_none());
        assert!(table.find(trace::id, &id(1)).is_none(), "the one that found no room is not limited by the others");
        drop(crowd);
        assert!(table.is_empty() && enter(1).is_some());
    }
}
