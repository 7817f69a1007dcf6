//! `spec.healthChecks`.

use std::{fmt, ops::Range, time::Duration};

use pillion_wire::health::{HealthCheck, HttpProbe, Probe};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use super::super::{Issues, duration::Written, path::FieldPath};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    http: Option<RawHttp>,
    grpc: Option<RawGrpc>,
    tcp: Option<RawTcp>,
    interval: Option<Written>,
    timeout: Option<Written>,
    unhealthy_threshold: Option<u32>,
    healthy_threshold: Option<u32>,
    jitter: Option<Written>,
    unhealthy_interval: Option<Written>,
    no_traffic_interval: Option<Written>,
    minimum_healthy: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHttp {
    path: String,
    host: Option<String>,
    method: Option<Method>,
    expected_statuses: Option<Vec<Statuses>>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    Get,
    Head,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawGrpc {
    service: Option<String>,
    authority: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTcp {
    send: Option<String>,
    receive: Option<String>,
}

/// `204` or `200-399`.
#[derive(Clone, Debug)]
struct Statuses(Range<u16>);

/// Checks more often than this are load, and no better knowledge.
const SHORTEST: Duration = Duration::from_millis(10);
/// What a TCP check sends or waits for, in bytes.
const MOST_BYTES: usize = 4096;

/// `None`: it does not say what is asked.
pub(super) fn read(raw: Raw, path: &FieldPath, issues: &mut Issues) -> Option<HealthCheck> {
    let probes = [
        raw.http.map(|raw| http(raw, &path.key("http"), issues)),
        raw.grpc.map(|raw| grpc(raw, &path.key("grpc"), issues)),
        raw.tcp.map(|raw| tcp(raw, &path.key("tcp"), issues)),
    ];
    let mut probes = probes.into_iter().flatten();
    let (Some(probe), None) = (probes.next(), probes.next()) else {
        issues.error(path.clone(), "write exactly one of http, grpc and tcp (`tcp: {}` will do)");
        return None;
    };
    let base = HealthCheck::new(probe);
    let time = |written: Option<Written>, default: Duration| written.map_or(default, |written| written.0);
    let interval = time(raw.interval, base.interval);
    // A tenth of whatever interval there is.
    let jitter = time(raw.jitter, interval / 10);
    let check = HealthCheck {
        interval,
        timeout: time(raw.timeout, base.timeout),
        unhealthy_threshold: raw.unhealthy_threshold.unwrap_or(base.unhealthy_threshold),
        healthy_threshold: raw.healthy_threshold.unwrap_or(base.healthy_threshold),
        jitter,
        initial_jitter: jitter.min(interval),
        unhealthy_interval: time(raw.unhealthy_interval, interval),
        no_traffic_interval: time(raw.no_traffic_interval, base.no_traffic_interval.max(interval)),
        keep: raw.minimum_healthy.unwrap_or(base.keep),
        ..base
    };
    for (field, given) in [
        ("interval", check.interval),
        ("unhealthyInterval", check.unhealthy_interval),
        ("noTrafficInterval", check.no_traffic_interval),
        ("timeout", check.timeout),
    ] {
        // What is not said is the interval.
        let is_derived = field == "unhealthyInterval" && given == interval;
        if given < SHORTEST && !is_derived {
            issues.error(path.key(field), "is shorter than 10ms");
        }
    }
    for (field, given) in
        [("unhealthyThreshold", check.unhealthy_threshold), ("healthyThreshold", check.healthy_threshold)]
    {
        if given == 0 {
            issues.error(path.key(field), "has to be at least 1");
        }
    }
    if check.keep > 1 {
        issues.error(path.key("minimumHealthy"), "is 0 (requests fail when all endpoints do) or 1");
    }
    Some(check)
}

fn http(raw: RawHttp, path: &FieldPath, issues: &mut Issues) -> Probe {
    let is_path = raw.path.starts_with('/') && raw.path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_path {
        issues.error(path.key("path"), "has to begin with `/`, without spaces and fragment");
    }
    let host = host(raw.host, path.key("host"), issues);
    let expected: Vec<_> = raw.expected_statuses.into_iter().flatten().map(|statuses| statuses.0).collect();
    let expected = if expected.is_empty() { vec![HttpProbe::EXPECTED] } else { expected };
    let head_only = raw.method == Some(Method::Head);
    // All failures count towards the threshold: to Envoy only those that are named here do.
    Probe::Http(HttpProbe { path: raw.path, host, head_only, expected, retriable: vec![HttpProbe::ALL], http2: false })
}

fn grpc(raw: RawGrpc, path: &FieldPath, issues: &mut Issues) -> Probe {
    Probe::Grpc {
        service: raw.service.unwrap_or_default(),
        authority: host(raw.authority, path.key("authority"), issues),
    }
}

fn tcp(raw: RawTcp, path: &FieldPath, issues: &mut Issues) -> Probe {
    let mut bytes = |given: Option<String>, path: FieldPath| {
        if given.as_ref().is_some_and(|text| text.is_empty() || text.len() > MOST_BYTES) {
            issues.error(path, "has to be from 1 to 4096 bytes; leave it out for nothing");
        }
        given.map(String::into_bytes)
    };
    let send = bytes(raw.send, path.key("send")).unwrap_or_default();
    Probe::Tcp { send, receive: bytes(raw.receive, path.key("receive")).into_iter().collect() }
}

/// A host with or without a port; empty when it is not said.
fn host(given: Option<String>, path: FieldPath, issues: &mut Issues) -> String {
    let given = given.unwrap_or_default();
    if !given.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)) {
        issues.error(path, "is no host or host:port");
    }
    given
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Statuses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status such as 204, or a range such as 200-399")
    }

    fn visit_u64<E: Error>(self, status: u64) -> Result<Statuses, E> {
        range(status, status).ok_or_else(|| E::custom(format!("{status} is no HTTP status")))
    }

    fn visit_i64<E: Error>(self, status: i64) -> Result<Statuses, E> {
        self.visit_u64(u64::try_from(status).unwrap_or_default())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Statuses, E> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let found =
            first.trim().parse().ok().zip(last.trim().parse().ok()).and_then(|(first, last)| range(first, last));
        found.ok_or_else(|| E::custom(format!("`{text}` is no range of HTTP statuses, such as 200-399")))
    }
}

fn range(first: u64, last: u64) -> Option<Statuses> {
    let (first, last) = (u16::try_from(first).ok()?, u16::try_from(last).ok()?);
    let is_status = |status| HttpProbe::ALL.contains(&status);
    (first <= last && is_status(first) && is_status(last)).then(|| Statuses(first..last + 1))
}
