//! All interleavings of threads that share a [`counter::Counter`] or a [`budget::Budget`], by loom.

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

#[allow(unreachable_pub, clippy::duplicate_mod, reason = "the same text once more, of which other atomics are made")]
#[path = "counter.rs"]
mod counter;

#[allow(unreachable_pub, clippy::duplicate_mod, reason = "as above")]
#[path = "budget.rs"]
mod budget;

use std::sync::atomic::{AtomicU32, Ordering};

use budget::Budget;
use counter::{Counter, Entry};
use loom::sync::{Arc, Notify};
use loom::thread;
use tokio::time::Instant;

use crate::config::RetryBudget;

#[test]
fn the_limit_holds_and_every_place_comes_back() {
    loom::model(|| {
        let (counter, inside) = (Arc::new(Counter::new()), Arc::new(loom::sync::atomic::AtomicU32::new(0)));
        let caller = || {
            let (counter, inside) = (Arc::clone(&counter), Arc::clone(&inside));
            thread::spawn(move || {
                if counter.enter(1, 0) == Entry::Taken {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two in one place");
                    inside.fetch_sub(1, Ordering::SeqCst);
                    counter.give_back();
                }
            })
        };
        let others = [caller(), caller()];
        for other in others {
            other.join().expect("no panic");
        }
        assert_eq!(counter.now(), (0, 0));
    });
}

#[test]
fn who_waits_is_woken() {
    loom::model(|| {
        let (counter, freed) = (Arc::new(Counter::new()), Arc::new(Notify::new()));
        assert_eq!(counter.enter(1, 1), Entry::Taken);
        let waiter = {
            let (counter, freed) = (Arc::clone(&counter), Arc::clone(&freed));
            thread::spawn(move || {
                if counter.enter(1, 1) == Entry::Waits {
                    while !counter.take_waiting(1) {
                        freed.wait(); // loom tells when this would be for ever.
                    }
                }
                assert!(!counter.give_back(), "nobody else waits");
            })
        };
        if counter.give_back() {
            freed.notify();
        }
        waiter.join().expect("no panic");
        assert_eq!(counter.now(), (0, 0));
    });
}

#[test]
fn the_queue_is_never_longer_than_it_may_be() {
    static MOST: AtomicU32 = AtomicU32::new(0);
    loom::model(|| {
        let counter = Arc::new(Counter::new());
        let caller = || {
            let counter = Arc::clone(&counter);
            thread::spawn(move || {
                if counter.enter(0, 1) == Entry::Waits {
                    MOST.fetch_max(counter.now().1, Ordering::SeqCst);
                    counter.leave();
                }
            })
        };
        for other in [caller(), caller()] {
            other.join().expect("no panic");
        }
        assert_eq!(counter.now(), (0, 0));
    });
    assert_eq!(MOST.load(Ordering::SeqCst), 1);
}

#[test]
fn retries_are_never_more_than_their_share() {
    loom::model(|| {
        let now = Instant::now();
        let budget = Arc::new(Budget::new(now));
        let active = [budget.begin(), budget.begin()];
        let under_way = Arc::new(loom::sync::atomic::AtomicU32::new(0));
        let caller = || {
            let (budget, under_way) = (Arc::clone(&budget), Arc::clone(&under_way));
            thread::spawn(move || {
                let limit = RetryBudget { percent: 50, min_per_second: 0 };
                let Some(permit) = budget.permit(limit, now) else { return };
                assert_eq!(under_way.fetch_add(1, Ordering::SeqCst), 0, "half of two is one");
                under_way.fetch_sub(1, Ordering::SeqCst);
                drop(permit);
            })
        };
        for other in [caller(), caller()] {
            other.join().expect("no panic");
        }
        drop(active);
        assert_eq!(budget.counts(), (0, 0));
    });
}

#[test]
fn the_floor_gives_each_of_its_retries_once() {
    loom::model(|| {
        let now = Instant::now();
        let budget = Arc::new(Budget::new(now));
        let caller = || {
            let budget = Arc::clone(&budget);
            thread::spawn(move || budget.permit(RetryBudget { percent: 0, min_per_second: 1 }, now).is_some())
        };
        let others = [caller(), caller()];
        let given = others.map(|other| other.join().expect("no panic"));
        assert_eq!(given.iter().filter(|&&given| given).count(), 1, "{given:?}");
    });
}
