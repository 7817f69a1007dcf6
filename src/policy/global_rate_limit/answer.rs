//! The answer of a rate-limit service.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use pillion_wire::header::protected;
use pillion_wire::xds::core::HeaderValue as PbHeader;
use pillion_wire::xds::rate_limit_service::RateLimitResponse;
use pillion_wire::xds::rate_limit_service::rate_limit_response::rate_limit::Unit;
use pillion_wire::xds::rate_limit_service::rate_limit_response::{Code, DescriptorStatus};

/// Header fields that a service adds, at most; further ones are left out.
const MOST_FIELDS: usize = 64;

/// What is to be done with the request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// `OK`: it goes on.
    Pass(Told),
    /// `OVER_LIMIT`: it does not.
    Refuse {
        /// Fields of the answer to the client.
        fields: HeaderMap,
        /// `raw_body`: the body of that answer; mostly empty.
        body: Bytes,
        /// The limit that is used up, by its name if it has one.
        name: Option<String>,
        /// `duration_until_reset`: when it is full again.
        reset: Option<Duration>,
    },
    /// `UNKNOWN`: as if there were no answer.
    Unknown,
}

/// What a service adds to a request that passes, and to the answer to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// `request_headers_to_add`.
    pub request: HeaderMap,
    /// `response_headers_to_add`, and what is left of limits.
    pub response: HeaderMap,
}

/// Reads an answer; `tell_limits`: what is left of limits is for the client, too.
pub fn read(answer: RateLimitResponse, tell_limits: bool) -> Answer {
    let mut response = fields(answer.response_headers_to_add);
    if tell_limits {
        describe(&answer.statuses, &mut response);
    }
    match Code::try_from(answer.overall_code) {
        Ok(Code::Ok) => Answer::Pass(Told { request: fields(answer.request_headers_to_add), response }),
        Ok(Code::OverLimit) => {
            let over = answer.statuses.iter().filter(|status| status.code == i32::from(Code::OverLimit));
            // The one that holds the client back for longest.
            let worst = over.max_by_key(|status| reset(status));
            let name = worst.and_then(|status| status.current_limit.as_ref()).map(|limit| limit.name.clone());
            let name = name.filter(|name| is_plain(name));
            let body = answer.raw_body.into();
            Answer::Refuse { fields: response, body, name, reset: worst.and_then(reset) }
        }
        Ok(Code::Unknown) | Err(_) => Answer::Unknown,
    }
}

fn reset(status: &DescriptorStatus) -> Option<Duration> {
    let told = status.duration_until_reset.as_ref()?;
    let nanos = u32::try_from(told.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(told.seconds).ok()?, nanos))
}

/// Those that may be added: a service must not speak for the connection, nor for sidecars.
fn fields(told: Vec<PbHeader>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for field in told.into_iter().take(MOST_FIELDS) {
        let value = if field.raw_value.is_empty() { field.value.into_bytes() } else { field.raw_value };
        let parsed = (HeaderName::try_from(&field.key), HeaderValue::try_from(value));
        match parsed {
            (Ok(name), Ok(value)) if protected(name.as_str()).is_none() => drop(fields.append(name, value)),
            _ => tracing::debug!(field = %field.key, "a field of the rate-limit service is left out"),
        }
    }
    fields
}

/// `X-RateLimit-*` of draft-polli-ratelimit-headers-03, as Envoy writes them: of the limit with the least left, and
/// behind it all limits.
fn describe(statuses: &[DescriptorStatus], fields: &mut HeaderMap) {
    let known = || statuses.iter().filter_map(|status| Some((status, status.current_limit.as_ref()?)));
    let Some((least, limit)) = known().min_by_key(|(status, _)| status.limit_remaining) else { return };
    let mut text = limit.requests_per_unit.to_string();
    for (_, limit) in known() {
        let window = match limit.unit() {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3600,
            Unit::Day => 86_400,
            Unit::Week => 604_800,
            Unit::Month => 2_592_000,
            Unit::Year => 31_536_000,
            Unit::Unknown => continue,
        };
        // Writing to a string never fails.
        let _infallible = write!(text, ", {};w={window}", limit.requests_per_unit);
        if is_plain(&limit.name) {
            let _infallible = write!(text, ";name=\"{}\"", limit.name);
        }
    }
    if let Ok(text) = HeaderValue::try_from(text) {
        fields.insert("x-ratelimit-limit", text);
    }
    fields.insert("x-ratelimit-remaining", HeaderValue::from(least.limit_remaining));
    fields.insert("x-ratelimit-reset", HeaderValue::from(reset(least).map_or(0, |reset| reset.as_secs())));
}

/// Can it stand between quotes?
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && !matches!(byte, b'"' | b'\\'))
}
