//! Limits, breaker and outlier detection of a cluster.

use std::sync::Arc;
use std::time::Duration;

use pillion_wire::resilience::{Breaker, FailurePercentage, Failures, Limits, Outlier, SuccessRate};
use pillion_wire::xds::UInt32Value;
use pillion_wire::xds::cluster as pb;
use pillion_wire::xds::cluster::circuit_breakers::Thresholds;
use pillion_wire::xds::core::{Metadata, RoutingPriority};

use super::at::{At, Refusal, duration, pass_over, refuse};
use crate::config::Resilience;

/// All of it. `None`: the cluster has nothing of the kind, and its requests pay nothing for it.
pub(super) fn resilience(
    at: &At<'_>,
    breakers: Option<pb::CircuitBreakers>,
    outlier: Option<pb::OutlierDetection>,
    metadata: Option<&Metadata>,
) -> Result<Option<Arc<Resilience>>, Refusal> {
    let empty = Metadata::default();
    let (metadata, place) = (metadata.unwrap_or(&empty), &at.field("metadata"));
    let mut limits = match breakers {
        Some(breakers) => limits(&at.field("circuit_breakers"), breakers)?,
        None => Limits::default(),
    };
    limits.extend(metadata).map_err(|error| place.refuse(error))?;
    let (in_a_row, mut outlier) = match outlier {
        Some(outlier) => outlier_detection(&at.field("outlier_detection"), outlier)?,
        None => (None, None),
    };
    if let Some(outlier) = &mut outlier {
        outlier.extend(metadata).map_err(|error| place.refuse(error))?;
    }
    let told = Breaker::from_metadata(metadata).map_err(|error| place.refuse(error))?;
    let resilience = Resilience {
        limits: Some(limits).filter(|limits| *limits != Limits::default()),
        breaker: told.or(in_a_row),
        outlier,
    };
    Ok((resilience != Resilience::default()).then(|| Arc::new(resilience)))
}

/// `CircuitBreakers`. Unlike Envoy, what is not said is not limited; nor is what is limited to the largest number.
fn limits(at: &At<'_>, breakers: pb::CircuitBreakers) -> Result<Limits, Refusal> {
    let value = |given: Option<UInt32Value>| given.map(|given| given.value).filter(|limit| *limit != u32::MAX);
    let mut limits = Limits::default();
    let places = &at.field("thresholds");
    if let Some((index, thresholds)) = of_default_priority(breakers.thresholds) {
        let at = &places.index(index);
        refuse!(at, thresholds; max_connection_pools); // What there is of `retry_budget` is read with the retries.
        pass_over!(at, thresholds; track_remaining);
        limits.connections = value(thresholds.max_connections);
        limits.requests = value(thresholds.max_requests);
        limits.retries = value(thresholds.max_retries);
        limits.pending = value(thresholds.max_pending_requests).unwrap_or_default();
    }
    let places = &at.field("per_host_thresholds");
    if let Some((index, thresholds)) = of_default_priority(breakers.per_host_thresholds) {
        let at = &places.index(index);
        refuse!(at, thresholds; max_pending_requests, max_requests, max_retries, retry_budget, max_connection_pools);
        pass_over!(at, thresholds; track_remaining);
        limits.endpoint_connections = value(thresholds.max_connections);
    }
    Ok(limits)
}

/// No request of ours has another priority.
fn of_default_priority(thresholds: Vec<Thresholds>) -> Option<(usize, Thresholds)> {
    thresholds.into_iter().enumerate().find(|(_, one)| one.priority == RoutingPriority::Default as i32)
}

