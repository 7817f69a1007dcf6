//! Time that is left, as gRPC writes it (`grpc-timeout`, gRPC over HTTP/2).

use std::time::Duration;

use http::{HeaderName, HeaderValue};

/// gRPC's header for the time that the caller still waits.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Reads a `grpc-timeout`: up to eight digits and a unit. `None`: it is none.
pub fn parse_grpc(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Writes a `grpc-timeout` in the finest of microseconds, milliseconds and seconds that fits; what is left over is cut off, so that the
/// next one never waits longer than we do.
pub fn format_grpc(left: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let text = match (left.as_micros(), left.as_millis()) {
        (micros, _) if micros <= MOST => format!("{micros}u"),
        (_, millis) if millis <= MOST => format!("{millis}m"),
        _ => format!("{}S", u128::from(left.as_secs()).min(MOST)),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_to_the_letter() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("40m", Some(Duration::from_millis(40))),
            ("50u", Some(Duration::from_micros(50))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("100000000n", None),
            ("1", None),
            ("m", None),
            ("", None),
            ("1h", None),
            ("-1S", None),
            ("1.5S", None),
        ] {
            assert_eq!(parse_grpc(&HeaderValue::from_static(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_never_longer_than_what_is_left() {
        for left in [0, 1, 999, 1_000_000, 99_999_999, 100_000_000, 123_456_789_012, u64::MAX / 4] {
            let left = Duration::from_micros(left);
            let read = parse_grpc(&format_grpc(left)).expect("valid");
            assert!(read <= left && left < read + Duration::from_secs(1) || left > Duration::from_secs(99_999_999));
        }
        assert_eq!(format_grpc(Duration::from_millis(250)), "250000u");
    }
}
