//! How hosts are picked: `Cluster.lb_policy`, `load_balancing_policy` and what tunes them.

use std::time::Duration;

use pillion_wire::xds::cluster as pb;
use pillion_wire::xds::cluster::cluster::common_lb_config::LocalityConfigSpecifier;
use pillion_wire::xds::cluster::cluster::ring_hash_lb_config::HashFunction;
use pillion_wire::xds::cluster::cluster::{CommonLbConfig, LbConfig, LbPolicy as PbLbPolicy};
use pillion_wire::xds::core::RuntimeDouble;
use pillion_wire::xds::envoy_type::Percent;
use pillion_wire::xds::lb_common::locality_lb_config::LocalityConfigSpecifier as TypedLocality;
use pillion_wire::xds::least_request::least_request::SelectionMethod;
use pillion_wire::xds::{Any, PeakEwma, UInt32Value, UInt64Value, lb_common, least_request, maglev, random};
use pillion_wire::xds::{ring_hash, round_robin, type_url, wrr_locality};

use super::at::{At, Reason, Refusal, duration, pass_over, refuse, unpack};
use super::session;
use crate::config::{Balancing, LbPolicy, SlowStart};

/// Envoy's default of `healthy_panic_threshold`.
const PANIC_THRESHOLD: u32 = 50;
/// The latency that a failure counts as (Linkerd `balancer.alpha.linkerd.io/penalize-failures`).
const PENALTY: Duration = Duration::from_secs(5);
/// The largest ring of Envoy, and so its default.
const LARGEST_RING: u64 = 8 << 20;
/// Envoy's limit of `Maglev.table_size`.
const LARGEST_TABLE: u64 = 5_000_011;

/// All that a cluster says of it.
pub(super) fn balancing(at: &At<'_>, cluster: &pb::Cluster) -> Result<Balancing, Refusal> {
    let common = &at.field("common_lb_config");
    let (panic_threshold, by_locality) = match &cluster.common_lb_config {
        Some(config) => common_config(common, config)?,
        None => (PANIC_THRESHOLD, false),
    };
    let keeping = cluster.common_lb_config.as_ref().and_then(|config| config.override_host_status.as_ref());
    let keeps_draining = session::keeps_draining(&common.field("override_host_status"), keeping)?;
    let mut found = match &cluster.load_balancing_policy {
        Some(policy) => typed(&at.field("load_balancing_policy"), policy)?,
        None => named(at, cluster)?,
    };
    found.panic_threshold = panic_threshold;
    found.locality_weighted |= by_locality;
    found.keeps_draining = keeps_draining;
    Ok(found)
}

fn common_config(at: &At<'_>, config: &CommonLbConfig) -> Result<(u32, bool), Refusal> {
    refuse!(at, config; consistent_hashing_lb_config);
    pass_over!(at, config;
        update_merge_window, ignore_new_hosts_until_first_hc, close_connections_on_host_set_change);
    let threshold = &at.field("healthy_panic_threshold");
    let threshold = config.healthy_panic_threshold.map_or(Ok(PANIC_THRESHOLD), |given| percent(threshold, given))?;
    let by_locality = match &config.locality_config_specifier {
        // Which zone is near is a matter of priorities.
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            return Err(at.field("zone_aware_lb_config").refuse(Reason::Unsupported));
        }
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => true,
        None => false,
    };
    Ok((threshold, by_locality))
}

