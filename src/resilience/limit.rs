//! A limit with a queue in front: bounded, first in first out, and with a deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Counter, Entry};

/// Places of one kind, shared by all workers.
#[derive(Debug, Default)]
pub struct Limit {
    counter: Counter,
    freed: Notify,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Limit>);

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All are taken, and so is the queue.
    Overflow,
    /// None became free in time.
    TimedOut,
}

impl Limit {
    /// A place if one is free now.
    pub fn try_acquire(self: &Arc<Self>, limit: u32) -> Option<Permit> {
        (self.counter.enter(limit, 0) == Entry::Taken).then(|| Permit(Arc::clone(self)))
    }

    /// One of `limit` places, waiting for it up to `deadline` when fewer than `pending` do so already.
    ///
    /// # Errors
    /// [`Full`] says why there is none.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue; a place that was meant for it goes to the next.
    pub async fn acquire(self: &Arc<Self>, limit: u32, pending: u32, deadline: Duration) -> Result<Permit, Full> {
        match self.counter.enter(limit, pending) {
            Entry::Taken => Ok(Permit(Arc::clone(self))),
            Entry::Full => Err(Full::Overflow),
            Entry::Waits => Box::pin(timeout(deadline, self.wait(limit))).await.unwrap_or(Err(Full::TimedOut)),
        }
    }

    async fn wait(self: &Arc<Self>, limit: u32) -> Result<Permit, Full> {
        let queued = Queued(Some(self));
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable(); // Before looking: what is freed from now on is not missed.
            if self.counter.take_waiting(limit) {
                queued.served();
                return Ok(Permit(Arc::clone(self)));
            }
            freed.await;
        }
    }

    /// Places that are taken, and how many wait.
    pub fn now(&self) -> (u32, u32) {
        self.counter.now()
    }
}

/// A place in the queue; left when dropped.
struct Queued<'a>(Option<&'a Limit>);

impl Queued<'_> {
    /// Its turn came, and it was counted out.
    fn served(mut self) {
        self.0 = None;
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if let Some(limit) = self.0 {
            limit.counter.leave();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.0.counter.give_back() {
            self.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded_has_a_deadline_and_gives_places_on() {
        let limit = Arc::new(Limit::default());
        let first = limit.acquire(1, 1, SECOND).await.expect("free");
        let waits = tokio::spawn({
            let limit = Arc::clone(&limit);
            async move { limit.acquire(1, 1, SECOND).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(limit.now(), (1, 1));
        assert_eq!(limit.acquire(1, 1, SECOND).await.err(), Some(Full::Overflow));
        drop(first);
        let second = waits.await.expect("no panic").expect("its turn");
        assert_eq!(limit.now(), (1, 0));
        assert_eq!(limit.acquire(1, 1, SECOND).await.err(), Some(Full::TimedOut));
        drop(second);
        assert_eq!(limit.now(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_queue_passes_the_place_on() {
        let limit = Arc::new(Limit::default());
        let held = limit.try_acquire(1).expect("free");
        let wait = |limit: &Arc<Limit>| {
            let limit = Arc::clone(limit);
            tokio::spawn(async move { limit.acquire(1, 9, SECOND).await })
        };
        let (one, two) = (wait(&limit), wait(&limit));
        tokio::task::yield_now().await;
        assert_eq!(limit.now(), (1, 2));
        drop(held);
        one.abort(); // It was woken, and never ran.
        assert!(two.await.expect("no panic").is_ok());
        assert_eq!(limit.now(), (0, 0));
    }

    #[test]
    fn a_lower_limit_cuts_nobody_and_lets_nobody_in() {
        let limit = Arc::new(Limit::default());
        let held: Vec<_> = (0..3).map(|_| limit.try_acquire(3).expect("free")).collect();
        assert!(limit.try_acquire(1).is_none());
        drop(held);
        assert!(limit.try_acquire(1).is_some());
    }
}
