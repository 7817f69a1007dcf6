//! Rounds of questions and answers, on a paused clock.

use proptest::prelude::*;

use super::*;
use crate::config::DnsKind;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn dns(family: LookupFamily) -> Dns {
    Dns {
        kind: DnsKind::Strict,
        family,
        refresh: seconds(5),
        failure: (seconds(2), seconds(10)),
        respect_ttl: true,
        jitter: Duration::ZERO,
        localities: Vec::new(),
        overprovisioning: None,
    }
}

fn v4(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn v6(last: u16) -> IpAddr {
    [0x2001, 0xdb8, 0, 0, 0, 0, 0, last].into()
}

fn addresses(list: &[IpAddr], ttl: u64) -> Found {
    Found::Addresses(list.to_vec(), seconds(ttl))
}

/// One round: what is asked is answered by `answer`; the wait after it.
fn round(refresh: &mut Refresh, chance: f64, answer: impl Fn(Family) -> Found) -> Duration {
    let now = Instant::now();
    for _ in 0..3 {
        for family in refresh.poll_questions() {
            refresh.handle_found(family, answer(family));
        }
    }
    assert_eq!(refresh.poll_questions(), [], "a round has an end");
    refresh.end(now, chance) - now
}

#[tokio::test(start_paused = true)]
async fn an_answer_holds_for_its_ttl_within_bounds_or_for_the_refresh_rate() {
    for (respects, ttl, chance, expected) in [
        (true, 30, 0.0, seconds(30)),
        (true, 1, 0.0, seconds(1)),
        (true, 0, 0.0, seconds(5)),
        (true, 10_000_000, 0.0, LONGEST_TTL),
        (false, 30, 0.0, seconds(5)),
        (true, 30, 0.5, seconds(32)),
    ] {
        let rules = Dns { respect_ttl: respects, jitter: seconds(4), ..dns(LookupFamily::V4Only) };
        let mut refresh = Refresh::new(&rules);
        assert_eq!(round(&mut refresh, chance, |_| addresses(&[v4(1)], ttl)), expected, "{ttl}");
        assert_eq!(refresh.addresses(), [v4(1)]);
        assert!(!refresh.standing().is_stale);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_what_is_known_and_waits_longer_each_time() {
    let mut refresh = Refresh::new(&dns(LookupFamily::V4Only));
    round(&mut refresh, 0.0, |_| addresses(&[v4(1)], 30));
    let failed = |_| Found::Failed("SERVFAIL".to_owned());
    let waits = [0, 1, 2, 3].map(|_| round(&mut refresh, 1.0, failed).as_secs());
    assert_eq!(waits, [2, 4, 8, 10]);
    assert_eq!(round(&mut refresh, 0.0, failed), seconds(5), "half of it is random");
    let standing = refresh.standing();
    assert_eq!((standing.addresses.as_slice(), standing.is_stale), (&[v4(1)][..], true));
    assert_eq!(standing.trouble.as_deref(), Some("SERVFAIL"));
    assert_eq!(round(&mut refresh, 0.0, |_| addresses(&[v4(2)], 30)), seconds(30));
    assert_eq!((refresh.addresses(), refresh.standing().trouble), (vec![v4(2)], None));
    assert_eq!(round(&mut refresh, 1.0, failed), seconds(2), "it begins anew");
}

#[tokio::test(start_paused = true)]
async fn what_others_know_of_a_name_is_kept_while_it_cannot_be_asked_for() {
    let failed = |_| Found::Failed("SERVFAIL".to_owned());
    let mut old = Refresh::new(&dns(LookupFamily::V4Only));
    round(&mut old, 0.0, |_| addresses(&[v4(1)], 30));
    tokio::time::advance(seconds(60)).await;
    let mut other = Refresh::new(&dns(LookupFamily::V6Only));
    round(&mut other, 0.0, |_| addresses(&[v6(1)], 20));
    let stranger = Refresh::new(&dns(LookupFamily::All));
    let belief = [&old, &other, &stranger].into_iter().fold(Belief::default(), |all, known| all.and(known.belief()));
    for (family, expected) in [
        (LookupFamily::V4Only, vec![v4(1)]),
        (LookupFamily::V4Preferred, vec![v4(1)]),
        (LookupFamily::Auto, vec![v6(1)]),
        (LookupFamily::All, vec![v6(1), v4(1)]),
    ] {
        let mut refresh = Refresh::new(&dns(family)).believing(belief.clone());
        let families = usize::from(family != LookupFamily::V4Only) + 1;
        assert_eq!(refresh.poll_questions().len(), families, "{family:?}: one after the other would take too long");
        round(&mut refresh, 0.0, failed);
        let standing = refresh.standing();
        assert_eq!((standing.addresses, standing.is_stale), (expected, true), "{family:?}");
        assert_eq!(standing.resolved_at, other.standing().resolved_at);
        round(&mut refresh, 0.0, |_| Found::Nothing("NXDOMAIN"));
        assert!(!refresh.addresses().is_empty(), "it was said once");
        round(&mut refresh, 0.0, |_| Found::Nothing("NXDOMAIN"));
    }
    let mut refresh = Refresh::new(&dns(LookupFamily::V4Only)).believing(belief);
    round(&mut refresh, 0.0, |_| addresses(&[v4(2)], 30));
    assert_eq!((refresh.addresses(), refresh.standing().is_stale), (vec![v4(2)], false));
}

#[tokio::test(start_paused = true)]
async fn that_there_is_nothing_is_believed_the_second_time() {
    let nothing = |_| Found::Nothing("NXDOMAIN");
    let mut refresh = Refresh::new(&dns(LookupFamily::V4Only));
    assert_eq!(round(&mut refresh, 0.0, nothing), seconds(5), "nothing is lost");
    assert_eq!(refresh.standing().trouble.as_deref(), Some("NXDOMAIN"));
    round(&mut refresh, 0.0, |_| addresses(&[v4(1)], 30));
    assert_eq!(round(&mut refresh, 0.0, nothing), seconds(2));
    assert_eq!((refresh.addresses(), refresh.standing().is_stale), (vec![v4(1)], true));
    round(&mut refresh, 0.0, |_| addresses(&[v4(1)], 30));
    round(&mut refresh, 0.0, nothing);
    assert_eq!(refresh.addresses(), [v4(1)], "it was not twice in a row");
    round(&mut refresh, 0.0, nothing);
    assert_eq!((refresh.addresses(), refresh.standing().is_stale), (vec![], false));
}

#[tokio::test(start_paused = true)]
async fn families_are_asked_for_as_told() {
    let both = |family| match family {
        Family::V4 => addresses(&[v4(1), v4(2)], 30),
        Family::V6 => addresses(&[v6(1)], 20),
    };
    let only = |wanted| move |family| if family == wanted { both(family) } else { Found::Nothing("NODATA") };
    for (family, of_both, of_v4, of_v6) in [
        (LookupFamily::V4Only, vec![v4(1), v4(2)], vec![v4(1), v4(2)], vec![]),
        (LookupFamily::V6Only, vec![v6(1)], vec![], vec![v6(1)]),
        (LookupFamily::V4Preferred, vec![v4(1), v4(2)], vec![v4(1), v4(2)], vec![v6(1)]),
        (LookupFamily::Auto, vec![v6(1)], vec![v4(1), v4(2)], vec![v6(1)]),
        (LookupFamily::All, vec![v6(1), v4(1), v4(2)], vec![v4(1), v4(2)], vec![v6(1)]),
    ] {
        let found = |answer: &dyn Fn(Family) -> Found| {
            let mut refresh = Refresh::new(&dns(family));
            round(&mut refresh, 0.0, answer);
            refresh.addresses()
        };
        assert_eq!(found(&both), of_both, "{family:?}");
        assert_eq!(found(&only(Family::V4)), of_v4, "{family:?}");
        assert_eq!(found(&only(Family::V6)), of_v6, "{family:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_family_that_fails_does_not_take_its_addresses_away() {
    let mut refresh = Refresh::new(&dns(LookupFamily::All));
    let both = |family| if family == Family::V4 { addresses(&[v4(1)], 30) } else { addresses(&[v6(1)], 20) };
    assert_eq!(round(&mut refresh, 0.0, both), seconds(20), "the shorter of both");
    round(&mut refresh, 0.0, |family| match family {
        Family::V4 => addresses(&[v4(2)], 30),
        Family::V6 => Found::Failed("SERVFAIL".to_owned()),
    });
    assert_eq!(refresh.addresses(), [v6(1), v4(2)]);
    assert!(refresh.standing().is_stale);
}

#[tokio::test(start_paused = true)]
async fn a_family_that_always_fails_is_nothing_to_one_that_does_without_it() {
    let broken = |family| match family {
        Family::V4 => addresses(&[v4(1)], 30),
        Family::V6 => Found::Failed("SERVFAIL".to_owned()), // As some nameservers say for want of an AAAA record.
    };
    for family in [LookupFamily::Auto, LookupFamily::V4Preferred] {
        let mut refresh = Refresh::new(&dns(family));
        assert_eq!(refresh.poll_questions().len(), 2, "at first both at once");
        for _ in 0..2 {
            assert_eq!(round(&mut refresh, 0.0, broken), seconds(30), "{family:?}");
            assert_eq!((refresh.addresses(), refresh.standing().trouble), (vec![v4(1)], None), "{family:?}");
        }
    }
    let mut refresh = Refresh::new(&dns(LookupFamily::Auto));
    round(&mut refresh, 0.0, |_| addresses(&[v6(1)], 30));
    assert_eq!(refresh.poll_questions(), [Family::V6], "then only what is preferred");
    round(&mut refresh, 0.0, broken);
    assert_eq!((refresh.addresses(), refresh.standing().is_stale), (vec![v6(1)], true), "what was there stays");
}

proptest! {
    /// Whatever is answered: there is always a next time, within bounds, and only two empty answers in a row (or a
    /// name that never had any) leave a name without addresses.
    #[test]
    fn addresses_are_lost_only_to_two_empty_answers(answers in proptest::collection::vec((0_u8..3, 0_u64..100, 0.0_f64..1.0), 1..60)) {
        let mut refresh = Refresh::new(&dns(LookupFamily::V4Only));
        let (mut had, mut empties, now) = (false, 0, Instant::now());
        for (kind, ttl, chance) in answers {
            let found = match kind {
                0 => { (had, empties) = (true, 0); addresses(&[v4(1)], ttl) }
                1 => { empties += 1; Found::Nothing("NXDOMAIN") }
                _ => Found::Failed("SERVFAIL".to_owned()),
            };
            refresh.handle_found(Family::V4, found);
            let wait = refresh.end(now, chance) - now;
            prop_assert!(wait >= seconds(1) && wait <= seconds(100), "{:?}", wait);
            if empties >= 2 {
                had = false;
            }
            prop_assert_eq!(!refresh.addresses().is_empty(), had);
        }
    }
}
