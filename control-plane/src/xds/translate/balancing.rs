//! How an endpoint is picked, in the fields of a `Cluster` and of what leads to it.

use pillion_wire::xds::{
    Any, PeakEwma, UInt32Value, UInt64Value,
    cluster::{
        Cluster, LoadBalancingPolicy,
        cluster::{
            CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
            RoundRobinLbConfig, SlowStartConfig, ring_hash_lb_config::HashFunction,
        },
        load_balancing_policy,
    },
    core::{RuntimeDouble, TypedExtensionConfig},
    envoy_type::{self, Percent},
    lb_common,
    least_request::{LeastRequest, least_request::SelectionMethod},
    pack,
    round_robin::RoundRobin,
    route::route_action::{HashPolicy, hash_policy},
    type_url,
    wrr_locality::WrrLocality,
};

use super::{duration, session};
use crate::{
    core::policy::{Algorithm, HashOn, LoadBalancing, SlowStart},
    xds::dialect::Dialect,
};

/// Places on a ring, unless a policy wants more: where weights differ much, the lightest would need very many.
const LARGEST_RING: u32 = 65_536;

/// Says in `cluster` how `policy` wants endpoints to be picked.
pub(super) fn apply(cluster: &mut Cluster, policy: Option<&LoadBalancing>, dialect: Dialect) {
    let default = LoadBalancing::default();
    let policy = policy.unwrap_or(&default);
    if dialect == Dialect::Grpc {
        cluster.common_lb_config =
            Some(CommonLbConfig { override_host_status: Some(session::keeping()), ..CommonLbConfig::default() });
        return grpc(cluster, policy.algorithm);
    }
    cluster.common_lb_config = Some(CommonLbConfig {
        override_host_status: Some(session::keeping()),
        healthy_panic_threshold: Some(Percent { value: policy.panic_threshold.unwrap_or(0).into() }),
        ..CommonLbConfig::default()
    });
    let slow = policy.slow_start;
    match policy.algorithm {
        Algorithm::RoundRobin => {
            cluster.lb_policy = LbPolicy::RoundRobin.into();
            let config = |slow| LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(slow) });
            cluster.lb_config = slow.map(slow_start).map(config);
        }
        Algorithm::Random => cluster.lb_policy = LbPolicy::Random.into(),
        Algorithm::LeastRequest { choices } => {
            cluster.lb_policy = LbPolicy::LeastRequest.into();
            cluster.lb_config = Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                choice_count: Some(UInt32Value { value: choices }),
                slow_start_config: slow.map(slow_start),
                ..LeastRequestLbConfig::default()
            }));
        }
        Algorithm::LeastConnections => {
            let config = LeastRequest {
                selection_method: SelectionMethod::FullScan.into(),
                slow_start_config: slow.map(typed_slow_start),
                ..LeastRequest::default()
            };
            cluster.load_balancing_policy = Some(list([pack(type_url::LEAST_REQUEST, &config)]));
        }
        Algorithm::PeakEwma { decay, default_rtt } => {
            let config = PeakEwma { decay_time: Some(duration(decay)), default_rtt: Some(duration(default_rtt)) };
            // An Envoy without this extension passes it over.
            let second = pack(type_url::LEAST_REQUEST, &LeastRequest::default());
            cluster.load_balancing_policy = Some(list([pack(type_url::PEAK_EWMA, &config), second]));
        }
        Algorithm::RingHash { minimum } => {
            cluster.lb_policy = LbPolicy::RingHash.into();
            cluster.lb_config = Some(LbConfig::RingHashLbConfig(ring(minimum)));
        }
        Algorithm::Maglev { table } => {
            cluster.lb_policy = LbPolicy::Maglev.into();
            cluster.lb_config = Some(LbConfig::MaglevLbConfig(MaglevLbConfig {
                table_size: Some(UInt64Value { value: table.into() }),
            }));
        }
    }
}

