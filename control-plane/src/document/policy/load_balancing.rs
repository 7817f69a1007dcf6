//! `spec.loadBalancing`.

use std::time::Duration;

use serde::Deserialize;

use super::super::{Issues, duration::Written, path::FieldPath};
use crate::core::policy::{Algorithm, HashOn, LoadBalancing, SlowStart, Zones};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    #[serde(default)]
    algorithm: RawAlgorithm,
    choices: Option<u32>,
    ewma: Option<RawEwma>,
    ring_size: Option<u32>,
    table_size: Option<u32>,
    #[serde(default)]
    hash_on: Vec<RawHashOn>,
    panic_threshold: Option<u32>,
    slow_start: Option<RawSlowStart>,
    zones: Option<RawZones>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum RawAlgorithm {
    #[default]
    RoundRobin,
    Random,
    LeastRequest,
    LeastConnections,
    PeakEwma,
    RingHash,
    Maglev,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEwma {
    decay: Option<Written>,
    default_latency: Option<Written>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawHashOn {
    header: Option<String>,
    cookie: Option<RawCookie>,
    query_param: Option<String>,
    source_address: Option<bool>,
}

#[derive(Deserialize)]
struct RawCookie {
    name: String,
    ttl: Option<Written>,
    path: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSlowStart {
    window: Written,
    aggression: Option<f64>,
    minimum_percent: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawZones {
    prefer_own: Option<bool>,
    #[serde(default)]
    failover: Vec<String>,
}

pub(super) fn read(raw: Raw, path: &FieldPath, issues: &mut Issues) -> LoadBalancing {
    let algorithm = algorithm(&raw, path, issues);
    let hash_path = path.key("hashOn");
    if algorithm.hashes() && raw.hash_on.is_empty() {
        issues.error(hash_path.clone(), "the algorithm needs to know what keeps calls together: a header, a cookie, a queryParam or the sourceAddress");
    }
    if !algorithm.hashes() && !raw.hash_on.is_empty() {
        issues.error(hash_path.clone(), "only ringHash and maglev keep calls together");
    }
    let hash_on = raw.hash_on.into_iter().enumerate();
    let hash_on = hash_on.filter_map(|(index, raw)| hash_source(raw, &hash_path.index(index), issues)).collect();
    if raw.panic_threshold.is_some_and(|percent| percent > 100) {
        issues.error(path.key("panicThreshold"), "is a percentage from 0 to 100");
    }
    if raw.slow_start.is_some() && !algorithm.starts_slowly() {
        issues.error(path.key("slowStart"), "only roundRobin, leastRequest and leastConnections start slowly");
    }
    LoadBalancing {
        algorithm,
        hash_on,
        panic_threshold: raw.panic_threshold,
        slow_start: raw.slow_start.map(|raw| slow_start(&raw, &path.key("slowStart"), issues)),
        zones: raw.zones.map(|raw| zones(raw, &path.key("zones"), issues)),
    }
}

fn algorithm(raw: &Raw, path: &FieldPath, issues: &mut Issues) -> Algorithm {
    for (field, is_there, belongs) in [
        ("choices", raw.choices.is_some(), RawAlgorithm::LeastRequest),
        ("ewma", raw.ewma.is_some(), RawAlgorithm::PeakEwma),
        ("ringSize", raw.ring_size.is_some(), RawAlgorithm::RingHash),
        ("tableSize", raw.table_size.is_some(), RawAlgorithm::Maglev),
    ] {
        if is_there && raw.algorithm != belongs {
            issues.error(path.key(field), "does not belong to this algorithm");
        }
    }
    match raw.algorithm {
        RawAlgorithm::RoundRobin => Algorithm::RoundRobin,
        RawAlgorithm::Random => Algorithm::Random,
        RawAlgorithm::LeastConnections => Algorithm::LeastConnections,
        RawAlgorithm::LeastRequest => {
            let choices = raw.choices.unwrap_or(2);
            if !(2..=100).contains(&choices) {
                issues.error(path.key("choices"), "is a number from 2 to 100");
            }
            Algorithm::LeastRequest { choices }
        }
        RawAlgorithm::PeakEwma => {
            let path = path.key("ewma");
            let mut positive = |field: &'static str, written: Option<Written>, default| {
                let duration = written.map_or(default, |written| written.0);
                if duration.is_zero() {
                    issues.error(path.key(field), "has to be longer than 0");
                }
                duration
            };
            let (decay, latency) = raw.ewma.as_ref().map_or((None, None), |raw| (raw.decay, raw.default_latency));
            Algorithm::PeakEwma {
                decay: positive("decay", decay, Duration::from_secs(10)),
                default_rtt: positive("defaultLatency", latency, Duration::from_millis(30)),
            }
        }
        RawAlgorithm::RingHash => {
            let minimum = raw.ring_size.unwrap_or(1024);
            if !(1..=8 << 20).contains(&minimum) {
                issues.error(path.key("ringSize"), "is a number from 1 to 8388608");
            }
            Algorithm::RingHash { minimum }
        }
        RawAlgorithm::Maglev => {
            let table = raw.table_size.unwrap_or(65_537);
            if table > 5_000_011 || !is_prime(table) {
                issues.error(path.key("tableSize"), "is a prime number up to 5000011, such as 65537");
            }
            Algorithm::Maglev { table }
        }
    }
}

fn is_prime(number: u32) -> bool {
    number > 1
        && (2_u32..)
            .take_while(|divisor| u64::from(*divisor).pow(2) <= number.into())
            .all(|it| !number.is_multiple_of(it))
}

pub(super) fn hash_source(raw: RawHashOn, path: &FieldPath, issues: &mut Issues) -> Option<HashOn> {
    match (raw.header, raw.cookie, raw.query_param, raw.source_address) {
        (Some(name), None, None, None) => {
            if !is_token(&name) {
                issues.error(path.key("header"), format!("`{name}` is no header name"));
            }
            Some(HashOn::Header(name.to_ascii_lowercase()))
        }
        (None, Some(cookie), None, None) => {
            let path = path.key("cookie");
            if !is_token(&cookie.name) {
                issues.error(path.key("name"), format!("`{}` is no cookie name", cookie.name));
            }
            let cookie_path = cookie.path.unwrap_or_else(|| "/".to_owned());
            if !cookie_path.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b';') {
                issues.error(path.key("path"), format!("`{cookie_path}` is no cookie path"));
            }
            Some(HashOn::Cookie { name: cookie.name, ttl: cookie.ttl.map(|ttl| ttl.0), path: cookie_path })
        }
        (None, None, Some(name), None) => {
            if name.is_empty() {
                issues.error(path.key("queryParam"), "a parameter has a name");
            }
            Some(HashOn::Query(name))
        }
        (None, None, None, Some(true)) => Some(HashOn::SourceAddress),
        _ => {
            issues.error(path.clone(), "wants one of header, cookie, queryParam and sourceAddress: true");
            None
        }
    }
}

/// A token (RFC 9110, section 5.6.2).
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn slow_start(raw: &RawSlowStart, path: &FieldPath, issues: &mut Issues) -> SlowStart {
    if raw.window.0.is_zero() {
        issues.error(path.key("window"), "has to be longer than 0");
    }
    let aggression = raw.aggression.unwrap_or(1.0);
    if !(0.01..=100.0).contains(&aggression) {
        issues.error(path.key("aggression"), "is a number from 0.01 to 100");
    }
    let minimum_percent = raw.minimum_percent.unwrap_or(10);
    if minimum_percent > 100 {
        issues.error(path.key("minimumPercent"), "is a percentage from 0 to 100");
    }
    // A cast saturates, and what is out of range was refused.
    SlowStart { window: raw.window.0, aggression_percent: (aggression * 100.0).round() as u32, minimum_percent }
}

fn zones(raw: RawZones, path: &FieldPath, issues: &mut Issues) -> Zones {
    let prefer_own = raw.prefer_own.unwrap_or(true);
    if !prefer_own && raw.failover.is_empty() {
        issues.warn(path.clone(), "all zones are equal: this says nothing");
    }
    // Envoy has priorities up to 128.
    if raw.failover.len() > 100 {
        issues.error(path.key("failover"), "100 zones at most");
    }
    Zones { prefer_own, failover: raw.failover }
}
