//! All interleavings of threads that share a [`counter::Counter`], by loom.

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[allow(unreachable_pub, clippy::duplicate_mod, reason = "the same text once more, of which other atomics are made")]
#[path = "counter.rs"]
mod counter;

use std::sync::atomic::{AtomicU32, Ordering};

use counter::{Counter, Entry};
use loom::sync::{Arc, Notify};
use loom::thread;

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