/// gRPC refuses policies that it does not know, save in a list that has one that it knows (gRFC A52). It has rings (A42)
/// but no table, and least request (A48) only in some languages.
fn grpc(cluster: &mut Cluster, algorithm: Algorithm) {
    match algorithm {
        Algorithm::RingHash { minimum } => {
            cluster.lb_policy = LbPolicy::RingHash.into();
            cluster.lb_config = Some(LbConfig::RingHashLbConfig(ring(minimum)));
        }
        Algorithm::Maglev { .. } => {
            cluster.lb_policy = LbPolicy::RingHash.into();
            cluster.lb_config = Some(LbConfig::RingHashLbConfig(ring(1024)));
        }
        Algorithm::LeastRequest { .. } | Algorithm::LeastConnections => {
            let choices = match algorithm {
                Algorithm::LeastRequest { choices } => choices.clamp(2, 10),
                _ => 10,
            };
            let least = LeastRequest { choice_count: Some(UInt32Value { value: choices }), ..LeastRequest::default() };
            let round_robin = pack(type_url::ROUND_ROBIN, &RoundRobin::default());
            let child = list([pack(type_url::LEAST_REQUEST, &least), round_robin]);
            let config = WrrLocality { endpoint_picking_policy: Some(child) };
            cluster.load_balancing_policy = Some(list([pack(type_url::WRR_LOCALITY, &config)]));
        }
        Algorithm::RoundRobin | Algorithm::Random | Algorithm::PeakEwma { .. } => {}
    }
}

fn list<const N: usize>(policies: [Any; N]) -> LoadBalancingPolicy {
    let policies = policies.into_iter().map(|config| load_balancing_policy::Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: config.type_url.rsplit('.').next().unwrap_or_default().to_owned(),
            typed_config: Some(config),
        }),
    });
    LoadBalancingPolicy { policies: policies.collect() }
}

fn ring(minimum: u32) -> RingHashLbConfig {
    RingHashLbConfig {
        minimum_ring_size: Some(UInt64Value { value: minimum.into() }),
        hash_function: HashFunction::XxHash.into(),
        maximum_ring_size: Some(UInt64Value { value: minimum.max(LARGEST_RING).into() }),
    }
}

fn slow_start(slow: SlowStart) -> SlowStartConfig {
    let SlowStart { window, aggression_percent, minimum_percent } = slow;
    SlowStartConfig {
        slow_start_window: Some(duration(window)),
        aggression: Some(aggression(aggression_percent)),
        min_weight_percent: Some(Percent { value: minimum_percent.into() }),
    }
}

fn typed_slow_start(slow: SlowStart) -> lb_common::SlowStartConfig {
    let SlowStartConfig { slow_start_window, aggression, min_weight_percent } = slow_start(slow);
    lb_common::SlowStartConfig { slow_start_window, aggression, min_weight_percent }
}

fn aggression(percent: u32) -> RuntimeDouble {
    RuntimeDouble { default_value: f64::from(percent) / 100.0, runtime_key: "pillion.slow_start.aggression".to_owned() }
}

/// What keeps requests together: the first that a request has.
pub(super) fn hash_policies<'a>(hash_on: impl Iterator<Item = &'a HashOn>, dialect: Dialect) -> Vec<HashPolicy> {
    // gRPC passes over what it does not know.
    let known = hash_on.filter(|on| dialect != Dialect::Grpc || matches!(on, HashOn::Header(_)));
    let policies = known.map(|on| HashPolicy { policy_specifier: Some(specifier(on)), terminal: true });
    policies.collect()
}

fn specifier(on: &HashOn) -> hash_policy::PolicySpecifier {
    use hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier as Specifier, QueryParameter};
    match on {
        HashOn::Header(name) => Specifier::Header(Header { header_name: name.clone(), ..Header::default() }),
        HashOn::Cookie { name, ttl, path } => Specifier::Cookie(Cookie {
            name: name.clone(),
            ttl: ttl.map(duration),
            path: path.clone(),
            ..Cookie::default()
        }),
        HashOn::Query(name) => Specifier::QueryParameter(QueryParameter { name: name.clone() }),
        HashOn::SourceAddress => Specifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
    }
}

/// What keeps connections together, of which no more is known than where they come from.
pub(super) fn connection_hash<'a>(mut hash_on: impl Iterator<Item = &'a HashOn>) -> Vec<envoy_type::HashPolicy> {
    use envoy_type::hash_policy::{PolicySpecifier, SourceIp};
    let by_source = hash_on.any(|on| *on == HashOn::SourceAddress);
    let policy = envoy_type::HashPolicy { policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp {})) };
    by_source.then_some(policy).into_iter().collect()
}
