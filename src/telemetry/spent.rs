//! Where the time of a request goes, from two looks at the clock per try, and one when it is decided.

use std::time::Duration;

use tokio::time::Instant;

/// Time by part, up to the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    policy: Duration,
    queue: Duration,
    wait: Duration,
    /// Was it looked at when it was decided? Not of each request.
    is_whole: bool,
    /// The last look, and whether a host has been asked since.
    last: Option<(Instant, bool)>,
}

impl Spent {
    /// It was received at `received`, and is decided now.
    pub(super) fn decided(&mut self, received: Instant, now: Instant) {
        // A second decision (another backend) is a part of the first's way.
        if self.last.is_none() {
            self.policy = now.saturating_duration_since(received);
            (self.last, self.is_whole) = (Some((now, false)), true);
        }
    }

    /// It is sent now. How long the host before was waited for, if that never answered.
    pub(super) fn sending(&mut self, now: Instant) -> Option<Duration> {
        let unanswered = self.answered(now);
        if let Some((since, _)) = self.last {
            self.queue += now.saturating_duration_since(since);
        }
        self.last = Some((now, true));
        unanswered
    }

    /// The host has answered or failed now. How long that took; `None`: none was asked.
    pub(super) fn answered(&mut self, now: Instant) -> Option<Duration> {
        let (since, asked) = self.last.as_mut()?;
        let took = now.saturating_duration_since(*since);
        if !*asked {
            return None;
        }
        self.wait += took;
        (*since, *asked) = (now, false);
        Some(took)
    }

    /// Policy, queue, wait, and all but the wait; what has not answered is waited for until `now`, and how long that is.
    pub(super) fn parts(mut self, now: Instant) -> (Option<[Duration; 4]>, Option<Duration>) {
        let unanswered = self.answered(now);
        let parts = self.is_whole.then(|| [self.policy, self.queue, self.wait, self.policy + self.queue]);
        (parts, unanswered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_moment_belongs_to_one_part() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let millis = |spent: Spent, now| spent.parts(now).0.map(|parts| parts.map(|part| part.as_millis()));
        let mut spent = Spent::default();
        assert_eq!(millis(spent, at(1)), None);
        spent.decided(start, at(1));
        assert_eq!(spent.answered(at(2)), None);
        assert_eq!(spent.sending(at(3)), None);
        assert_eq!(spent.answered(at(13)), Some(Duration::from_millis(10)));
        spent.sending(at(15)); // Again, after a pause.
        assert_eq!(spent.sending(at(20)), Some(Duration::from_millis(5))); // Its time was over.
        spent.answered(at(25));
        assert_eq!(millis(spent, at(99)), Some([1, 4, 20, 5]));
        spent.sending(at(30));
        assert_eq!(millis(spent, at(40)), Some([1, 9, 30, 10]));
        assert_eq!(spent.parts(at(40)).1, Some(Duration::from_millis(10)));
        spent.answered(at(41));
        assert_eq!(spent.parts(at(50)).1, None);
        let mut tries = Spent::default();
        tries.sending(at(1));
        assert_eq!(tries.answered(at(3)), Some(Duration::from_millis(2)));
        assert_eq!(tries.parts(at(4)), (None, None));
    }
}
