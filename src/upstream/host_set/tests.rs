use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::config::{Endpoint, Locality, Named, SlowStart};

fn endpoint(port: u16, weight: u32) -> Endpoint {
    Endpoint { weight: NonZeroU32::new(weight).expect("not 0"), ..Endpoint::new(([127, 0, 0, 1], port).into()) }
}

fn locality(priority: u32, weight: u32, endpoints: Vec<Endpoint>) -> Locality {
    Locality { zone: String::new(), priority, weight: NonZeroU32::new(weight).expect("not 0"), endpoints }
}

fn endpoints(localities: Vec<Locality>) -> Endpoints {
    Endpoints { name: "a".to_owned(), localities, overprovisioning: None }
}

/// How often each port is picked.
fn tally(set: &HostSet, picks: u32) -> BTreeMap<u16, u32> {
    let mut tally = BTreeMap::new();
    for _ in 0..picks {
        let (host, _) = pick(set, &[]).expect("there are hosts");
        *tally.entry(host.key().address.port()).or_default() += 1;
    }
    tally
}

fn pick(set: &HostSet, tried: &[HostKey]) -> Option<(Arc<Host>, Found)> {
    set.pick(&Pick { tried, hash: None, now: &Instant::now, second: &Cell::new(None) })
}

fn take_down(set: &HostSet, ports: &[u16]) {
    for member in set.members().filter(|member| ports.contains(&member.host.key().address.port())) {
        member.host.mark_unreachable(Instant::now());
    }
}

#[tokio::test(start_paused = true)]
async fn priorities_fail_over_by_what_is_healthy_and_fall_back() {
    let all = endpoints(vec![
        locality(0, 1, (1..=4).map(|port| endpoint(port, 1)).collect()),
        locality(1, 1, vec![endpoint(11, 1)]),
    ]);
    let set = HostSet::new(&all, Balancing::default(), &HostSet::default());
    assert_eq!(tally(&set, 400), BTreeMap::from([(1, 100), (2, 100), (3, 100), (4, 100)]));
    take_down(&set, &[1]);
    assert!(!tally(&set, 400).contains_key(&11), "three of four can take it all");
    take_down(&set, &[2]);
    let found = tally(&set, 10_000);
    assert!(found[&11].abs_diff(3000) < 300 && found[&3].abs_diff(3500) < 300, "2 of 4, 1.4 times, is 70 %: {found:?}");
    take_down(&set, &[3, 4]);
    assert_eq!(tally(&set, 100), BTreeMap::from([(11, 100)]));
    assert_eq!(pick(&set, &[]).map(|(_, found)| found), Some(Found::Spilled));
    take_down(&set, &[11]);
    assert_eq!(pick(&set, &[]).map(|(_, found)| found), Some(Found::Panicked), "one is tried all the same");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!tally(&set, 100).contains_key(&11), "all have rested");
}