/// `lb_policy` with its `*_lb_config`.
fn named(at: &At<'_>, cluster: &pb::Cluster) -> Result<Balancing, Refusal> {
    let config = cluster.lb_config.as_ref();
    match PbLbPolicy::try_from(cluster.lb_policy) {
        Ok(PbLbPolicy::RoundRobin) => {
            let Some(config) = expect(at, config, |config| match config {
                LbConfig::RoundRobinLbConfig(config) => Some(config),
                _ => None,
            })?
            else {
                return Ok(Balancing::default());
            };
            let at = &at.field("round_robin_lb_config");
            Ok(Balancing { slow_start: slow(at, config.slow_start_config.as_ref())?, ..Balancing::default() })
        }
        Ok(PbLbPolicy::Random) => expect(at, config, |_| None::<&()>).map(|_| of(LbPolicy::Random)),
        Ok(PbLbPolicy::LeastRequest) => {
            let config = expect(at, config, |config| match config {
                LbConfig::LeastRequestLbConfig(config) => Some(config),
                _ => None,
            })?;
            let config = config.cloned().unwrap_or_default();
            let at = &at.field("least_request_lb_config");
            let policy = least(at, config.choice_count, config.active_request_bias, false)?;
            Ok(Balancing { slow_start: slow(at, config.slow_start_config.as_ref())?, ..of(policy) })
        }
        Ok(PbLbPolicy::RingHash) => {
            let config = expect(at, config, |config| match config {
                LbConfig::RingHashLbConfig(config) => Some(config),
                _ => None,
            })?;
            let config = config.copied().unwrap_or_default();
            let at = &at.field("ring_hash_lb_config");
            if config.hash_function != HashFunction::XxHash as i32 {
                return Err(at.field("hash_function").refuse(Reason::Unsupported));
            }
            ring(at, config.minimum_ring_size, config.maximum_ring_size).map(of)
        }
        Ok(PbLbPolicy::Maglev) => {
            let config = expect(at, config, |config| match config {
                LbConfig::MaglevLbConfig(config) => Some(config),
                _ => None,
            })?;
            table(&at.field("maglev_lb_config"), config.and_then(|config| config.table_size)).map(of)
        }
        _ => Err(at.field("lb_policy").refuse(Reason::Unsupported)),
    }
}

/// What `pick` finds in the configuration, which has to be of that kind when it is there.
fn expect<'a, T>(
    at: &At<'_>,
    config: Option<&'a LbConfig>,
    pick: impl Fn(&'a LbConfig) -> Option<&'a T>,
) -> Result<Option<&'a T>, Refusal> {
    let Some(config) = config else { return Ok(None) };
    pick(config).map(Some).ok_or_else(|| at.field("lb_config").invalid("is for another lb_policy"))
}

/// The first of the policies that is supported (gRFC A52).
fn typed(at: &At<'_>, list: &pb::LoadBalancingPolicy) -> Result<Balancing, Refusal> {
    let places = &at.field("policies");
    for (index, policy) in list.policies.iter().enumerate() {
        let at = &places.index(index);
        let at = &at.field("typed_extension_config");
        let Some(config) = policy.typed_extension_config.as_ref().and_then(|config| config.typed_config.as_ref())
        else {
            return Err(at.refuse(Reason::Missing));
        };
        if let Some(found) = one(&at.field("typed_config"), config)? {
            return Ok(found);
        }
    }
    Err(places.refuse(Reason::Unsupported))
}

