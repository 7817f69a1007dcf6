//! W3C's `tracestate`: is it something to pass on? What it says is other people's business.

use http::HeaderMap;

use super::context::TRACESTATE;

/// Members of all its fields together (Trace Context, 3.3.1.1).
const MOST_MEMBERS: usize = 32;

/// Is it well-formed?
pub(super) fn is_valid(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TRACESTATE).iter().map(http::HeaderValue::as_bytes);
    let mut members = 0;
    for member in values.flat_map(|value| value.split(|byte| *byte == b',')) {
        // Empty ones are allowed, with white space around.
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        members += 1;
        if members > MOST_MEMBERS || !is_member(member) {
            return false;
        }
    }
    members > 0
}

fn is_member(member: &[u8]) -> bool {
    let Some(at) = member.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (member.get(..at).unwrap_or_default(), member.get(at + 1..).unwrap_or_default());
    let starts_well = key.first().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_of_key = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(byte);
    let is_of_value = |byte: &u8| matches!(byte, 0x20..=0x7e) && *byte != b'=';
    starts_well
        && key.len() <= 256
        && key.iter().all(is_of_key)
        && (1..=256).contains(&value.len())
        && value.iter().all(is_of_value)
}
