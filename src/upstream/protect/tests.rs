use pillion_wire::resilience::{Breaker, Limits};

use super::*;
use crate::config::{Balancing, Endpoint, Endpoints};
use crate::resilience::breaker::Outcome;
use crate::upstream::{Call, Denied};

fn upstream(rules: Resilience, hosts: u16) -> (Arc<Upstream>, Arc<Resilience>) {
    let (upstream, rules) = (Arc::new(Upstream::new("c")), Arc::new(rules));
    upstream.protect(Some(Arc::clone(&rules)));
    upstream.update(&endpoints(hosts), Balancing::default());
    (upstream, rules)
}

fn endpoints(hosts: u16) -> Endpoints {
    let endpoint = |port| Endpoint::new(([127, 0, 0, 1], port).into());
    let endpoints = (1..=hosts).map(endpoint).collect();
    Endpoints::new("c", endpoints)
}

fn breaker(keep: u32) -> Resilience {
    let breaker = Breaker { consecutive: Some(1), keep, ..Breaker::default() };
    Resilience { breaker: Some(breaker), ..Resilience::default() }
}

fn begin(of: &(Arc<Upstream>, Arc<Resilience>), host: &Arc<Host>) -> Result<Call, Denied> {
    Call::begin(&of.0, host, &of.1, Kind::Request, Instant::now(), || !of.0.has_healthy())
}

fn fail(of: &(Arc<Upstream>, Arc<Resilience>), port: usize) -> Option<Change> {
    let host = &of.0.hosts()[port - 1];
    begin(of, host).expect("let through").settle(Outcome::Failure, Instant::now())
}

fn picked(upstream: &Upstream) -> std::collections::BTreeSet<u16> {
    let picks = (0..20).filter_map(|_| upstream.pick(&[], None, Instant::now));
    picks.map(|host| host.key().address.port()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_open_host_is_passed_over_through_updates_and_the_last_one_never_is() {
    let all = upstream(breaker(1), 3);
    assert!(matches!(fail(&all, 1), Some(Change::Opened(..))));
    assert_eq!(picked(&all.0), [2, 3].into());
    all.0.update(&endpoints(4), Balancing::default());
    assert_eq!(picked(&all.0), [2, 3, 4].into());
    all.0.update(&endpoints(2), Balancing::default());
    assert!(matches!(fail(&all, 2), Some(Change::Kept(_))));
    assert!(fail(&all, 2).is_none(), "no news");
    assert_eq!(picked(&all.0), [2].into());
    assert_eq!(
        all.0.pick(&[all.0.hosts()[1].key().clone()], None, Instant::now).map(|_| ()),
        None,
        "the other is well"
    );
    all.0.update(&endpoints(1), Balancing::default());
    assert_eq!(picked(&all.0), [1].into(), "the only one left");
    assert!(begin(&all, &all.0.hosts()[0]).is_ok(), "and it is let through");
    all.0.protect(None);
    assert_eq!(all.0.out_of_service(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_floor_all_may_open_until_a_probe_is_due() {
    let all = upstream(breaker(0), 2);
    assert!(matches!((fail(&all, 1), fail(&all, 2)), (Some(Change::Opened(..)), Some(Change::Opened(..)))));
    assert_eq!((picked(&all.0), all.0.shortage()), ([].into(), Shortage::Open));
    tokio::time::advance(Duration::from_secs(2)).await;
    let host = all.0.pick(&[], None, Instant::now).expect("its time is up");
    let probe = begin(&all, &host).expect("a probe");
    assert_eq!(Call::begin(&all.0, &host, &all.1, Kind::Request, Instant::now(), || false).err(), Some(Denied::Open));
    drop(probe);
    let mut probe = begin(&all, &host).expect("the first told nothing");
    assert_eq!(probe.settle(Outcome::Success, Instant::now()), Some(Change::Closed));
    assert_eq!(probe.settle(Outcome::Failure, Instant::now()), None, "only the first word counts");
}

#[tokio::test(start_paused = true)]
async fn a_full_host_is_passed_over_and_no_host_is_overfilled() {
    let limits = Limits { endpoint_requests: Some(1), ..Limits::default() };
    let all = upstream(Resilience { limits: Some(limits), ..breaker(1) }, 3);
    assert!(matches!(fail(&all, 3), Some(Change::Opened(..))));
    let first = begin(&all, &all.0.hosts()[0]).expect("free");
    assert_eq!(picked(&all.0), [2].into());
    let second = begin(&all, &all.0.hosts()[1]).expect("free");
    assert_eq!((picked(&all.0), all.0.shortage()), ([].into(), Shortage::Full), "the open one is no way out");
    assert_eq!(begin(&all, &all.0.hosts()[0]).err(), Some(Denied::Full));
    drop((first, second));
    assert_eq!(picked(&all.0), [1, 2].into());
}

#[test]
fn two_that_open_at_once_do_not_each_take_the_other_for_the_last() {
    for _ in 0..50 {
        let all = upstream(breaker(1), 2);
        let opened: usize = std::thread::scope(|scope| {
            let each = [1, 2].map(|port| {
                let all = &all;
                scope.spawn(move || usize::from(matches!(fail(all, port), Some(Change::Opened(..)))))
            });
            each.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!((opened, all.0.out_of_service().0), (1, 1));
    }
}