fn one(at: &At<'_>, config: &Any) -> Result<Option<Balancing>, Refusal> {
    let found = match config.type_url.as_str() {
        type_url::ROUND_ROBIN => {
            let config: round_robin::RoundRobin = unpack(at, type_url::ROUND_ROBIN, config)?;
            let locality_weighted = locality(at, config.locality_lb_config.as_ref())?;
            let slow_start = typed_slow(at, config.slow_start_config.as_ref())?;
            Balancing { slow_start, locality_weighted, ..Balancing::default() }
        }
        type_url::RANDOM => {
            let config: random::Random = unpack(at, type_url::RANDOM, config)?;
            let locality_weighted = locality(at, config.locality_lb_config.as_ref())?;
            Balancing { locality_weighted, ..of(LbPolicy::Random) }
        }
        type_url::LEAST_REQUEST => {
            let config: least_request::LeastRequest = unpack(at, type_url::LEAST_REQUEST, config)?;
            refuse!(at, config; enable_full_scan);
            let full_scan = config.selection_method == SelectionMethod::FullScan as i32;
            let policy = least(at, config.choice_count, config.active_request_bias, full_scan)?;
            let locality_weighted = locality(at, config.locality_lb_config.as_ref())?;
            let slow_start = typed_slow(at, config.slow_start_config.as_ref())?;
            Balancing { slow_start, locality_weighted, ..of(policy) }
        }
        type_url::PEAK_EWMA => {
            let config: PeakEwma = unpack(at, type_url::PEAK_EWMA, config)?;
            of(LbPolicy::PeakEwma {
                decay: positive(&at.field("decay_time"), config.decay_time, Duration::from_secs(10))?,
                default_rtt: positive(&at.field("default_rtt"), config.default_rtt, Duration::from_millis(10))?,
                penalty: PENALTY,
            })
        }
        type_url::RING_HASH => {
            let config: ring_hash::RingHash = unpack(at, type_url::RING_HASH, config)?;
            refuse!(at, config; use_hostname_for_hashing, hash_balance_factor, consistent_hashing_lb_config);
            if config.hash_function == ring_hash::ring_hash::HashFunction::MurmurHash2 as i32 {
                return Err(at.field("hash_function").refuse(Reason::Unsupported));
            }
            let locality_weighted = config.locality_weighted_lb_config.is_some();
            Balancing { locality_weighted, ..of(ring(at, config.minimum_ring_size, config.maximum_ring_size)?) }
        }
        type_url::MAGLEV => {
            let config: maglev::Maglev = unpack(at, type_url::MAGLEV, config)?;
            refuse!(at, config; consistent_hashing_lb_config);
            let locality_weighted = config.locality_weighted_lb_config.is_some();
            Balancing { locality_weighted, ..of(table(at, config.table_size)?) }
        }
        type_url::WRR_LOCALITY => {
            let config: wrr_locality::WrrLocality = unpack(at, type_url::WRR_LOCALITY, config)?;
            let at = &at.field("endpoint_picking_policy");
            let child = config.endpoint_picking_policy.as_ref().ok_or_else(|| at.refuse(Reason::Missing))?;
            if child.policies.iter().any(is_wrr_locality) {
                return Err(at.invalid("stands in itself"));
            }
            Balancing { locality_weighted: true, ..typed(at, child)? }
        }
        _ => return Ok(None),
    };
    Ok(Some(found))
}

/// Nested ones could go as deep as whoever sent them likes.
fn is_wrr_locality(policy: &pb::load_balancing_policy::Policy) -> bool {
    let config = policy.typed_extension_config.as_ref().and_then(|config| config.typed_config.as_ref());
    config.is_some_and(|config| config.type_url == type_url::WRR_LOCALITY)
}

fn of(policy: LbPolicy) -> Balancing {
    Balancing { policy, ..Balancing::default() }
}

fn least(
    at: &At<'_>,
    choices: Option<UInt32Value>,
    bias: Option<RuntimeDouble>,
    full_scan: bool,
) -> Result<LbPolicy, Refusal> {
    let choices = choices.map_or(2, |given| given.value);
    if choices < 2 {
        return Err(at.field("choice_count").invalid("has to be at least 2"));
    }
    let bias = bias.map_or(Ok(100), |given| hundredths(&at.field("active_request_bias"), given.default_value))?;
    Ok(LbPolicy::LeastRequest { choices, bias, full_scan })
}

fn ring(at: &At<'_>, minimum: Option<UInt64Value>, maximum: Option<UInt64Value>) -> Result<LbPolicy, Refusal> {
    let maximum = maximum.map_or(LARGEST_RING, |given| given.value);
    let minimum = minimum.map_or_else(|| 1024.min(maximum), |given| given.value);
    if maximum == 0 || maximum > LARGEST_RING {
        return Err(at.field("maximum_ring_size").invalid("is not from 1 to 8388608"));
    }
    if minimum == 0 || minimum > maximum {
        return Err(at.field("minimum_ring_size").invalid("is not from 1 to maximum_ring_size"));
    }
    let size = |size: u64| u32::try_from(size).unwrap_or(u32::MAX); // Both are below it.
    Ok(LbPolicy::RingHash { minimum: size(minimum), maximum: size(maximum) })
}

