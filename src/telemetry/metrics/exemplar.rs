//! Which requests are examples in histograms.

use http::{HeaderMap, HeaderName};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace of a request that is sampled by its caller (W3C Trace Context, section 3.2); of all others none.
pub fn sampled_trace(headers: &HeaderMap) -> Option<[u8; 16]> {
    let value = headers.get(&TRACEPARENT)?.as_bytes();
    let (version, rest) = value.split_at_checked(3)?;
    let (id, rest) = rest.split_at_checked(32)?;
    let flags = rest.strip_prefix(b"-")?.get(16..)?.strip_prefix(b"-")?;
    // Later versions may say more after the flags.
    let is_known = match version {
        b"00-" => flags.len() == 2,
        b"ff-" => false,
        _ => flags.len() == 2 || flags.get(2) == Some(&b'-'),
    };
    let flags = hex(*flags.first()?)? << 4 | hex(*flags.get(1)?)?;
    let mut trace = [0; 16];
    for (byte, pair) in trace.iter_mut().zip(id.as_chunks::<2>().0) {
        let [high, low] = *pair;
        *byte = hex(high)? << 4 | hex(low)?;
    }
    (is_known && flags & 1 == 1 && trace != [0; 16]).then_some(trace)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sampled_and_well_formed_context_is_an_example() {
        let parse = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, value.parse().expect("a value"));
            sampled_trace(&headers)
        };
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let trace = parse(&format!("00-{id}-00f067aa0ba902b7-01")).expect("sampled");
        assert_eq!((trace[0], trace[15]), (0x4b, 0x36));
        assert!(parse(&format!("00-{id}-00f067aa0ba902b7-03")).is_some());
        assert!(parse(&format!("01-{id}-00f067aa0ba902b7-01-more")).is_some());
        for wrong in [
            format!("00-{id}-00f067aa0ba902b7-00"),
            format!("00-{id}-00f067aa0ba902b7-01-more"),
            format!("ff-{id}-00f067aa0ba902b7-01-more"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{}-00f067aa0ba902b7-01", "4BF92F3577B34DA6A3CE929D0E0E4736"),
            format!("00-{id}-00f067aa0ba902b7"),
            String::new(),
            "é".repeat(40),
        ] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
    }
}
