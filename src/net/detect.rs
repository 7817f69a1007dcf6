//! What do these first bytes speak? Pure: the caller reads and decides how long to wait.

/// The HTTP/2 client connection preface (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.x.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// A TLS ClientHello.
    Tls,
    /// Something else.
    Opaque,
}

/// What can be said of the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is this.
    Is(Protocol),
    /// More bytes are needed.
    More,
}

/// The longest method that is taken for HTTP/1; `BASELINE-CONTROL` of the IANA registry has 16 characters.
const LONGEST_METHOD: usize = 16;

/// Judges the first bytes of a connection. Needs at most 24 of them.
pub fn detect(bytes: &[u8]) -> Verdict {
    let Some(&first) = bytes.first() else { return Verdict::More };
    if first == 0x16 {
        return match bytes.get(1) {
            None => Verdict::More,
            Some(3) => Verdict::Is(Protocol::Tls),
            Some(_) => Verdict::Is(Protocol::Opaque),
        };
    }
    if bytes.starts_with(PREFACE) {
        return Verdict::Is(Protocol::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return Verdict::More;
    }
    http1(bytes)
}

/// RFC 9112, section 3: `method SP request-target`, the method being a token in capitals.
fn http1(bytes: &[u8]) -> Verdict {
    let method = bytes.iter().take(LONGEST_METHOD + 1).take_while(|byte| is_method(**byte)).count();
    match bytes.get(method) {
        None if method <= LONGEST_METHOD => Verdict::More,
        Some(b' ') if method > 0 => match bytes.get(method + 1) {
            None => Verdict::More,
            Some(byte) if byte.is_ascii_graphic() => Verdict::Is(Protocol::Http1),
            Some(_) => Verdict::Is(Protocol::Opaque),
        },
        _ => Verdict::Is(Protocol::Opaque),
    }
}

fn is_method(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_first_bytes_are_told_apart() {
        for (bytes, verdict) in [
            (&b""[..], Verdict::More),
            (b"G", Verdict::More),
            (b"GET ", Verdict::More),
            (b"GET /", Verdict::Is(Protocol::Http1)),
            (b"OPTIONS * HTTP/1.1", Verdict::Is(Protocol::Http1)),
            (b"CONNECT a:1", Verdict::Is(Protocol::Http1)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Verdict::More),
            (PREFACE, Verdict::Is(Protocol::Http2)),
            (b"PRI * HTTP/1.1", Verdict::Is(Protocol::Http1)),
            (b"\x16", Verdict::More),
            (b"\x16\x03\x01", Verdict::Is(Protocol::Tls)),
            (b"\x16\x00", Verdict::Is(Protocol::Opaque)),
            (b"*1\r\n$4\r\nPING", Verdict::Is(Protocol::Opaque)),
            (b"PING\r\n", Verdict::Is(Protocol::Opaque)),
            (b"AAAAAAAAAAAAAAAAAAAAAAAA", Verdict::Is(Protocol::Opaque)),
            (b" GET /", Verdict::Is(Protocol::Opaque)),
        ] {
            assert_eq!(detect(bytes), verdict, "{}", bytes.escape_ascii());
        }
    }

    proptest::proptest! {
        #[test]
        fn a_verdict_is_reached_within_24_bytes_and_never_changes(bytes: Vec<u8>) {
            let mut verdict = Verdict::More;
            for end in 0..=bytes.len() {
                let next = detect(&bytes[..end]);
                if verdict != Verdict::More {
                    proptest::prop_assert_eq!(next, verdict);
                }
                verdict = next;
            }
            proptest::prop_assert!(bytes.len() < 24 || verdict != Verdict::More);
        }
    }
}
