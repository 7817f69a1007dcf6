use proptest::prelude::*;

use super::test_view::Hosts;
use super::*;

fn balancer(factory: &dyn Factory, weights: &[u32]) -> Box<dyn LoadBalancer> {
    factory.make(&spec(factory.policy(), weights))
}

fn spec(policy: LbPolicy, weights: &[u32]) -> Spec<'_> {
    Spec { policy, weights, name: &|at| format!("10.0.0.{at}:80"), start: 7 }
}

fn names_hash(policy: LbPolicy) -> bool {
    matches!(policy, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. })
}

/// How many of `picks` each host gets; calls of balancers that hash have all a hash of their own.
fn tally(balancer: &dyn LoadBalancer, hosts: &mut Hosts, picks: u64) -> Vec<u64> {
    let mut tally = vec![0; hosts.weights.len()];
    for pick in 0..picks {
        hosts.hash = Some(xxh64(&pick.to_le_bytes(), 0));
        tally[balancer.pick(hosts).expect("there is a usable host")] += 1;
    }
    tally
}

#[test]
fn every_balancer_is_total_and_picks_only_usable_hosts() {
    for factory in LOAD_BALANCERS {
        let name = factory.policy().name();
        assert_eq!(balancer(*factory, &[]).pick(&Hosts::new(&[])), None, "{name}");
        for weights in [&[1, 1, 1][..], &[1, 2, 900], &[900, 1, 900]] {
            let balancer = balancer(*factory, weights);
            let mut hosts = Hosts::new(weights);
            for hash in [None, Some(0), Some(u64::MAX)] {
                hosts.hash = hash;
                hosts.usable = vec![false; 3];
                assert_eq!(balancer.pick(&hosts), None, "{name}");
                hosts.usable[1] = true;
                for is_moving in [false, true, false] {
                    hosts.is_moving = is_moving;
                    assert_eq!(balancer.pick(&hosts), Some(1), "{name}");
                }
            }
        }
    }
}

#[test]
fn every_balancer_uses_hosts_by_weight_and_passes_the_share_of_one_that_is_down_to_all_others() {
    for factory in LOAD_BALANCERS {
        for weights in [&[1; 10][..], &[1, 2, 3, 4, 5, 5, 4, 3, 2, 1]] {
            for down in [None, Some(3)] {
                let balancer = balancer(*factory, weights);
                let mut hosts = Hosts::new(weights);
                down.into_iter().for_each(|down: usize| hosts.usable[down] = false);
                let total: f64 = (0..10).filter(|&at| hosts.usable[at]).map(|at| f64::from(weights[at])).sum();
                let tally = tally(&*balancer, &mut hosts, 100_000);
                for at in (0..10).filter(|at| Some(*at) != down) {
                    let ratio = tally[at] as f64 / 100_000.0 / (f64::from(weights[at]) / total);
                    // A ring of 1,024 places is as even as chance has it; those of one that is down are its neighbours'.
                    let tolerance = if names_hash(factory.policy()) { 0.35 } else { 0.08 };
                    let name = factory.policy().name();
                    assert!((ratio - 1.0).abs() < tolerance, "{name}, host {at} of {weights:?}, {down:?}: {ratio}");
                }
            }
        }
    }
}

#[test]
fn names_are_unique() {
    for (at, factory) in LOAD_BALANCERS.iter().enumerate() {
        let name = factory.policy().name();
        assert!(!LOAD_BALANCERS.iter().skip(at + 1).any(|other| other.policy().name() == name));
    }
}

#[test]
fn the_turn_after_one_that_is_down_is_not_taken_twice() {
    let balancer = balancer(&round_robin::Factory, &[1; 4]);
    let mut hosts = Hosts::new(&[1; 4]);
    hosts.usable[1] = false;
    assert_eq!(tally(&*balancer, &mut hosts, 300), [100, 0, 100, 100]);
}

#[test]
fn the_least_busy_is_picked() {
    let full = spec(LbPolicy::LeastRequest { choices: 2, bias: 100, full_scan: true }, &[1; 20]);
    let mut hosts = Hosts::new(&[1; 20]);
    hosts.in_flight = (1..=20).collect();
    assert_eq!(tally(&*make(&full), &mut hosts, 10)[0], 10);
    let two = spec(LbPolicy::LeastRequest { choices: 2, bias: 100, full_scan: false }, &[1; 20]);
    let tally = tally(&*make(&two), &mut hosts, 10_000);
    assert_eq!(tally[19], 0, "it is never the lesser of two");
    assert!(tally[0] > 900 && tally[0] > tally[10] && tally[10] > tally[18], "{tally:?}");
    let mut few = Hosts::new(&[1; 3]);
    few.in_flight = vec![2, 1, 2];
    assert_eq!(balancer(&least_request::Factory, &[1; 3]).pick(&few), Some(1));
}

