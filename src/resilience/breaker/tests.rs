use pillion_wire::resilience::FailureRate;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn rules() -> Rules {
    Rules { consecutive: Some(3), jitter_percent: 0, ..Rules::default() }
}

/// One request at `now` that ends so at once; whether it passed, and what came of it.
fn ask(breaker: &mut Breaker, rules: &Rules, outcome: Outcome, now: Instant) -> (bool, Option<Change>) {
    match breaker.handle_request(rules, now) {
        Some(ticket) => (true, breaker.handle_outcome(rules, ticket, outcome, now, 1.0, || true)),
        None => (false, None),
    }
}

fn fail(breaker: &mut Breaker, rules: &Rules, times: u32, now: Instant) -> Option<Change> {
    (0..times).filter_map(|_| ask(breaker, rules, Outcome::Failure, now).1).last()
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_it_and_a_probe_closes_it() {
    let (rules, start) = (rules(), Instant::now());
    let mut breaker = Breaker::new(start);
    assert_eq!(fail(&mut breaker, &rules, 2, start), None);
    assert_eq!(ask(&mut breaker, &rules, Outcome::Success, start), (true, None));
    assert_eq!(fail(&mut breaker, &rules, 2, start), None, "the row was broken");
    assert_eq!(fail(&mut breaker, &rules, 1, start), Some(Change::Opened(SECOND, "3 failures in a row".to_owned())));
    assert_eq!(ask(&mut breaker, &rules, Outcome::Success, start + SECOND / 2), (false, None));
    assert_eq!(ask(&mut breaker, &rules, Outcome::Success, start + SECOND), (true, Some(Change::Closed)));
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn open_time_doubles_up_to_its_cap_and_starts_anew_once_closed() {
    let rules = Rules { max_open: 5 * SECOND, ..rules() };
    let mut now = Instant::now();
    let mut breaker = Breaker::new(now);
    let mut change = fail(&mut breaker, &rules, 3, now);
    for seconds in [1, 2, 4, 5, 5] {
        let Some(Change::Opened(time, _)) = change else { panic!("{change:?}") };
        assert_eq!(time, seconds * SECOND);
        now += time;
        change = ask(&mut breaker, &rules, Outcome::Failure, now).1;
    }
    now += 5 * SECOND;
    assert_eq!(ask(&mut breaker, &rules, Outcome::Success, now).1, Some(Change::Closed));
    let change = fail(&mut breaker, &rules, 3, now);
    assert!(matches!(change, Some(Change::Opened(time, _)) if time == SECOND), "{change:?}");
    let rules = Rules { jitter_percent: 50, ..rules };
    let mut breaker = Breaker::new(now);
    let change = fail(&mut breaker, &rules, 3, now);
    assert!(matches!(change, Some(Change::Opened(time, _)) if time == SECOND * 3 / 2), "{change:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rate_over_a_sliding_window_opens_it_once_there_were_enough_requests() {
    let rate = FailureRate { percent: 50, window: 10 * SECOND, minimum: 10 };
    let rules = Rules { consecutive: None, rate: Some(rate), ..rules() };
    let start = Instant::now();
    let mut breaker = Breaker::new(start);
    assert_eq!(fail(&mut breaker, &rules, 9, start), None, "too few to tell");
    let late = start + 20 * SECOND;
    assert_eq!(fail(&mut breaker, &rules, 4, late), None, "the others are forgotten");
    for _ in 0..5 {
        assert_eq!(ask(&mut breaker, &rules, Outcome::Success, late + SECOND).1, None);
    }
    let change = fail(&mut breaker, &rules, 1, late + 2 * SECOND);
    assert!(
        matches!(&change, Some(Change::Opened(_, why)) if why == "5 of 10 requests failed within 10s"),
        "{change:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_needed_is_kept_and_asked_about_again() {
    let (rules, start) = (rules(), Instant::now());
    let mut breaker = Breaker::new(start);
    for _ in 0..3 {
        let ticket = breaker.handle_request(&rules, start).expect("closed");
        breaker.handle_outcome(&rules, ticket, Outcome::Failure, start, 0.0, || false);
    }
    assert_eq!(breaker.state(), State::Closed);
    assert!(matches!(fail(&mut breaker, &rules, 1, start), Some(Change::Opened(..))), "now it can be spared");
}

#[tokio::test(start_paused = true)]
async fn probes_are_as_many_as_told_and_a_silent_one_is_given_up() {
    let rules = Rules { probes: 2, successes: 2, max_open: 5 * SECOND, ..rules() };
    let start = Instant::now();
    let mut breaker = Breaker::new(start);
    let old = breaker.handle_request(&rules, start).expect("closed");
    fail(&mut breaker, &rules, 3, start);
    let now = start + SECOND;
    let first = breaker.handle_request(&rules, now).expect("a probe");
    let second = breaker.handle_request(&rules, now).expect("another");
    assert!(!breaker.admits(&rules, now) && breaker.handle_request(&rules, now).is_none());
    assert_eq!(breaker.handle_outcome(&rules, old, Outcome::Failure, now, 0.0, || true), None, "of an earlier episode");
    assert_eq!(breaker.handle_outcome(&rules, first, Outcome::Unknown, now, 0.0, || true), None);
    let third = breaker.handle_request(&rules, now).expect("in the place of the one that told nothing");
    assert_eq!(breaker.handle_outcome(&rules, second, Outcome::Success, now, 0.0, || true), None);
    assert_eq!(breaker.handle_time(&rules, now + 4 * SECOND, 0.0), None);
    assert!(matches!(breaker.handle_time(&rules, now + 5 * SECOND, 0.0), Some(Change::Opened(..))));
    assert_eq!(breaker.handle_outcome(&rules, third, Outcome::Success, now, 0.0, || true), None, "too late");
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u16),
    Ask,
    End(usize, u8),
    Time,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u16..3000).prop_map(Step::Pass),
        Just(Step::Ask),
        Just(Step::Ask),
        (any::<usize>(), 0u8..3).prop_map(|(at, how)| Step::End(at, how)),
        Just(Step::Time),
    ]
}

proptest! {
    #[test]
    fn it_never_leaves_its_graph_nor_lets_more_probes_through(
        steps in prop::collection::vec(step(), 0..400), probes in 1u32..4, spare in any::<bool>(),
        consecutive in 1u32..4, chance in 0.0f64..1.0,
    ) {
        let rate = FailureRate { percent: 50, window: SECOND, minimum: 3 };
        let rules = Rules {
            consecutive: Some(consecutive), rate: Some(rate), probes, successes: probes, max_open: 4 * SECOND,
            ..Rules::default()
        };
        let mut now = Instant::now();
        let mut breaker = Breaker::new(now);
        // Requests under way, and whether each is a probe of this episode.
        let mut under_way: Vec<(Ticket, bool)> = Vec::new();
        for step in steps {
            let before = breaker.state();
            match step {
                Step::Pass(millis) => now += Duration::from_millis(millis.into()),
                Step::Ask => {
                    let admits = breaker.admits(&rules, now);
                    let ticket = breaker.handle_request(&rules, now);
                    prop_assert_eq!(ticket.is_some(), admits);
                    if let Some(ticket) = ticket {
                        if matches!(before, State::Open { .. }) {
                            under_way.iter_mut().for_each(|(_, is_probe)| *is_probe = false);
                        }
                        under_way.push((ticket, matches!(breaker.state(), State::HalfOpen { .. })));
                    }
                    if let State::Open { until } = before {
                        prop_assert_eq!(admits, now >= until);
                    }
                }
                Step::End(at, how) if !under_way.is_empty() => {
                    let (ticket, _) = under_way.swap_remove(at % under_way.len());
                    let outcome = [Outcome::Success, Outcome::Failure, Outcome::Unknown][usize::from(how)];
                    breaker.handle_outcome(&rules, ticket, outcome, now, chance, || spare);
                }
                Step::End(..) => {}
                Step::Time => drop(breaker.handle_time(&rules, now, chance)),
            }
            let after = breaker.state();
            let is_edge = match (before, after) {
                (State::Closed, State::Open { .. }) => spare,
                (State::Closed, State::HalfOpen { .. }) | (State::Open { .. }, State::Closed) => false,
                (State::Open { until }, State::Open { until: later }) => until == later,
                _ => true,
            };
            prop_assert!(is_edge, "{before:?} -> {after:?}");
            if let State::HalfOpen { probes: let_through, succeeded } = after {
                let unanswered = under_way.iter().filter(|(_, is_probe)| *is_probe).count();
                prop_assert!(let_through <= probes && succeeded < probes);
                prop_assert!(unanswered + succeeded as usize <= probes as usize, "{unanswered} and {succeeded}");
            }
            if !matches!(after, State::HalfOpen { .. }) {
                under_way.iter_mut().for_each(|(_, is_probe)| *is_probe = false);
            }
        }
    }
}