fn table(at: &At<'_>, size: Option<UInt64Value>) -> Result<LbPolicy, Refusal> {
    let size = size.map_or(65_537, |given| given.value);
    let is_prime = size > 1
        && (2_u64..).take_while(|divisor| divisor * divisor <= size).all(|divisor| !size.is_multiple_of(divisor));
    match u32::try_from(size) {
        Ok(table) if size <= LARGEST_TABLE && is_prime => Ok(LbPolicy::Maglev { table }),
        _ => Err(at.field("table_size").invalid("is no prime number up to 5000011")),
    }
}

fn locality(at: &At<'_>, config: Option<&lb_common::LocalityLbConfig>) -> Result<bool, Refusal> {
    match config.and_then(|config| config.locality_config_specifier.as_ref()) {
        Some(TypedLocality::LocalityWeightedLbConfig(_)) => Ok(true),
        Some(TypedLocality::ZoneAwareLbConfig(_)) => {
            let at = &at.field("locality_lb_config");
            Err(at.field("zone_aware_lb_config").refuse(Reason::Unsupported))
        }
        None => Ok(false),
    }
}

fn slow(at: &At<'_>, config: Option<&pb::cluster::SlowStartConfig>) -> Result<Option<SlowStart>, Refusal> {
    let Some(config) = config else { return Ok(None) };
    slow_start(at, config.slow_start_window, config.aggression.as_ref(), config.min_weight_percent)
}

fn typed_slow(at: &At<'_>, config: Option<&lb_common::SlowStartConfig>) -> Result<Option<SlowStart>, Refusal> {
    let Some(config) = config else { return Ok(None) };
    slow_start(at, config.slow_start_window, config.aggression.as_ref(), config.min_weight_percent)
}

/// `None`: a window of 0 turns it off.
fn slow_start(
    at: &At<'_>,
    window: Option<pillion_wire::xds::Duration>,
    aggression: Option<&RuntimeDouble>,
    minimum: Option<Percent>,
) -> Result<Option<SlowStart>, Refusal> {
    let at = &at.field("slow_start_config");
    let window = window.map_or(Ok(Duration::ZERO), |given| duration(&at.field("slow_start_window"), given))?;
    let aggression = aggression.map_or(Ok(100), |given| hundredths(&at.field("aggression"), given.default_value))?;
    if aggression == 0 {
        return Err(at.field("aggression").invalid("has to be more than 0"));
    }
    let minimum = minimum.map_or(Ok(10), |given| percent(&at.field("min_weight_percent"), given))?;
    Ok((!window.is_zero()).then_some(SlowStart { window, aggression, minimum }))
}

fn positive(at: &At<'_>, given: Option<pillion_wire::xds::Duration>, default: Duration) -> Result<Duration, Refusal> {
    let given = given.map_or(Ok(default), |given| duration(at, given))?;
    if given.is_zero() { Err(at.invalid("has to be longer than 0")) } else { Ok(given) }
}

/// Whole percent.
fn percent(at: &At<'_>, percent: Percent) -> Result<u32, Refusal> {
    if !(0.0..=100.0).contains(&percent.value) {
        return Err(at.invalid("is not from 0 to 100"));
    }
    Ok(percent.value.round() as u32)
}

fn hundredths(at: &At<'_>, value: f64) -> Result<u32, Refusal> {
    if !(0.0..=100.0).contains(&value) {
        return Err(at.invalid("is not from 0 to 100"));
    }
    Ok((value * 100.0).round() as u32)
}

#[cfg(test)]
mod tests;
