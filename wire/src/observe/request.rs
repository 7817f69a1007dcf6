//! Which requests a tap wants, as people say it.

use std::time::Duration;

use super::{StatusRange, TapRequest};

/// Header fields whose values one tap may ask for.
pub const MOST_FIELDS: usize = 16;
/// Longest text of a condition, in bytes.
const MOST_BYTES: usize = 256;

/// A condition that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TapError {
    /// No such condition.
    #[error(
        "`{0}` is no condition; there are to, from, route, status, slower, method, path, reason, direction, sample, header and headers"
    )]
    Unknown(String),
    /// Too long.
    #[error("`{0}` is longer than {MOST_BYTES} bytes")]
    TooLong(String),
    /// No status.
    #[error("status `{0}`: write 404, 5xx or 500-504, several separated by commas")]
    Status(String),
    /// No duration.
    #[error("slower `{0}`: write a whole number and one of us, ms, s, m, such as 100ms")]
    Slower(String),
    /// No share.
    #[error("sample `{0}`: write a share above 0, such as 0.1, or 10%")]
    Sample(String),
    /// No direction.
    #[error("direction `{0}`: write outbound or inbound")]
    Direction(String),
    /// The value of a field that is never shown.
    #[error("the value of `{0}` is never shown: it may be a secret")]
    Sensitive(String),
    /// No field, or too many.
    #[error("header `{0}`: not the name of a header field, or one of more than {MOST_FIELDS}")]
    Field(String),
}

impl TapRequest {
    /// Reads conditions: `to=orders`, `status=5xx`. `to` and `from` are a workload, service account or Service, as `NAME`,
    /// `NAMESPACE/NAME` or `NAME.NAMESPACE`; a `*` at the end of the name stands for anything.
    ///
    /// # Errors
    /// [`TapError`] says which condition cannot be understood.
    pub fn parse<'a>(conditions: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, TapError> {
        let mut request = Self::default();
        for (name, value) in conditions {
            if value.len() > MOST_BYTES {
                return Err(TapError::TooLong(name.to_owned()));
            }
            request.take(name, value)?;
        }
        Ok(request)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), TapError> {
        let text = value.to_owned();
        match name {
            "to" => self.to = text,
            "from" => self.from = text,
            "route" => self.route = text,
            "method" => self.method = text.to_ascii_uppercase(),
            "path" => self.path = text,
            "reason" => self.reasons.extend(parts(value).map(str::to_owned)),
            "status" => {
                for part in parts(value) {
                    self.statuses.push(status(part).ok_or_else(|| TapError::Status(part.to_owned()))?);
                }
            }
            "slower" => {
                let slower = duration(value).ok_or(TapError::Slower(text))?;
                self.slower_micros = u64::try_from(slower.as_micros()).unwrap_or(u64::MAX);
            }
            "direction" if matches!(value, "outbound" | "inbound") => self.direction = text,
            "direction" => return Err(TapError::Direction(text)),
            "sample" => self.sample = share(value).ok_or(TapError::Sample(text))?,
            "headers" => self.field_names = true,
            "header" => parts(value).try_for_each(|part| self.field(part))?,
            _ => return Err(TapError::Unknown(name.chars().take(40).collect())),
        }
        Ok(())
    }

    fn field(&mut self, name: &str) -> Result<(), TapError> {
        let name = name.to_ascii_lowercase();
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() || self.field_values.len() >= MOST_FIELDS {
            return Err(TapError::Field(name));
        }
        if is_sensitive(&name) {
            return Err(TapError::Sensitive(name));
        }
        self.field_names = true;
        self.field_values.push(name);
        Ok(())
    }
}

/// May the value of a header field, named in lower case, be a secret?
#[must_use]
pub fn is_sensitive(name: &str) -> bool {
    const PARTS: [&str; 14] = [
        "auth",
        "cookie",
        "token",
        "secret",
        "passw",
        "session",
        "credential",
        "key",
        "signature",
        "assertion",
        "jwt",
        "client-cert",
        "csrf",
        "xsrf",
    ];
    PARTS.iter().any(|part| name.contains(part))
}

fn parts(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn status(text: &str) -> Option<StatusRange> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => match text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
            Some(hundreds) if hundreds.len() == 1 => {
                let hundreds = number(hundreds)?;
                (hundreds * 100, hundreds * 100 + 99)
            }
            Some(_) => return None,
            None => (number(text)?, number(text)?),
        },
    };
    (first <= last && last < 1000).then_some(StatusRange { first, last })
}

/// At most three digits.
fn number(text: &str) -> Option<u32> {
    let is_number = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.find(|character: char| !character.is_ascii_digit())?)?;
    let micros: u64 = match unit {
        "us" => 1,
        "ms" => 1000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(micros).filter(|micros| *micros > 0).map(Duration::from_micros)
}

/// Parts of a million.
fn share(text: &str) -> Option<u32> {
    let (number, whole) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let share = number.parse::<f64>().ok().filter(|share| *share > 0.0 && *share <= whole)? / whole;
    // From 0 to a million.
    let parts = (share * 1_000_000.0).round() as u32;
    Some(parts.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn conditions_are_read_as_people_write_them() {
        let request = TapRequest::parse([
            ("status", "5xx, 404,500-503"),
            ("slower", "100ms"),
            ("sample", "10%"),
            ("header", "X-Request-Id"),
            ("method", "get"),
        ])
        .unwrap();
        let ranges: Vec<(u32, u32)> = request.statuses.iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(ranges, [(500, 599), (404, 404), (500, 503)]);
        assert_eq!((request.slower_micros, request.sample), (100_000, 100_000));
        assert_eq!((request.field_values, request.field_names), (vec!["x-request-id".to_owned()], true));
        assert_eq!(request.method, "GET");
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for (name, value) in [
            ("status", "abc"),
            ("status", "55xx"),
            ("status", "600-500"),
            ("status", "1000"),
            ("slower", "100"),
            ("slower", "0ms"),
            ("sample", "0"),
            ("sample", "200%"),
            ("sample", "NaN"),
            ("direction", "both"),
            ("header", "a b"),
            ("colour", "red"),
        ] {
            assert!(TapRequest::parse([(name, value)]).is_err(), "{name}={value}");
        }
        assert!(TapRequest::parse([("path", "x".repeat(300).as_str())]).is_err());
        assert!(TapRequest::parse((0..20).map(|_| ("header", "x-a"))).is_err());
    }

    #[test]
    fn values_of_secrets_cannot_be_asked_for() {
        for name in ["Authorization", "cookie", "Set-Cookie", "X-Api-Key", "x-auth-token", "X-Forwarded-Client-Cert"] {
            assert!(matches!(TapRequest::parse([("header", name)]), Err(TapError::Sensitive(_))), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(name in "(to|status|slower|sample|header|direction)", value in ".{0,20}") {
            let _ = TapRequest::parse([(name.as_str(), value.as_str())]);
        }
    }
}
