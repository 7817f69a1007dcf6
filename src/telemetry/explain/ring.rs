//! The stories of recent requests, a ring for each worker: failed and retried ones beside the others, so that a burst of
//! good requests does not push out why one failed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Decisions, Heard};
use crate::telemetry::TraceId;

/// All that is told of a request that has ended.
#[derive(Clone, Debug)]
pub struct Story {
    /// When it was received.
    pub started: Instant,
    /// How long it took.
    pub duration: Duration,
    /// `outbound` or `inbound`.
    pub direction: &'static str,
    /// Is it a TCP connection?
    pub is_tcp: bool,
    /// The trace that it belongs to.
    pub trace: Option<TraceId>,
    /// What was decided.
    pub decisions: Decisions,
    /// What its head said.
    pub(in crate::telemetry) heard: Heard,
    /// Destination as the control plane knows it.
    pub destination: Arc<str>,
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// The host that was tried last.
    pub upstream: Option<SocketAddr>,
    /// The client.
    pub downstream: SocketAddr,
    /// SPIFFE id of the other end.
    pub peer: Arc<str>,
    /// HTTP status; 0 when there is none.
    pub status: u16,
    /// Reason code; empty when all went well.
    pub reason: &'static str,
    /// Envoy's response flag.
    pub flag: &'static str,
    /// Text behind the reason.
    pub detail: String,
    /// Hosts tried.
    pub attempts: u32,
    /// Did it end as it should not?
    pub failed: bool,
}

impl Story {
    fn is_remarkable(&self) -> bool {
        self.failed || !self.decisions.steps.is_empty()
    }
}

/// Which stories are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this trace.
    pub trace: Option<TraceId>,
    /// With this `x-request-id`.
    pub request_id: Option<String>,
    /// With this reason code.
    pub reason: Option<String>,
}

impl Filter {
    fn takes(&self, story: &Story) -> bool {
        self.trace.is_none_or(|trace| story.trace == Some(trace))
            && self.request_id.as_ref().is_none_or(|id| story.heard.request_id.text() == id.as_str())
            && self.reason.as_ref().is_none_or(|reason| story.reason == reason)
    }
}

/// The rings of all workers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stories {
    most: usize,
    rings: Arc<Mutex<Vec<Arc<Ring>>>>,
}

/// The stories of one worker.
#[derive(Debug)]
pub(in crate::telemetry) struct Ring {
    most: usize,
    remarkable: Mutex<Round>,
    others: Mutex<Round>,
}

#[derive(Debug, Default)]
struct Round {
    stories: Vec<Story>,
    next: usize,
}

impl Stories {
    /// Each worker keeps `most` remarkable stories and as many others; 0: none.
    pub fn keeping(most: usize) -> Self {
        Self { most, rings: Arc::default() }
    }

    /// A ring for another worker; `None` when nothing is kept.
    pub(in crate::telemetry) fn ring(&self) -> Option<Arc<Ring>> {
        let ring = (self.most > 0).then(|| {
            let ring = Ring { most: self.most, remarkable: Mutex::default(), others: Mutex::default() };
            Arc::new(ring)
        })?;
        self.rings.lock().push(Arc::clone(&ring));
        Some(ring)
    }

    /// What `render` makes of each of at most `most` stories that `filter` takes: remarkable ones before others, later
    /// ones before earlier. Only copies are made while a worker might have to wait for its ring.
    pub fn each<T>(&self, filter: &Filter, most: usize, render: impl Fn(&Story) -> T) -> Vec<T> {
        let rings = self.rings.lock().clone();
        let mut found = Vec::new();
        for is_remarkable in [true, false] {
            let mut round = Vec::new();
            for ring in &rings {
                let stories = if is_remarkable { ring.remarkable.lock() } else { ring.others.lock() };
                let taken = stories.stories.iter().filter(|story| filter.takes(story));
                // Only the latest can be among those that are told.
                let mut taken: Vec<&Story> = taken.collect();
                taken.sort_by_key(|story| std::cmp::Reverse(story.started));
                round.extend(taken.into_iter().take(most).cloned());
            }
            round.sort_by_key(|story: &Story| std::cmp::Reverse(story.started));
            found.extend(round);
        }
        found.iter().take(most).map(render).collect()
    }
}

impl Ring {
    /// Puts a story in the place of the oldest.
    pub(in crate::telemetry) fn keep(&self, story: Story) {
        let round = if story.is_remarkable() { &self.remarkable } else { &self.others };
        let mut round = round.lock();
        let round = &mut *round;
        if round.stories.len() < self.most {
            round.stories.push(story);
            return;
        }
        if let Some(oldest) = round.stories.get_mut(round.next) {
            *oldest = story;
        }
        round.next = (round.next + 1) % self.most;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(status: u16, reason: &'static str) -> Story {
        Story {
            started: Instant::now(),
            duration: Duration::ZERO,
            direction: "outbound",
            is_tcp: false,
            trace: None,
            decisions: Decisions::default(),
            heard: Heard::default(),
            destination: Arc::default(),
            cluster: Arc::default(),
            upstream: None,
            downstream: ([127, 0, 0, 1], 1).into(),
            peer: Arc::default(),
            status,
            reason,
            flag: "",
            detail: String::new(),
            attempts: 1,
            failed: status >= 500,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_come_first_and_good_requests_do_not_push_them_out() {
        let stories = Stories::keeping(3);
        let rings = [stories.ring().expect("on"), stories.ring().expect("on")];
        rings[0].keep(story(503, "overflow"));
        for number in 0..20 {
            tokio::time::advance(Duration::from_millis(1)).await;
            rings[number % 2].keep(story(200 + number as u16, ""));
        }
        let statuses = stories.each(&Filter::default(), 100, |story| story.status);
        assert_eq!(statuses, [503, 219, 218, 217, 216, 215, 214]);
        assert_eq!(stories.each(&Filter::default(), 2, |story| story.status), [503, 219]);
        let of_reason = Filter { reason: Some("overflow".to_owned()), ..Filter::default() };
        assert_eq!(stories.each(&of_reason, 100, |story| story.status), [503]);
        assert!(Stories::default().ring().is_none());
    }
}