/// `OutlierDetection` with Envoy's defaults: failures in a row make a breaker, statistics an outlier detection.
fn outlier_detection(at: &At<'_>, told: pb::OutlierDetection) -> Result<(Option<Breaker>, Option<Outlier>), Refusal> {
    refuse!(at, told; split_external_local_origin_errors, monitors);
    pass_over!(at, told;
        consecutive_local_origin_failure, enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate, enforcing_failure_percentage_local_origin,
        successful_active_health_check_uneject_host, always_eject_one_host);
    let base = Outlier::default();
    let time = |name, given: Option<pillion_wire::xds::Duration>, default: Duration| {
        let at = &at.field(name);
        let given = given.map(|given| duration(at, given)).transpose()?;
        match given {
            Some(given) if given.is_zero() => Err(at.invalid("has to be longer than 0")),
            given => Ok(given.unwrap_or(default)),
        }
    };
    let percent = |name, given: Option<UInt32Value>, default: u32| match given.map_or(default, |given| given.value) {
        percent if percent > 100 => Err(at.field(name).invalid("is more than 100")),
        percent => Ok(percent),
    };
    let number = |given: Option<UInt32Value>, default: u32| given.map_or(default, |given| given.value);
    let base_ejection = time("base_ejection_time", told.base_ejection_time, base.base_ejection)?;
    let max_ejection = time("max_ejection_time", told.max_ejection_time, base.max_ejection)?.max(base_ejection);
    let jitter = told.max_ejection_time_jitter.map(|given| duration(&at.field("max_ejection_time_jitter"), given));

    let rate = SuccessRate::default();
    let rate = SuccessRate {
        stdev_factor: number(told.success_rate_stdev_factor, rate.stdev_factor),
        hosts: number(told.success_rate_minimum_hosts, rate.hosts),
        volume: number(told.success_rate_request_volume, rate.volume),
        enforcing: percent("enforcing_success_rate", told.enforcing_success_rate, rate.enforcing)?,
    };
    let share = FailurePercentage::default();
    let share = FailurePercentage {
        threshold: percent("failure_percentage_threshold", told.failure_percentage_threshold, share.threshold)?,
        hosts: number(told.failure_percentage_minimum_hosts, share.hosts),
        volume: number(told.failure_percentage_request_volume, share.volume),
        enforcing: percent("enforcing_failure_percentage", told.enforcing_failure_percentage, 0)?,
    };
    let outlier = Outlier {
        interval: time("interval", told.interval, base.interval)?,
        base_ejection,
        max_ejection,
        jitter: jitter.transpose()?.unwrap_or(base.jitter),
        max_percent: percent("max_ejection_percent", told.max_ejection_percent, base.max_percent)?,
        success_rate: Some(rate).filter(|rate| rate.enforcing > 0),
        failure_percentage: Some(share).filter(|share| share.enforcing > 0),
        keep: base.keep,
    };

    let enforced = |name, given: Option<UInt32Value>, default: u32| match given.map_or(default, |given| given.value) {
        0 => Ok(false),
        100 => Ok(true),
        _ => Err(at.field(name).invalid("is supported as 0 and as 100 only")),
    };
    let any = enforced("enforcing_consecutive_5xx", told.enforcing_consecutive_5xx, 100)?;
    let any = any.then(|| number(told.consecutive_5xx, 5));
    let name = "enforcing_consecutive_gateway_failure";
    let gateway = enforced(name, told.enforcing_consecutive_gateway_failure, 0)?;
    let gateway = gateway.then(|| number(told.consecutive_gateway_failure, 5));
    if let (Some(any), Some(gateway)) = (any, gateway)
        && gateway < any
    {
        return Err(at
            .field("consecutive_gateway_failure")
            .invalid("beside a larger consecutive_5xx is not supported"));
    }
    let breaker = any.or(gateway).map(|failures| Breaker {
        consecutive: Some(failures.max(1)),
        open: base_ejection,
        max_open: max_ejection,
        jitter_percent: 0,
        failures: Failures { server_errors: any.is_some(), ..Failures::default() },
        ..Breaker::default()
    });
    let has_statistics = outlier.success_rate.is_some() || outlier.failure_percentage.is_some();
    Ok((breaker, Some(outlier).filter(|_| has_statistics)))
}
