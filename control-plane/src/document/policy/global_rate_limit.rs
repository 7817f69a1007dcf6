//! `spec.globalRateLimit`.

use std::{num::NonZeroU32, time::Duration};

use pillion_wire::name::ServicePort;
use serde::Deserialize;

use super::super::{Issues, duration::Written, path::FieldPath};
use crate::core::policy::{Descriptor, Entry, GlobalRateLimit, Unit, Value};

/// Envoy's default.
const TIMEOUT: Duration = Duration::from_millis(20);
/// Every request waits for the answer: a longer wait is no limit but an outage.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10);
/// What one request is asked about.
const MOST_DESCRIPTORS: usize = 32;
/// Keys of one descriptor.
const MOST_ENTRIES: usize = 16;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Raw {
    service: RawService,
    domain: String,
    timeout: Option<Written>,
    #[serde(default)]
    on_failure: OnFailure,
    #[serde(default)]
    headers: bool,
    descriptors: Vec<RawDescriptor>,
}

#[derive(Deserialize)]
struct RawService {
    name: String,
    namespace: Option<String>,
    port: u16,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum OnFailure {
    #[default]
    Allow,
    Deny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    entries: Vec<RawEntry>,
    limit: Option<RawLimit>,
    hits: Option<u32>,
}

#[derive(Deserialize)]
struct RawEntry {
    #[serde(rename = "type")]
    kind: String,
    key: Option<String>,
    value: Option<String>,
    header: Option<String>,
}

#[derive(Deserialize)]
struct RawLimit {
    requests: NonZeroU32,
    per: RawUnit,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum RawUnit {
    Second,
    Minute,
    Hour,
    Day,
}

pub(super) fn read(raw: Raw, namespace: &str, path: &FieldPath, issues: &mut Issues) -> Option<GlobalRateLimit> {
    let timeout = raw.timeout.map_or(TIMEOUT, |told| told.0);
    if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
        issues.error(path.key("timeout"), "is not from 1ms to 10s");
    }
    if raw.domain.is_empty() {
        issues.error(path.key("domain"), "is empty");
    }
    let places = path.key("descriptors");
    if raw.descriptors.is_empty() || raw.descriptors.len() > MOST_DESCRIPTORS {
        issues.error(places.clone(), format!("from 1 to {MOST_DESCRIPTORS} are needed"));
    }
    let read_one = |(index, raw)| descriptor(raw, &places.index(index), issues);
    let descriptors = raw.descriptors.into_iter().enumerate().map(read_one).collect();
    let namespace = raw.service.namespace.as_deref().unwrap_or(namespace);
    match ServicePort::new(&raw.service.name, namespace, raw.service.port) {
        Ok(service) => Some(GlobalRateLimit {
            service,
            domain: raw.domain,
            timeout,
            deny_on_failure: raw.on_failure == OnFailure::Deny,
            tell_limits: raw.headers,
            descriptors,
        }),
        Err(error) => {
            issues.error(path.key("service"), error.to_string());
            None
        }
    }
}

fn descriptor(raw: RawDescriptor, path: &FieldPath, issues: &mut Issues) -> Descriptor {
    let places = path.key("entries");
    if raw.entries.is_empty() || raw.entries.len() > MOST_ENTRIES {
        issues.error(places.clone(), format!("from 1 to {MOST_ENTRIES} are needed"));
    }
    if raw.hits == Some(0) {
        issues.error(path.key("hits"), "0 would count nothing");
    }
    let read_one = |(index, raw)| entry(raw, &places.index(index), issues);
    let entries = raw.entries.into_iter().enumerate().filter_map(read_one).collect();
    let limit = raw.limit.map(|limit| (limit.requests.get(), Unit::from(limit.per)));
    Descriptor { entries, limit, hits: raw.hits.map(u64::from) }
}

fn entry(raw: RawEntry, path: &FieldPath, issues: &mut Issues) -> Option<Entry> {
    for (field, is_there, kind) in [("header", raw.header.is_some(), "header"), ("value", raw.value.is_some(), "fixed")]
    {
        if is_there != (raw.kind == kind) {
            issues.error(path.key(field), format!("needed with `type: {kind}`, and only there"));
            return None;
        }
    }
    if raw.key.as_ref().is_some_and(String::is_empty) || raw.value.as_ref().is_some_and(String::is_empty) {
        issues.error(path.key(if raw.value.as_deref() == Some("") { "value" } else { "key" }), "is empty");
        return None;
    }
    let (value, key) = match (raw.kind.as_str(), raw.header, raw.value) {
        ("fixed", _, Some(value)) => (Value::Fixed(value), "generic_key".to_owned()),
        ("header", Some(header), _) => match http::HeaderName::try_from(header) {
            Ok(name) => (Value::Header(name.as_str().to_owned()), name.as_str().to_owned()),
            Err(_invalid) => {
                issues.error(path.key("header"), "no name of a header field");
                return None;
            }
        },
        ("caller", ..) => (Value::Caller, "caller".to_owned()),
        ("path", ..) => (Value::Path, "path".to_owned()),
        ("method", ..) => (Value::Method, "method".to_owned()),
        ("sourceAddress", ..) => {
            if raw.key.is_some() {
                issues.error(path.key("key"), "is always remote_address here, as in Envoy");
            }
            (Value::SourceAddress, "remote_address".to_owned())
        }
        (other, ..) => {
            let known = "write caller, sourceAddress, path, method, header or fixed";
            issues.error(path.key("type"), format!("`{other}`: {known}"));
            return None;
        }
    };
    Some(Entry { key: raw.key.unwrap_or(key), value })
}

impl From<RawUnit> for Unit {
    fn from(raw: RawUnit) -> Self {
        match raw {
            RawUnit::Second => Self::Second,
            RawUnit::Minute => Self::Minute,
            RawUnit::Hour => Self::Hour,
            RawUnit::Day => Self::Day,
        }
    }
}
