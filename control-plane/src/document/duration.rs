//! Durations as Gateway API writes them (GEP-2257): `1h30m`, `500ms`, `0s`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

/// A duration in a document. To be used as the type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written(pub(super) Duration);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Self).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is no duration: write up to four of h, m, s, ms with whole numbers, such as 500ms, 10s or 1h30m"))
        })
    }
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    for _part in 0..4 {
        let digits =
            rest.find(|character: char| !character.is_ascii_digit()).filter(|digits| (1..=5).contains(digits))?;
        let (number, after) = rest.split_at_checked(digits)?;
        let number: u64 = number.parse().ok()?;
        let (millis, length) = match after.as_bytes() {
            [b'm', b's', ..] => (1, 2),
            [b's', ..] => (1000, 1),
            [b'm', ..] => (60_000, 1),
            [b'h', ..] => (3_600_000, 1),
            _ => return None,
        };
        sum += Duration::from_millis(number * millis);
        rest = after.get(length..)?;
        if rest.is_empty() {
            return Some(sum);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_gep_2257_allows() {
        for (text, millis) in
            [("0s", 0), ("500ms", 500), ("10s", 10_000), ("1h30m", 5_400_000), ("1h2m3s4ms", 3_723_004), ("1s1s", 2000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in ["", "5", "s", "1.5s", "-1s", "1 s", "1d", "100000s", "1s1s1s1s1s", "1us"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