#[test]
fn where_weights_differ_load_counts_against_them() {
    let mut hosts = Hosts::new(&[10, 20]);
    hosts.in_flight = vec![0, 3];
    let found = tally(&*balancer(&least_request::Factory, &[10, 20]), &mut hosts, 30_000);
    assert!(found[0].abs_diff(20_000) < 500, "10/1 to 20/4: {found:?}");
}

#[test]
fn peak_ewma_avoids_the_slow_and_the_busy() {
    let mut hosts = Hosts::new(&[1; 4]);
    hosts.latency = vec![0.01, 0.01, 0.5, 0.01];
    hosts.in_flight = vec![0, 9, 0, 0];
    let found = tally(&*balancer(&peak_ewma::Factory, &[1; 4]), &mut hosts, 10_000);
    assert_eq!(found[2], 0, "it is never the lesser of two");
    assert!(found[1] < found[0] / 2, "{found:?}");
}

#[test]
fn a_hash_keeps_its_host_when_others_come_and_go() {
    for factory in [&ring_hash::Factory as &dyn Factory, &maglev::Factory] {
        let (ten, eleven) = (balancer(factory, &[1; 10]), balancer(factory, &[1; 11]));
        let (mut few, mut more) = (Hosts::new(&[1; 10]), Hosts::new(&[1; 11]));
        let (mut to_new, mut among_old) = (0, 0);
        for call in 0..10_000_u64 {
            let hash = Some(xxh64(&call.to_le_bytes(), 0));
            (few.hash, more.hash) = (hash, hash);
            match (ten.pick(&few), eleven.pick(&more)) {
                (_, Some(10)) => to_new += 1,
                (before, after) => among_old += u32::from(before != after),
            }
        }
        let name = factory.policy().name();
        assert!((600..1300).contains(&to_new), "{name}: {to_new} of 10,000 should be about a eleventh");
        assert!(among_old <= 1000, "{name}: {among_old} moved between hosts that stayed");
        // One that is down moves its own only.
        for call in 0..1000_u64 {
            few.hash = Some(xxh64(&call.to_le_bytes(), 0));
            few.usable[4] = true;
            let before = ten.pick(&few);
            few.usable[4] = false;
            let after = ten.pick(&few);
            assert!(before == after || before == Some(4), "{name}: {before:?} {after:?}");
        }
    }
}

#[test]
fn a_hash_leads_to_the_same_host_in_whatever_order_hosts_are_told() {
    for factory in [&ring_hash::Factory as &dyn Factory, &maglev::Factory] {
        let forward = |at| format!("10.0.0.{at}:80");
        let backward = |at| format!("10.0.0.{}:80", 9 - at);
        let make = |name| factory.make(&Spec { policy: factory.policy(), weights: &[1; 10], name, start: 0 });
        let (one, other) = (make(&forward), make(&backward));
        let mut hosts = Hosts::new(&[1; 10]);
        for call in 0..1000_u64 {
            hosts.hash = Some(xxh64(&call.to_le_bytes(), 0));
            assert_eq!(one.pick(&hosts), other.pick(&hosts).map(|at| 9 - at), "{}", factory.policy().name());
        }
    }
}

#[test]
fn workers_that_share_a_balancer_keep_to_the_weights_together() {
    let weights = [7, 1, 3, 1];
    let balancer = balancer(&round_robin::Factory, &weights);
    let totals = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| tally(&*balancer, &mut Hosts::new(&weights), 30_000))).collect();
        workers.into_iter().fold(vec![0; 4], |sum, worker| {
            let tally = worker.join().expect("no panic");
            sum.iter().zip(tally).map(|(a, b)| a + b).collect()
        })
    });
    for (total, weight) in totals.iter().zip(weights) {
        assert!(total.abs_diff(u64::from(weight) * 10_000) <= 8, "{totals:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn weights_hold_within_one_percent_over_100_000_picks(weights in prop::collection::vec(1_u32..=128, 1..20)) {
        let balancer = balancer(&round_robin::Factory, &weights);
        let mut hosts = Hosts::new(&weights);
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let tally = tally(&*balancer, &mut hosts, 100_000);
        for (found, weight) in tally.iter().zip(&weights) {
            let expected = 100_000.0 * f64::from(*weight) / total;
            prop_assert!((*found as f64 - expected).abs() <= (expected * 0.01).max(2.0), "{weights:?}: {tally:?}");
        }
    }

    #[test]
    fn maglev_shares_rows_by_weight(weights in prop::collection::vec(1_u32..=20, 1..12)) {
        let balancer = balancer(&maglev::Factory, &weights);
        let mut hosts = Hosts::new(&weights);
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let tally = tally(&*balancer, &mut hosts, 50_000);
        for (found, weight) in tally.iter().zip(&weights) {
            let expected = 50_000.0 * f64::from(*weight) / total;
            prop_assert!((*found as f64 - expected).abs() <= (expected * 0.15).max(60.0), "{weights:?}: {tally:?}");
        }
    }
}
