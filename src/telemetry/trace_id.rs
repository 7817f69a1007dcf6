//! Which trace a request belongs to, as its head says.

use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, HeaderName};

/// A trace id: W3C Trace Context, B3.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");

impl TraceId {
    /// These bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// That of a request with these fields: of `traceparent`, else of B3. `None` without one, and of one that is none.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let field = |name: &HeaderName| headers.get(name).map(http::HeaderValue::as_bytes);
        if let Some(context) = field(&TRACEPARENT) {
            return context.get(3..35).and_then(Self::parse);
        }
        if let Some(context) = field(&B3) {
            return context.split(|byte| *byte == b'-').next().and_then(Self::parse);
        }
        field(&B3_TRACE).and_then(Self::parse)
    }

    /// The last eight bytes.
    pub fn low(&self) -> u64 {
        u128::from_be_bytes(self.0) as u64
    }

    /// 32 or (B3) 16 hexadecimal digits, not all of them 0.
    fn parse(digits: &[u8]) -> Option<Self> {
        if digits.len() != 32 && digits.len() != 16 {
            return None;
        }
        let mut number = 0_u128;
        for digit in digits {
            number = (number << 4) | u128::from((*digit as char).to_digit(16)?);
        }
        (number != 0).then(|| Self(number.to_be_bytes()))
    }
}

impl FromStr for TraceId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::parse(text.as_bytes()).ok_or(())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_either_convention() {
        const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (name, value, wanted) in [
            ("traceparent", format!("00-{ID}-00f067aa0ba902b7-01"), Some(ID)),
            ("b3", format!("{ID}-00f067aa0ba902b7-1"), Some(ID)),
            ("x-b3-traceid", ID.to_owned(), Some(ID)),
            ("x-b3-traceid", "a3ce929d0e0e4736".to_owned(), Some("0000000000000000a3ce929d0e0e4736")),
            ("b3", "0".to_owned(), None),
            ("traceparent", "00-short".to_owned(), None),
            ("traceparent", format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            ("traceparent", format!("00-{}-00f067aa0ba902b7-01", "é".repeat(16)), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, http::HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
            assert_eq!(TraceId::read(&headers).map(|id| id.to_string()).as_deref(), wanted, "{name}: {value}");
        }
    }
}
