//! Of [`super::budget`], beside it because a model is made of its text.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::budget::Budget;
use crate::config::RetryBudget;

fn limit(percent: u8, min_per_second: u32) -> RetryBudget {
    RetryBudget { percent, min_per_second }
}

#[test]
fn a_fifth_of_the_active_requests_may_be_retries_at_once() {
    let now = Instant::now();
    let budget = Budget::new(now);
    let active: Vec<_> = (0..10).map(|_| budget.begin()).collect();
    let first = budget.permit(limit(20, 0), now);
    let second = budget.permit(limit(20, 0), now);
    assert!(first.is_some() && second.is_some());
    assert!(budget.permit(limit(20, 0), now).is_none());
    drop(first);
    assert!(budget.permit(limit(20, 0), now).is_some());
    drop((active, second));
    assert_eq!(budget.counts(), (0, 0));
    assert!(budget.permit(limit(100, 0), now).is_none());
}

#[test]
fn the_floor_is_a_burst_and_then_so_many_per_second() {
    let start = Instant::now();
    let budget = Budget::new(start);
    let taken = |at: Duration| (0..100).filter(|_| budget.permit(limit(0, 10), start + at).is_some()).count();
    assert_eq!(taken(Duration::ZERO), 10);
    assert_eq!(taken(Duration::from_millis(99)), 0);
    assert_eq!(taken(Duration::from_millis(100)), 1);
    assert_eq!(taken(Duration::from_millis(1100)), 10);
    assert_eq!(taken(Duration::from_secs(60)), 10);
}

#[test]
fn threads_that_race_never_get_more_than_the_share() {
    let now = Instant::now();
    let budget = Budget::new(now);
    let active: Vec<_> = (0..50).map(|_| budget.begin()).collect();
    let peak = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let permit = budget.permit(limit(20, 0), now);
                    peak.fetch_max(budget.counts().1, Ordering::AcqRel);
                    drop(permit);
                }
            });
        }
    });
    assert!((1..=10).contains(&peak.load(Ordering::Acquire)), "{peak:?}");
    drop(active);
    assert_eq!(budget.counts(), (0, 0));
}

proptest! {
    /// Whatever happens in whichever order: what the share grants never exceeds it when granted, and what the floor
    /// grants within any stretch of time is its rate times that, and one burst.
    #[test]
    fn the_budget_is_never_exceeded(
        percent in 0_u8..=100,
        rate in 0_u32..30,
        steps in prop::collection::vec((0_u8..5, 0_u64..400), 1..400),
    ) {
        let start = Instant::now();
        let (budget, mut now) = (Budget::new(start), start);
        let (mut active, mut permits, mut floor) = (VecDeque::new(), VecDeque::new(), Vec::new());
        for (what, millis) in steps {
            match what {
                0 => active.push_back(budget.begin()),
                1 => drop(active.pop_front()),
                2 => drop(permits.pop_front()),
                3 => now += Duration::from_millis(millis),
                _ => if let Some(permit) = budget.permit(limit(percent, rate), now) {
                    if budget.counts().1 as usize > permits.len() {
                        permits.push_back(permit);
                        prop_assert!(permits.len() * 100 <= active.len() * usize::from(percent));
                    } else {
                        floor.push(now);
                    }
                },
            }
        }
        for (at, from) in floor.iter().enumerate() {
            for (count, until) in floor.iter().skip(at).enumerate() {
                let most = (*until - *from).as_secs_f64() * f64::from(rate) + f64::from(rate) + 1e-6;
                prop_assert!((count + 1) as f64 <= most, "{} from {from:?} to {until:?}", count + 1);
            }
        }
    }
}
