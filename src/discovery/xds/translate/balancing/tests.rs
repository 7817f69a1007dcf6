use pillion_wire::xds::cluster::cluster::{
    LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig, common_lb_config,
};
use pillion_wire::xds::cluster::{Cluster, LoadBalancingPolicy, load_balancing_policy};
use pillion_wire::xds::core::TypedExtensionConfig;
use pillion_wire::xds::pack;

use super::*;

fn read(cluster: &Cluster) -> Result<Balancing, String> {
    balancing(&At::ROOT, cluster).map_err(|refusal| refusal.to_string())
}

fn with(policy: PbLbPolicy, config: Option<LbConfig>) -> Cluster {
    Cluster { lb_policy: policy.into(), lb_config: config, ..Cluster::default() }
}

fn list(policies: Vec<Any>) -> LoadBalancingPolicy {
    let policies = policies.into_iter().map(|config| load_balancing_policy::Policy {
        typed_extension_config: Some(TypedExtensionConfig { name: "x".into(), typed_config: Some(config) }),
    });
    LoadBalancingPolicy { policies: policies.collect() }
}

fn typed_cluster(policies: Vec<Any>) -> Cluster {
    Cluster { load_balancing_policy: Some(list(policies)), ..Cluster::default() }
}

fn unknown() -> Any {
    Any { type_url: "type.googleapis.com/unknown".into(), value: Vec::new() }
}

#[test]
fn policies_have_the_defaults_of_envoy() {
    let least = |full_scan| LbPolicy::LeastRequest { choices: 2, bias: 100, full_scan };
    let full_scan = least_request::LeastRequest {
        selection_method: SelectionMethod::FullScan.into(),
        ..least_request::LeastRequest::default()
    };
    let nested = wrr_locality::WrrLocality {
        endpoint_picking_policy: Some(list(vec![unknown(), pack(type_url::RANDOM, &random::Random::default())])),
    };
    let ewma = PeakEwma::default();
    for (cluster, expected) in [
        (with(PbLbPolicy::RoundRobin, None), LbPolicy::RoundRobin),
        (with(PbLbPolicy::Random, None), LbPolicy::Random),
        (with(PbLbPolicy::LeastRequest, None), least(false)),
        (with(PbLbPolicy::RingHash, None), LbPolicy::RingHash { minimum: 1024, maximum: 8 << 20 }),
        (with(PbLbPolicy::Maglev, None), LbPolicy::Maglev { table: 65_537 }),
        (typed_cluster(vec![unknown(), pack(type_url::LEAST_REQUEST, &full_scan)]), least(true)),
        (typed_cluster(vec![pack(type_url::WRR_LOCALITY, &nested)]), LbPolicy::Random),
        (
            typed_cluster(vec![pack(type_url::PEAK_EWMA, &ewma), pack(type_url::LEAST_REQUEST, &full_scan)]),
            LbPolicy::PeakEwma {
                decay: Duration::from_secs(10),
                default_rtt: Duration::from_millis(10),
                penalty: PENALTY,
            },
        ),
    ] {
        let found = read(&cluster).expect("accepted");
        assert_eq!((found.policy, found.panic_threshold), (expected, 50), "{cluster:?}");
        assert_eq!(found.locality_weighted, expected == LbPolicy::Random && cluster.lb_policy == 0, "{cluster:?}");
    }
}

#[test]
fn slow_start_and_panic_are_read() {
    let slow = SlowStartConfig {
        slow_start_window: Some(pillion_wire::xds::Duration { seconds: 30, nanos: 0 }),
        aggression: Some(RuntimeDouble { default_value: 1.5, ..RuntimeDouble::default() }),
        min_weight_percent: None,
    };
    let config = LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(slow) });
    let mut cluster = with(PbLbPolicy::RoundRobin, Some(config));
    cluster.common_lb_config =
        Some(CommonLbConfig { healthy_panic_threshold: Some(Percent { value: 0.0 }), ..CommonLbConfig::default() });
    let found = read(&cluster).expect("accepted");
    let slow = SlowStart { window: Duration::from_secs(30), aggression: 150, minimum: 10 };
    assert_eq!((found.slow_start, found.panic_threshold), (Some(slow), 0));
}

#[test]
fn what_makes_no_sense_or_is_not_supported_is_refused_with_the_path() {
    let size = |value| Some(UInt64Value { value });
    let zones = LocalityConfigSpecifier::ZoneAwareLbConfig(common_lb_config::ZoneAwareLbConfig::default());
    let common = CommonLbConfig { locality_config_specifier: Some(zones), ..CommonLbConfig::default() };
    let least = LeastRequestLbConfig { choice_count: Some(UInt32Value { value: 1 }), ..Default::default() };
    let ring = RingHashLbConfig { hash_function: 1, ..RingHashLbConfig::default() };
    let small = RingHashLbConfig { maximum_ring_size: size(0), ..RingHashLbConfig::default() };
    let table = MaglevLbConfig { table_size: size(65_536) };
    let wrr = |child| wrr_locality::WrrLocality { endpoint_picking_policy: Some(list(vec![child])) };
    let twice = wrr(pack(type_url::WRR_LOCALITY, &wrr(unknown())));
    for (cluster, expected) in [
        (with(PbLbPolicy::ClusterProvided, None), "lb_policy: is not supported"),
        (with(PbLbPolicy::Random, Some(LbConfig::MaglevLbConfig(table))), "lb_config: is for another lb_policy"),
        (
            with(PbLbPolicy::LeastRequest, Some(LbConfig::LeastRequestLbConfig(least))),
            "least_request_lb_config.choice_count: has to be at least 2",
        ),
        (
            with(PbLbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(ring))),
            "ring_hash_lb_config.hash_function: is not supported",
        ),
        (
            with(PbLbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(small))),
            "ring_hash_lb_config.maximum_ring_size: is not from 1 to 8388608",
        ),
        (
            with(PbLbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(table))),
            "maglev_lb_config.table_size: is no prime number up to 5000011",
        ),
        (
            Cluster { common_lb_config: Some(common), ..Cluster::default() },
            "common_lb_config.zone_aware_lb_config: is not supported",
        ),
        (typed_cluster(vec![unknown()]), "load_balancing_policy.policies: is not supported"),
        (
            typed_cluster(vec![pack(type_url::WRR_LOCALITY, &twice)]),
            "load_balancing_policy.policies[0].typed_extension_config.typed_config.endpoint_picking_policy: \
             stands in itself",
        ),
    ] {
        assert_eq!(read(&cluster).expect_err("refused"), expected);
    }
}
