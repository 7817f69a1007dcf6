//! `spec.loadShedding`.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use pillion_wire::{
    header,
    load_shedding::{Criticality, CriticalityRule, Gradient, LoadShedding, MinRtt, Percent},
};
use serde::Deserialize;

use super::super::{Issues, duration::Written, path::FieldPath};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    sample_aggregate_percentile: Option<f64>,
    concurrency_update_interval: Option<Written>,
    max_concurrency_limit: Option<NonZeroU32>,
    min_concurrency_limit: Option<NonZeroU32>,
    #[serde(default)]
    min_rtt: RawRtt,
    #[serde(default)]
    criticality: RawCriticality,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRtt {
    interval: Option<Written>,
    fixed_value: Option<Written>,
    request_count: Option<NonZeroU32>,
    jitter: Option<f64>,
    min_concurrency: Option<NonZeroU32>,
    buffer: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCriticality {
    header: Option<String>,
    default: Option<Criticality>,
    #[serde(default)]
    values: BTreeMap<String, Criticality>,
}

/// Requests under way, at most: what one sidecar could ever hold.
const MOST: u32 = 1_000_000;
/// Requests that a latency without load is measured from, at most: they are all remembered.
const MOST_SAMPLES: u32 = 4096;

pub(super) fn read(raw: Raw, path: &FieldPath, issues: &mut Issues) -> LoadShedding {
    let base = Gradient::default();
    let update_interval = raw.concurrency_update_interval.map_or(base.update_interval, |written| written.0);
    if update_interval < Duration::from_millis(1) {
        issues.error(path.key("concurrencyUpdateInterval"), "has to be longer than 0");
    }
    let most = raw.max_concurrency_limit.map_or(base.most, NonZeroU32::get);
    if most > MOST {
        issues.error(path.key("maxConcurrencyLimit"), format!("{MOST} at most"));
    }
    let gradient = Gradient {
        percentile: percent(
            raw.sample_aggregate_percentile,
            base.percentile,
            path.key("sampleAggregatePercentile"),
            issues,
        ),
        update_interval,
        most,
        least: raw.min_concurrency_limit.map(NonZeroU32::get),
        min_rtt: min_rtt(&raw.min_rtt, &path.key("minRtt"), issues),
    };
    if gradient.floor() > most {
        issues.error(path.key("maxConcurrencyLimit"), format!("is below the limit at least, {}", gradient.floor()));
    }
    LoadShedding { gradient, criticality: criticality(raw.criticality, &path.key("criticality"), issues) }
}

fn min_rtt(raw: &RawRtt, path: &FieldPath, issues: &mut Issues) -> MinRtt {
    let base = MinRtt::default();
    let interval = raw.interval.map_or(base.interval, |written| written.0);
    if interval < Duration::from_millis(1) {
        issues.error(path.key("interval"), "has to be longer than 0");
    }
    let fixed = raw.fixed_value.map(|written| written.0);
    if fixed.is_some_and(|fixed| fixed.is_zero()) {
        issues.error(path.key("fixedValue"), "has to be longer than 0");
    }
    if fixed.is_some() && raw.interval.is_some() {
        issues.error(path.key("interval"), "what is fixed is never measured: leave one of interval and fixedValue out");
    }
    let requests = raw.request_count.map_or(base.requests, NonZeroU32::get);
    if requests > MOST_SAMPLES {
        issues.error(path.key("requestCount"), format!("{MOST_SAMPLES} at most"));
    }
    MinRtt {
        fixed,
        interval,
        requests,
        jitter: percent(raw.jitter, base.jitter, path.key("jitter"), issues),
        concurrency: raw.min_concurrency.map_or(base.concurrency, NonZeroU32::get),
        buffer: percent(raw.buffer, base.buffer, path.key("buffer"), issues),
    }
}

fn percent(said: Option<f64>, default: Percent, path: FieldPath, issues: &mut Issues) -> Percent {
    let Some(said) = said else { return default };
    Percent::from_double(said).unwrap_or_else(|| {
        issues.error(path, "is no percentage from 0 to 100");
        default
    })
}

fn criticality(raw: RawCriticality, path: &FieldPath, issues: &mut Issues) -> CriticalityRule {
    let mut rule = CriticalityRule { default: raw.default.unwrap_or_default(), ..CriticalityRule::default() };
    match raw.header.map(http::HeaderName::try_from) {
        None => {}
        Some(Ok(name)) => {
            if let Some(why) = header::protected(name.as_str()) {
                issues.error(path.key("header"), format!("`{name}` {why}"));
            }
            name.as_str().clone_into(&mut rule.header);
        }
        Some(Err(_invalid)) => issues.error(path.key("header"), "no name of a header field"),
    }
    for (word, meaning) in raw.values {
        let is_name = Criticality::ALL.into_iter().any(|known| known.name().eq_ignore_ascii_case(&word));
        if word.trim().is_empty() || is_name {
            issues
                .error(path.key("values").key(word.clone()), "one of the four names, or empty: it means what it says");
        }
        rule.values.insert(word.trim().to_ascii_lowercase(), meaning);
    }
    rule
}
