use pillion_wire::health::Probe;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn rules() -> HealthCheck {
    let probe = Probe::Tcp { send: Vec::new(), receive: Vec::new() };
    HealthCheck { healthy_threshold: 2, jitter: SECOND, initial_jitter: SECOND, ..HealthCheck::new(probe) }
}

/// Checks when it is time, and says what was found.
fn step(checked: &mut Checked, rules: &HealthCheck, finding: Finding) -> Option<State> {
    let now = checked.poll_time();
    assert!(checked.handle_time(rules, false, now, 0.0), "it is time");
    checked.handle_finding(rules, finding, now, 0.0)
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_decides_and_thresholds_do_from_then_on() {
    use Finding::{Failed, Passed, Refused, Unknown};
    use State::{Healthy, Unhealthy};
    let rules = rules();
    for (findings, states) in [
        (vec![Passed, Failed, Failed, Failed], vec![Some(Healthy), None, None, Some(Unhealthy)]),
        (vec![Failed, Passed, Passed, Passed], vec![Some(Unhealthy), None, Some(Healthy), None]),
        (vec![Passed, Failed, Failed, Passed, Failed, Failed], vec![Some(Healthy), None, None, None, None, None]),
        (vec![Failed, Passed, Failed, Passed, Passed], vec![Some(Unhealthy), None, None, None, Some(Healthy)]),
        (vec![Passed, Refused], vec![Some(Healthy), Some(Unhealthy)]),
        (vec![Unknown, Passed, Failed, Unknown, Failed, Unknown, Failed], {
            vec![None, Some(Healthy), None, None, None, None, Some(Unhealthy)]
        }),
    ] {
        let mut checked = Checked::new(&rules, Instant::now(), 0.0);
        let found: Vec<_> = findings.iter().map(|finding| step(&mut checked, &rules, *finding)).collect();
        assert_eq!(found, states, "{findings:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn checks_are_an_interval_apart_with_jitter_and_rare_without_traffic() {
    let rules = HealthCheck { unhealthy_interval: 2 * SECOND, ..rules() };
    let start = Instant::now();
    let mut checked = Checked::new(&rules, start, 0.5);
    assert_eq!(checked.poll_time(), start + SECOND / 2);
    assert!(!checked.handle_time(&rules, false, start, 0.0));
    let first = start + SECOND / 2;
    assert!(checked.handle_time(&rules, true, first, 0.0), "the first one does not wait for traffic");
    checked.handle_finding(&rules, Finding::Passed, first + SECOND, 0.5);
    assert_eq!(checked.poll_time(), first + SECOND + 10 * SECOND + SECOND / 2, "from the end of the last one");
    let mut due = checked.poll_time();
    let mut looks = 0;
    while !checked.handle_time(&rules, true, due, 0.0) {
        due = checked.poll_time();
        looks += 1;
    }
    assert_eq!((looks, due), (5, first + SECOND + 60 * SECOND + SECOND / 2), "it would notice traffic at each look");
    checked.handle_finding(&rules, Finding::Refused, due, 0.0);
    assert_eq!(checked.poll_time(), due + 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_alarm_brings_a_check_at_once_whose_failure_counts() {
    let rules = rules();
    let start = Instant::now();
    let mut checked = Checked::new(&rules, start, 1.0);
    assert!(checked.handle_alarm(start), "it does not wait for the initial jitter");
    assert!(!checked.handle_alarm(start), "once is enough");
    assert!(checked.handle_time(&rules, false, start, 0.0));
    assert_eq!(checked.handle_finding(&rules, Finding::Passed, start, 0.0), Some(State::Healthy));

    assert!(checked.handle_alarm(start), "alarms do not follow each other too closely");
    assert_eq!(checked.poll_time(), start + BETWEEN_ALARMS);
    let now = start + BETWEEN_ALARMS;
    assert!(checked.handle_time(&rules, true, now, 0.0));
    assert!(!checked.handle_alarm(now) || checked.poll_time() >= now, "while it is being checked");
    assert_eq!(checked.handle_finding(&rules, Finding::Passed, now, 0.0), None, "a false alarm");
    assert_eq!(checked.poll_time(), now + BETWEEN_ALARMS, "the one that came meanwhile is not lost");
    let now = checked.poll_time();
    assert!(checked.handle_time(&rules, false, now, 0.0));
    assert_eq!(checked.handle_finding(&rules, Finding::Failed, now, 0.0), Some(State::Unhealthy));
    assert!(!checked.handle_alarm(now), "that is known");
    assert_eq!(checked.poll_time(), now + 10 * SECOND);
    assert_eq!(step(&mut checked, &rules, Finding::Passed), None);
    assert_eq!(step(&mut checked, &rules, Finding::Passed), Some(State::Healthy));
}

#[tokio::test(start_paused = true)]
async fn other_rules_start_counting_anew_and_keep_what_is_known() {
    let rules = rules();
    let mut checked = Checked::new(&rules, Instant::now(), 0.0);
    for finding in [Finding::Passed, Finding::Failed, Finding::Failed] {
        step(&mut checked, &rules, finding);
    }
    let now = checked.poll_time() - 5 * SECOND;
    checked.handle_rules(&rules, now, 0.5);
    assert_eq!((checked.poll_time(), checked.state()), (now + SECOND / 2, State::Healthy));
    assert_eq!(step(&mut checked, &rules, Finding::Failed), None);
    assert_eq!(checked.streak(), 1);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Found(Finding),
    Alarm,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let finding = prop_oneof![
        4 => Just(Finding::Passed), 4 => Just(Finding::Failed), 1 => Just(Finding::Refused), 1 => Just(Finding::Unknown)
    ];
    prop::collection::vec(prop_oneof![5 => finding.prop_map(Step::Found), 1 => Just(Step::Alarm)], 0..200)
}

proptest! {
    /// The state changes only by as many findings in a row as the rules ask for, unless one counts at once; and the next
    /// check is never further away than interval and jitter.
    #[test]
    fn states_change_by_findings_in_a_row_only(
        down in 1_u32..5, up in 1_u32..5, steps in steps(), random in 0.0..1.0_f64
    ) {
        let rules = HealthCheck { unhealthy_threshold: down, healthy_threshold: up, ..rules() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut now = runtime.block_on(async { Instant::now() });
        let mut checked = Checked::new(&rules, now, random);
        let (mut failed, mut passed, mut alarmed) = (0, 0, false);
        for step in steps {
            let before = checked.state();
            let finding = match step {
                Step::Alarm => {
                    checked.handle_alarm(now);
                    alarmed |= before != State::Unhealthy;
                    prop_assert!(checked.poll_time() <= now + BETWEEN_ALARMS || before == State::Unhealthy);
                    continue;
                }
                Step::Found(finding) => finding,
            };
            now = checked.poll_time();
            prop_assert!(checked.handle_time(&rules, false, now, random));
            match finding {
                Finding::Passed => (failed, passed) = (0, passed + 1),
                Finding::Failed | Finding::Refused => (failed, passed) = (failed + 1, 0),
                Finding::Unknown => {}
            }
            let change = checked.handle_finding(&rules, finding, now, random);
            let at_once = before == State::Unchecked || finding == Finding::Refused || alarmed;
            match change {
                Some(State::Unhealthy) => prop_assert!(failed >= down || (at_once && failed > 0)),
                Some(State::Healthy) => prop_assert!(passed >= up || (before == State::Unchecked && passed > 0)),
                Some(State::Unchecked) => prop_assert!(false, "there is no way back"),
                None => {
                    prop_assert!(before != State::Healthy || failed < down, "{failed} failures");
                    prop_assert!(before != State::Unhealthy || passed < up, "{passed} successes");
                }
            }
            if change.is_some() {
                (failed, passed) = (0, 0);
            }
            alarmed = false;
            prop_assert!(checked.poll_time() > now);
            prop_assert!(checked.poll_time() <= now + rules.interval + rules.jitter);
        }
    }
}
