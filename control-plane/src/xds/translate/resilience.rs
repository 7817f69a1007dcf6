//! Limits, breaker and outlier detection of a cluster: Envoy's fields, and metadata for our own sidecars.

use std::collections::HashMap;

use pillion_wire::{
    resilience::{
        BREAKER_METADATA, Breaker, FALLBACK_METADATA, Fallback, LIMITS_METADATA, Limits, OUTLIER_METADATA, Outlier,
    },
    xds::{
        BoolValue, Struct, UInt32Value,
        cluster::{CircuitBreakers, OutlierDetection, circuit_breakers::Thresholds},
        core::Metadata,
    },
};

use super::duration;
use crate::{core::policy::Policy, xds::dialect::Dialect};

/// `Cluster.circuit_breakers`. Without a policy there is no limit, and others than sidecars have to be told so: their
/// default is 1024 (3 retries).
pub(super) fn circuit_breakers(policy: &Policy, dialect: Dialect) -> Option<CircuitBreakers> {
    let unlimited = Limits::default();
    let limits = match (&policy.limits, dialect) {
        (Some(limits), _) => limits,
        (None, Dialect::Pillion) => return None,
        (None, Dialect::Grpc | Dialect::Envoy) => &unlimited,
    };
    let limit = |limit: Option<u32>| Some(UInt32Value { value: limit.unwrap_or(u32::MAX) });
    let pending = match dialect {
        Dialect::Pillion => Some(limits.pending),
        // To Envoy these are requests that wait for their connection: without one of them no request is served.
        Dialect::Grpc | Dialect::Envoy => Some(limits.pending).filter(|pending| *pending > 0),
    };
    let thresholds = Thresholds {
        max_connections: limit(limits.connections),
        max_pending_requests: limit(pending),
        max_requests: limit(limits.requests),
        max_retries: limit(limits.retries),
        ..Thresholds::default()
    };
    let per_host = limits.endpoint_connections.filter(|_| dialect != Dialect::Grpc);
    let per_host =
        per_host.map(|connections| Thresholds { max_connections: limit(Some(connections)), ..Thresholds::default() });
    Some(CircuitBreakers { thresholds: vec![thresholds], per_host_thresholds: per_host.into_iter().collect() })
}

/// `Cluster.outlier_detection`. To Envoy the breaker is a part of it, as far as it has one: failures in a row, and
/// open times. gRPC has none (gRFC A50).
pub(super) fn outlier_detection(policy: &Policy, dialect: Dialect) -> Option<OutlierDetection> {
    let breaker = policy.breaker.as_ref().filter(|_| dialect == Dialect::Envoy);
    if policy.outlier.is_none() && breaker.is_none() {
        return None;
    }
    let outlier = policy.outlier.clone().unwrap_or_else(|| {
        let base = Outlier::default();
        let times = breaker.map_or((base.base_ejection, base.max_ejection), |breaker| (breaker.open, breaker.max_open));
        // All but the last: Envoy compares the share with the host itself in it.
        Outlier { base_ejection: times.0, max_ejection: times.1, max_percent: 99, ..base }
    });
    let number = |value: u32| Some(UInt32Value { value });
    let (rate, percentage) = (outlier.success_rate, outlier.failure_percentage);
    let (in_a_row, at_gateway) = consecutive(breaker);
    Some(OutlierDetection {
        interval: Some(duration(outlier.interval)),
        base_ejection_time: Some(duration(outlier.base_ejection)),
        max_ejection_time: Some(duration(outlier.max_ejection)),
        max_ejection_time_jitter: Some(duration(outlier.jitter)),
        max_ejection_percent: number(outlier.max_percent),
        // What is on by default has to be turned off.
        enforcing_consecutive_5xx: number(if in_a_row.is_some() { 100 } else { 0 }),
        consecutive_5xx: in_a_row.and_then(number),
        enforcing_consecutive_gateway_failure: number(if at_gateway.is_some() { 100 } else { 0 }),
        consecutive_gateway_failure: at_gateway.and_then(number),
        enforcing_success_rate: number(rate.map_or(0, |rate| rate.enforcing)),
        success_rate_minimum_hosts: rate.and_then(|rate| number(rate.hosts)),
        success_rate_request_volume: rate.and_then(|rate| number(rate.volume)),
        success_rate_stdev_factor: rate.and_then(|rate| number(rate.stdev_factor)),
        enforcing_failure_percentage: number(percentage.map_or(0, |percentage| percentage.enforcing)),
        failure_percentage_threshold: percentage.and_then(|percentage| number(percentage.threshold)),
        failure_percentage_minimum_hosts: percentage.and_then(|percentage| number(percentage.hosts)),
        failure_percentage_request_volume: percentage.and_then(|percentage| number(percentage.volume)),
        // An endpoint that fails real requests is not well because it answers a health check.
        successful_active_health_check_uneject_host: (policy.health.is_some() && dialect != Dialect::Grpc)
            .then_some(BoolValue { value: false }),
        ..OutlierDetection::default()
    })
}

/// Failures in a row, of any kind of 5xx or of those that gateways make.
fn consecutive(breaker: Option<&Breaker>) -> (Option<u32>, Option<u32>) {
    let Some(breaker) = breaker else { return (None, None) };
    match (breaker.failures.server_errors, breaker.failures.gateway_errors) {
        (true, _) => (breaker.consecutive, None),
        (false, true) => (None, breaker.consecutive),
        (false, false) => (None, None),
    }
}

/// `Cluster.metadata`: what Envoy has no field for, for our own sidecars only.
pub(super) fn metadata(policy: &Policy, dialect: Dialect) -> Option<Metadata> {
    if dialect != Dialect::Pillion {
        return None;
    }
    let all: [(&str, Option<Struct>); 3] = [
        (LIMITS_METADATA, policy.limits.as_ref().map(Limits::to_struct)),
        (BREAKER_METADATA, policy.breaker.as_ref().map(Breaker::to_struct)),
        (OUTLIER_METADATA, policy.outlier.as_ref().map(Outlier::to_struct)),
    ];
    let filter_metadata: HashMap<String, Struct> =
        all.into_iter().filter_map(|(key, content)| Some((key.to_owned(), content?))).collect();
    (!filter_metadata.is_empty()).then(|| Metadata { filter_metadata, ..Metadata::default() })
}

/// `Route.metadata`: what requests fall back on. Envoy would need a cluster of its own kind for it (aggregate).
pub(super) fn fallback(policy: &Policy, dialect: Dialect) -> Option<Metadata> {
    let fallback = policy.fallback.as_ref().filter(|_| dialect == Dialect::Pillion).map(Fallback::to_struct)?;
    let filter_metadata = HashMap::from([(FALLBACK_METADATA.to_owned(), fallback)]);
    Some(Metadata { filter_metadata, ..Metadata::default() })
}
