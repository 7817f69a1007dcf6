//! Limits that a rate-limit service counts: what it is asked about a request, and what its answer means.
//!
//! No I/O and no clock. The words are those of `envoy.service.ratelimit.v3`.

mod answer;

pub use answer::{Answer, Told, read};

use std::borrow::Cow;
use std::net::IpAddr;

use http::request;
use pillion_wire::rate_limit::{IpNet, expression::OUTSIDE};
use pillion_wire::xds::UInt64Value;
use pillion_wire::xds::descriptor::RateLimitDescriptor;
use pillion_wire::xds::descriptor::rate_limit_descriptor::{Entry as PbEntry, RateLimitOverride};
use pillion_wire::xds::rate_limit_service::RateLimitRequest;

use crate::config::{Descriptor, Entry, EntryValue, GlobalRateLimit, HeaderName};
use crate::route;

/// Who calls, as far as limits care.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The address that the caller connects from.
    pub address: IpAddr,
    /// Its proven SPIFFE id; empty when there is none.
    pub peer: &'a str,
}

/// What the service is asked about a request. `None`: nothing, since no descriptor has all its values.
pub fn question(limit: &GlobalRateLimit, source: Source<'_>, request: &request::Parts) -> Option<RateLimitRequest> {
    let descriptors: Vec<_> = limit.descriptors.iter().filter_map(|told| descriptor(told, source, request)).collect();
    // 0: once, unless a descriptor says otherwise (`RateLimitRequest.hits_addend`).
    (!descriptors.is_empty()).then(|| RateLimitRequest { domain: limit.domain.clone(), descriptors, hits_addend: 0 })
}

fn descriptor(told: &Descriptor, source: Source<'_>, request: &request::Parts) -> Option<RateLimitDescriptor> {
    let mut entries = Vec::with_capacity(told.entries.len());
    for Entry { key, value, is_optional } in &told.entries {
        match entry_value(value, source, request) {
            Some(value) => entries.push(PbEntry { key: key.clone(), value: value.into_owned() }),
            None if *is_optional => {}
            None => return None,
        }
    }
    let limit = told.limit.map(|(requests_per_unit, unit)| RateLimitOverride { requests_per_unit, unit });
    let hits_addend = told.hits.map(|value| UInt64Value { value });
    (!entries.is_empty()).then_some(RateLimitDescriptor { entries, limit, hits_addend, is_negative_hits: false })
}

fn entry_value<'a>(value: &'a EntryValue, source: Source<'a>, request: &'a request::Parts) -> Option<Cow<'a, str>> {
    match value {
        EntryValue::Fixed(text) => Some(text.into()),
        EntryValue::SourceAddress => Some(source.address.to_canonical().to_string().into()),
        EntryValue::SourceNetwork(v4, v6) => {
            let address = source.address.to_canonical();
            let network = IpNet::new(address, if address.is_ipv4() { *v4 } else { *v6 }).ok()?;
            Some(network.trunc().to_string().into())
        }
        EntryValue::Header(name) => header(name, request),
        EntryValue::HeaderMatch(text, headers, expected) => {
            let matched = headers.iter().all(|header| route::header_matches(header, request));
            (matched == *expected).then_some(text.into())
        }
        EntryValue::Caller if source.peer.is_empty() => Some(OUTSIDE.into()),
        EntryValue::Caller | EntryValue::ProvenCaller => Some(source.peer.into()).filter(|_| !source.peer.is_empty()),
        EntryValue::Path => Some(request.uri.path().into()),
    }
}

/// The first of several fields, as in Envoy.
fn header<'a>(name: &HeaderName, request: &'a request::Parts) -> Option<Cow<'a, str>> {
    match name {
        HeaderName::Method => Some(request.method.as_str().into()),
        HeaderName::Authority => Some(route::authority(request)),
        HeaderName::Path => Some(request.uri.path_and_query()?.as_str().into()),
        HeaderName::Scheme => Some(request.uri.scheme_str().unwrap_or("http").into()),
        HeaderName::Field(name) => Some(String::from_utf8_lossy(request.headers.get(name)?.as_bytes())),
    }
}

#[cfg(test)]
mod tests;
