//! `spec.outlierDetection`.

use std::time::Duration;

use pillion_wire::resilience::{FailurePercentage, Outlier, SuccessRate};
use serde::Deserialize;

use super::super::{Issues, duration::Written, path::FieldPath};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    interval: Option<Written>,
    base_ejection_time: Option<Written>,
    max_ejection_time: Option<Written>,
    max_ejection_time_jitter: Option<Written>,
    max_ejection_percent: Option<u32>,
    minimum_healthy: Option<u32>,
    success_rate: Option<RawRate>,
    failure_percentage: Option<RawPercentage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRate {
    stdev_factor: Option<u32>,
    minimum_hosts: Option<u32>,
    request_volume: Option<u32>,
    enforcing: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPercentage {
    threshold: Option<u32>,
    minimum_hosts: Option<u32>,
    request_volume: Option<u32>,
    enforcing: Option<u32>,
}

pub(super) fn read(raw: Raw, path: &FieldPath, issues: &mut Issues) -> Outlier {
    let base = Outlier::default();
    if raw.success_rate.is_none() && raw.failure_percentage.is_none() {
        issues.error(
            path.clone(),
            "says nothing: write successRate, failurePercentage or both (`successRate: {}` will do)",
        );
    }
    let time = |written: Option<Written>, default: Duration| written.map_or(default, |written| written.0);
    let interval = time(raw.interval, base.interval);
    if interval < Duration::from_millis(100) {
        issues.error(path.key("interval"), "is shorter than 100ms");
    }
    let base_ejection = time(raw.base_ejection_time, base.base_ejection);
    if base_ejection.is_zero() {
        issues.error(path.key("baseEjectionTime"), "has to be longer than 0");
    }
    let max_ejection = time(raw.max_ejection_time, base.max_ejection.max(base_ejection));
    if max_ejection < base_ejection {
        issues.error(path.key("maxEjectionTime"), "is shorter than baseEjectionTime");
    }
    let mut percent = |number: u32, path: FieldPath| {
        if number > 100 {
            issues.error(path, "is more than 100");
        }
        number
    };
    let max_percent = percent(raw.max_ejection_percent.unwrap_or(base.max_percent), path.key("maxEjectionPercent"));
    let success_rate = raw.success_rate.map(|raw| {
        let base = SuccessRate::default();
        SuccessRate {
            stdev_factor: raw.stdev_factor.unwrap_or(base.stdev_factor),
            hosts: raw.minimum_hosts.unwrap_or(base.hosts),
            volume: raw.request_volume.unwrap_or(base.volume),
            enforcing: percent(raw.enforcing.unwrap_or(base.enforcing), path.key("successRate").key("enforcing")),
        }
    });
    let failure_percentage = raw.failure_percentage.map(|raw| {
        let (base, path) = (FailurePercentage::default(), path.key("failurePercentage"));
        FailurePercentage {
            threshold: percent(raw.threshold.unwrap_or(base.threshold), path.key("threshold")),
            hosts: raw.minimum_hosts.unwrap_or(base.hosts),
            volume: raw.request_volume.unwrap_or(base.volume),
            enforcing: percent(raw.enforcing.unwrap_or(base.enforcing), path.key("enforcing")),
        }
    });
    Outlier {
        interval,
        base_ejection,
        max_ejection,
        jitter: time(raw.max_ejection_time_jitter, base.jitter),
        max_percent,
        success_rate,
        failure_percentage,
        keep: raw.minimum_healthy.unwrap_or(base.keep),
    }
}
