//! `spec.rateLimits`.

use std::{net::IpAddr, num::NonZeroU32};

use ipnet::IpNet;
use pillion_wire::{
    label::is_label,
    rate_limit::{Algorithm, Exempt, Key, MOST_KEYS, MOST_LOGGED, RateLimit, RateLimits},
};
use serde::Deserialize;

use super::super::{Issues, duration::Written, path::FieldPath};

/// Keys that are remembered, if the document does not say.
const KEYS: u32 = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    name: Option<String>,
    requests: NonZeroU32,
    per: Option<Written>,
    burst: Option<NonZeroU32>,
    longest_wait: Option<Written>,
    algorithm: Option<Algorithm>,
    #[serde(default)]
    keys: Vec<RawKey>,
    most_keys: Option<NonZeroU32>,
    #[serde(default)]
    exempt: RawExempt,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawKey {
    #[serde(rename = "type")]
    kind: String,
    header: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawExempt {
    #[serde(default)]
    callers: Vec<String>,
    #[serde(default)]
    networks: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
}

pub(super) fn read(raw: Vec<Raw>, path: &FieldPath, issues: &mut Issues) -> RateLimits {
    let read_one = |(index, raw)| read_one(raw, index, &path.index(index), issues);
    RateLimits { limits: raw.into_iter().enumerate().filter_map(read_one).collect() }
}

fn read_one(raw: Raw, index: usize, path: &FieldPath, issues: &mut Issues) -> Option<RateLimit> {
    let name = raw.name.unwrap_or_else(|| format!("limit-{index}"));
    if !is_label(&name) {
        issues.error(path.key("name"), super::super::not_a_label(&name));
    }
    let algorithm = raw.algorithm.unwrap_or(Algorithm::TokenBucket);
    if raw.burst.is_some() && algorithm != Algorithm::TokenBucket {
        issues.error(path.key("burst"), "only a tokenBucket has one");
    }
    if raw.longest_wait.is_some() && algorithm != Algorithm::LeakyBucket {
        issues.error(path.key("longestWait"), "only with leakyBucket requests wait");
    }
    if algorithm == Algorithm::SlidingWindowLog && raw.requests.get() > MOST_LOGGED {
        issues.error(
            path.key("requests"),
            format!("slidingWindowLog remembers each, {MOST_LOGGED} at most: take slidingWindowCounter"),
        );
    }
    let most_keys = raw.most_keys.map_or(KEYS, NonZeroU32::get);
    if most_keys > MOST_KEYS {
        issues.error(path.key("mostKeys"), format!("{MOST_KEYS} at most"));
    }
    let per_millis = match (raw.per, algorithm) {
        (Some(per), Algorithm::Concurrency) => {
            issues.error(path.key("per"), "concurrency counts what is under way, whatever the time");
            millis(per)
        }
        (None, Algorithm::Concurrency) => 1,
        (Some(per), _) => millis(per),
        (None, _) => 0,
    };
    if per_millis == 0 {
        issues.error(path.key("per"), "needed, from 1ms to 1000h");
    }
    let keys = path.key("keys");
    let keys =
        raw.keys.into_iter().enumerate().filter_map(|(at, raw)| key(raw, &keys.index(at), issues)).collect::<Vec<_>>();
    Some(RateLimit {
        name,
        requests: raw.requests,
        per_millis: NonZeroU32::new(per_millis)?,
        burst: raw.burst.unwrap_or(raw.requests),
        longest_wait_millis: raw.longest_wait.map_or(per_millis, millis),
        algorithm,
        keys,
        most_keys: NonZeroU32::new(most_keys)?,
        exempt: exempt(raw.exempt, &path.key("exempt"), issues),
    })
}

/// 0 stands for what does not fit.
fn millis(written: Written) -> u32 {
    u32::try_from(written.0.as_millis()).unwrap_or_default()
}

fn key(raw: RawKey, path: &FieldPath, issues: &mut Issues) -> Option<Key> {
    if raw.header.is_some() != (raw.kind == "header") {
        issues.error(path.key("header"), "the name of a header field, with `type: header` and only there");
        return None;
    }
    match raw.kind.as_str() {
        "caller" => Some(Key::Caller),
        "sourceAddress" => Some(Key::SourceAddress),
        "path" => Some(Key::Path),
        "header" => match http::HeaderName::try_from(raw.header.unwrap_or_default()) {
            Ok(name) => Some(Key::Header(name.as_str().to_owned())),
            Err(_invalid) => {
                issues.error(path.key("header"), "no name of a header field");
                None
            }
        },
        other => {
            issues.error(path.key("type"), format!("`{other}`: write caller, sourceAddress, path or header"));
            None
        }
    }
}

fn exempt(raw: RawExempt, path: &FieldPath, issues: &mut Issues) -> Exempt {
    for (index, caller) in raw.callers.iter().enumerate() {
        if caller.parse::<pillion_wire::spiffe::SpiffeId>().is_err() {
            issues.error(path.key("callers").index(index), format!("`{caller}` is no SPIFFE id of a service account"));
        }
    }
    let networks = path.key("networks");
    let network = |(index, text): (usize, &String)| {
        let alone = || text.parse::<IpAddr>().map(IpNet::from).ok();
        let network = text.parse().ok().or_else(alone);
        if network.is_none() {
            issues.error(networks.index(index), format!("`{text}` is no network: write 10.0.0.0/8 or an address"));
        }
        network
    };
    let networks = raw.networks.iter().enumerate().filter_map(network).collect();
    for (index, exact) in raw.paths.iter().enumerate().filter(|(_, exact)| !exact.starts_with('/')) {
        issues.error(path.key("paths").index(index), format!("`{exact}` does not begin with /"));
    }
    Exempt { callers: raw.callers, networks, paths: raw.paths }
}
