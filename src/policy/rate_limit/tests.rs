use std::num::NonZeroU32;

use pillion_wire::rate_limit::{Exempt, Key};
use proptest::prelude::*;

use super::*;

const ALL: [Algorithm; 5] = [
    Algorithm::TokenBucket,
    Algorithm::LeakyBucket,
    Algorithm::FixedWindow,
    Algorithm::SlidingWindowLog,
    Algorithm::SlidingWindowCounter,
];

fn limit(algorithm: Algorithm, requests: u32, per_millis: u32) -> RateLimit {
    let number = |number| NonZeroU32::new(number).unwrap();
    RateLimit {
        name: "all".to_owned(),
        requests: number(requests),
        per_millis: number(per_millis),
        burst: number(requests),
        longest_wait_millis: 0,
        algorithm,
        keys: Vec::new(),
        most_keys: number(100),
        exempt: Exempt::default(),
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Who passes of those that come at these times, in milliseconds.
fn passed(limit: RateLimit, times: &[u64]) -> Vec<bool> {
    let (limiter, start) = (Limiter::new(limit), Instant::now());
    times.iter().map(|at| matches!(limiter.check("", start + millis(*at)), Verdict::Pass(_))).collect()
}

#[test]
fn each_algorithm_counts_in_its_own_way() {
    // Two in 100 ms.
    let times = [0, 0, 0, 50, 60, 99, 100, 101, 149, 150, 151, 300];
    for (algorithm, expected) in [
        // A token comes back every 50 ms.
        (Algorithm::TokenBucket, "xx.x..x..x.x"),
        // One every 50 ms, and nobody may wait.
        (Algorithm::LeakyBucket, "x..x..x..x.x"),
        // Windows from 0, 100, 300.
        (Algorithm::FixedWindow, "xx....xx...x"),
        // Both of 0 ms are 100 ms old at 100.
        (Algorithm::SlidingWindowLog, "xx....xx...x"),
        // At 150 half of the two of the last window still count, and one of this window's.
        (Algorithm::SlidingWindowCounter, "xx.......x.x"),
    ] {
        let shown: String =
            passed(limit(algorithm, 2, 100), &times).into_iter().map(|passed| if passed { 'x' } else { '.' }).collect();
        assert_eq!(shown, expected, "{algorithm:?}");
    }
}

#[test]
fn a_bucket_holds_its_burst_and_no_more() {
    let burst = RateLimit { burst: NonZeroU32::new(3).unwrap(), ..limit(Algorithm::TokenBucket, 1, 1000) };
    assert_eq!(
        passed(burst, &[0, 0, 0, 0, 1000, 1000, 60_000, 60_000, 60_000, 60_000]),
        [true, true, true, false, true, false, true, true, true, false]
    );
}

#[test]
fn a_leaky_bucket_lets_some_wait_their_turn() {
    let limiter = Limiter::new(RateLimit { longest_wait_millis: 100, ..limit(Algorithm::LeakyBucket, 20, 1000) });
    let now = Instant::now();
    assert!(matches!(limiter.check("", now), Verdict::Pass(_)));
    assert_eq!(limiter.check("", now), Verdict::Wait(millis(50)));
    assert_eq!(limiter.check("", now), Verdict::Wait(millis(100)));
    assert_eq!(limiter.check("", now), Verdict::Refuse { retry_after: millis(50) });
    assert_eq!(limiter.check("", now + millis(50)), Verdict::Wait(millis(100)), "the refused one took no place");
}

#[test]
fn who_waits_as_long_as_it_was_told_passes() {
    for algorithm in ALL {
        let limiter = Limiter::new(limit(algorithm, 3, 90));
        let mut now = Instant::now();
        for _ in 0..50 {
            if let Verdict::Refuse { retry_after } = limiter.check("", now) {
                assert!(!retry_after.is_zero() && retry_after <= millis(180), "{algorithm:?}: {retry_after:?}");
                now += retry_after + millis(1);
                assert!(matches!(limiter.check("", now), Verdict::Pass(_)), "{algorithm:?} after {retry_after:?}");
            }
        }
    }
}

#[test]
fn keys_are_counted_apart_and_few_are_remembered() {
    let keyed = RateLimit {
        keys: vec![Key::Caller],
        most_keys: NonZeroU32::new(32).unwrap(),
        ..limit(Algorithm::FixedWindow, 1, 1000)
    };
    let (limiter, now) = (Limiter::new(keyed), Instant::now());
    assert!(matches!(limiter.check("a", now), Verdict::Pass(_)));
    assert!(matches!(limiter.check("b", now), Verdict::Pass(_)));
    assert!(matches!(limiter.check("a", now), Verdict::Refuse { .. }));
    for key in 0..10_000 {
        limiter.check(&key.to_string(), now);
        assert!(matches!(limiter.check("a", now), Verdict::Refuse { .. }), "what is used is not forgotten");
    }
    assert!(limiter.keys() <= 32, "{}", limiter.keys());
}

#[test]
fn what_is_under_way_is_counted_until_it_ends_and_is_never_forgotten() {
    let keyed = RateLimit {
        keys: vec![Key::Caller],
        most_keys: NonZeroU32::new(16).unwrap(),
        ..limit(Algorithm::Concurrency, 2, 1)
    };
    let (limiter, now) = (Arc::new(Limiter::new(keyed)), Instant::now());
    let enter = |key: &str| limiter.admit(key, now).1;
    let (first, second) = (enter("a").unwrap(), enter("a").unwrap());
    assert!(enter("a").is_none());
    let other = enter("b").unwrap();
    drop(first);
    let third = enter("a").expect("a place became free");
    assert!(enter("a").is_none(), "long after, too");
    drop((second, third, other));
    let held: Vec<Place> = (0..1000).filter_map(|key: u32| enter(&key.to_string())).collect();
    assert_eq!(held.len(), limiter.keys(), "those that are under way stay, and others are refused");
    assert!(held.len() <= 16);
    drop(held);
    assert!(enter("new").is_some(), "they make room when they have ended");
}

proptest! {
    /// No period of time sees more than it may: `requests`, and for a token bucket its burst and what fills up.
    #[test]
    fn no_algorithm_admits_more_than_its_limit(
        steps in prop::collection::vec(0_u64..40, 1..300),
        requests in 1_u32..20,
        per in 10_u32..200,
    ) {
        for algorithm in ALL {
            let mut now = 0;
            let times: Vec<u64> = steps.iter().map(|step| { now += step; now }).collect();
            let passed: Vec<u64> = passed(limit(algorithm, requests, per), &times)
                .into_iter()
                .zip(&times)
                .filter_map(|(passed, at)| passed.then_some(*at))
                .collect();
            // A fixed window may see both ends of two windows; a bucket what it holds and what comes meanwhile;
            // the counter is an estimate, and at most one window's worth off.
            let most = match algorithm {
                Algorithm::SlidingWindowLog => requests,
                _ => 2 * requests,
            };
            for from in &passed {
                let within = passed.iter().filter(|at| (*from..*from + u64::from(per)).contains(at)).count();
                prop_assert!(within <= most as usize, "{:?}: {} in one period", algorithm, within);
            }
            // In the long run nobody admits more than the rate.
            let span = times.last().unwrap_or(&0) - times.first().unwrap_or(&0);
            let periods = span / u64::from(per) + 2;
            prop_assert!(passed.len() as u64 <= periods * u64::from(requests), "{:?}", algorithm);
        }
    }
}
