//! Durations as people write them: `500ms`, `20s`, `5m`, `24h`, `365d`.

use std::time::Duration;

/// Reads a whole number with its unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).ok_or(DurationError)?;
    let (number, unit) = text.split_at_checked(digits).ok_or(DurationError)?;
    let number: u64 = number.parse().map_err(|_| DurationError)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        _ => return Err(DurationError),
    };
    number.checked_mul(millis).filter(|millis| *millis > 0).map(Duration::from_millis).ok_or(DurationError)
}

/// The text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write a whole number above zero and one of ms, s, m, h, d, such as 500ms, 20s or 24h")]
pub(crate) struct DurationError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_unit() {
        for (text, seconds) in [("500ms", 0.5), ("20s", 20.0), ("5m", 300.0), ("24h", 86400.0), ("2d", 172_800.0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in ["", "s", "20", "20 s", "-1s", "1.5s", "0s", "1w", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(parse_duration(text), Err(DurationError), "{text}");
        }
    }
}