#[tokio::test(start_paused = true)]
async fn below_the_panic_threshold_all_hosts_are_used() {
    let all = endpoints(vec![locality(0, 1, (1..=4).map(|port| endpoint(port, 1)).collect())]);
    for (threshold, used) in [(0, 1), (50, 4)] {
        let balancing = Balancing { panic_threshold: threshold, ..Balancing::default() };
        let set = HostSet::new(&all, balancing, &HostSet::default());
        take_down(&set, &[1, 2]);
        assert_eq!(tally(&set, 100).len(), 2, "half of them is not below the half");
        take_down(&set, &[3]);
        assert_eq!(tally(&set, 100).len(), used, "{threshold}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_in_several_places_is_one_host_from_the_first() {
    let all = endpoints(vec![
        locality(0, 1, vec![endpoint(1, 1)]),
        locality(0, 1, vec![endpoint(1, 1)]),
        locality(1, 1, vec![endpoint(1, 1), endpoint(2, 1)]),
    ]);
    let first = HostSet::new(&all, Balancing::default(), &HostSet::default());
    let second = HostSet::new(&all, Balancing::default(), &first);
    for set in [&first, &second] {
        let hosts: Vec<_> = set.members().map(|member| member.host).collect();
        assert!(Arc::ptr_eq(&hosts[0], &hosts[1]) && Arc::ptr_eq(&hosts[0], &hosts[2]));
        assert_eq!(hosts.len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_tried_is_not_picked_again() {
    let all = endpoints(vec![locality(0, 1, vec![endpoint(1, 1)]), locality(1, 1, vec![endpoint(2, 1)])]);
    let set = HostSet::new(&all, Balancing::default(), &HostSet::default());
    let (first, _) = pick(&set, &[]).expect("a host");
    let (second, _) = pick(&set, &[first.key().clone()]).expect("another");
    assert_ne!(first.key(), second.key());
    assert!(pick(&set, &[first.key().clone(), second.key().clone()]).is_none());
}

#[tokio::test(start_paused = true)]
async fn weights_of_endpoints_and_of_localities_hold() {
    let all = endpoints(vec![
        locality(0, 3, vec![endpoint(1, 1), endpoint(2, 2)]),
        locality(0, 1, vec![endpoint(3, 7), endpoint(4, 7)]),
    ]);
    let set = HostSet::new(&all, Balancing::default(), &HostSet::default());
    assert_eq!(tally(&set, 17 * 100), BTreeMap::from([(1, 100), (2, 200), (3, 700), (4, 700)]));
    let balancing = Balancing { locality_weighted: true, ..Balancing::default() };
    let set = HostSet::new(&all, balancing, &HostSet::default());
    let found = tally(&set, 80_000);
    for (port, share) in [(1, 20_000), (2, 40_000), (3, 10_000), (4, 10_000)] {
        assert!(found[&port].abs_diff(share) <= share / 100, "{found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_host_starts_slowly_and_the_others_do_not_start_again() {
    let slow = SlowStart { window: Duration::from_secs(100), aggression: 100, minimum: 10 };
    let balancing = Balancing { slow_start: Some(slow), ..Balancing::default() };
    let one = endpoints(vec![locality(0, 1, vec![endpoint(1, 1)])]);
    let two = endpoints(vec![locality(0, 1, vec![endpoint(1, 1), endpoint(2, 1)])]);
    let set = HostSet::new(&one, balancing, &HostSet::default());
    set.members().for_each(|member| std::mem::forget(member.host.begin()));
    tokio::time::advance(Duration::from_secs(200)).await;
    let set = HostSet::new(&two, balancing, &set);
    let share = |set: &HostSet| f64::from(tally(set, 10_000)[&2]) / 10_000.0;
    for (seconds, expected) in [(0, 0.1 / 1.1), (20, 0.2 / 1.2), (30, 0.5 / 1.5), (49, 0.99 / 1.99), (2, 0.5)] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        assert!((share(&set) - expected).abs() < 0.01, "{expected}: {}", share(&set));
    }
    assert_eq!(
        set.members().map(|member| member.host.in_flight()).collect::<Vec<_>>(),
        [1, 0],
        "what survived is kept"
    );
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_known_by_its_name_is_found_at_no_address_draining_or_not() {
    let addresses: Arc<[SocketAddr]> = ["192.0.2.1:80".parse().expect("literal")].into();
    let named = Named { name: "api.test:80".into(), addresses: Arc::clone(&addresses) };
    let nowhere = SocketAddr::from(([0; 4], 80));
    let balancing = Balancing { keeps_draining: true, ..Balancing::default() };
    let mut last = HostSet::default();
    for health in [Health::Draining, Health::Healthy, Health::Draining] {
        let named = Endpoint { address: nowhere, health, named: Some(named.clone()), ..endpoint(80, 1) };
        let set = HostSet::new(&endpoints(vec![locality(0, 1, vec![named])]), balancing, &last);
        let [host] = set.all().collect::<Vec<_>>()[..] else { panic!("{set:?}") };
        assert_eq!(host.key(), &HostKey::named("api.test:80".into(), 80));
        assert_eq!(host.ways(), Some(Arc::clone(&addresses)), "{health:?}: else our own loopback is dialled");
        assert!(last.all().next().is_none_or(|before| Arc::ptr_eq(before, host)), "the same as before");
        assert!(set.at(nowhere).is_none() && set.at(addresses[0]).is_none());
        last = set;
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_drains_keeps_its_sessions_where_the_cluster_says_so_and_gets_nothing_else() {
    let drains = |port| Endpoint { health: Health::Draining, ..endpoint(port, 1) };
    let before = endpoints(vec![locality(0, 1, vec![endpoint(1, 1), endpoint(2, 1)])]);
    let after = endpoints(vec![locality(0, 1, vec![drains(1), endpoint(2, 1)])]);
    let gone = Endpoint { health: Health::Unhealthy, ..endpoint(1, 1) };
    let sick = endpoints(vec![locality(0, 1, vec![gone, endpoint(2, 1)])]);
    let address = endpoint(1, 1).address;
    for keeps_draining in [true, false] {
        let balancing = Balancing { keeps_draining, ..Balancing::default() };
        let first = HostSet::new(&before, balancing, &HostSet::default());
        let host = first.at(address).cloned().expect("it is there");
        let then = HostSet::new(&after, balancing, &first);
        let kept = then.at(address).filter(|found| Arc::ptr_eq(found, &host));
        assert_eq!(kept.is_some(), keeps_draining, "the same as before");
        assert_eq!(tally(&then, 10), BTreeMap::from([(2, 10)]));
        assert!(HostSet::new(&sick, balancing, &then).at(address).is_none());
        let back = HostSet::new(&before, balancing, &then);
        assert_eq!(back.at(address).is_some_and(|found| Arc::ptr_eq(found, &host)), keeps_draining);
        assert!(then.at("127.0.0.1:3".parse().expect("literal")).is_none());
    }
}
