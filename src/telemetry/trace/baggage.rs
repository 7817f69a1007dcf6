//! W3C Baggage: is it something to pass on?

use http::HeaderMap;

use super::context::BAGGAGE;

/// Bytes of all its fields together (W3C Baggage, 3.3.2).
const MOST_BYTES: usize = 8192;

/// Is it well-formed, and no larger than everybody must take?
pub(super) fn is_valid(headers: &HeaderMap) -> bool {
    let values = || headers.get_all(BAGGAGE).iter().map(http::HeaderValue::as_bytes);
    values().map(<[u8]>::len).sum::<usize>() <= MOST_BYTES
        && values().all(|value| value.split(|byte| *byte == b',').all(is_member))
}

/// `key = value *( ; property )`.
fn is_member(member: &[u8]) -> bool {
    let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    parts.next().is_some_and(is_pair) && parts.all(|property| is_token(property) || is_pair(property))
}

fn is_pair(pair: &[u8]) -> bool {
    let Some(at) = pair.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default());
    is_token(key.trim_ascii()) && value.trim_ascii().iter().all(is_octet)
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// `baggage-octet`; commas and semicolons have been taken as ends already.
fn is_octet(byte: &u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)
}
