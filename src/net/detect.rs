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

/// Methods of the IANA registry, and those of UPnP and of caches. Any other first word is opaque: a protocol of lines
/// may begin with any word, and must not wait for us to make up our mind.
const METHODS: [&[u8]; 44] = [
    b"ACL",
    b"BASELINE-CONTROL",
    b"BIND",
    b"CHECKIN",
    b"CHECKOUT",
    b"CONNECT",
    b"COPY",
    b"DELETE",
    b"GET",
    b"HEAD",
    b"LABEL",
    b"LINK",
    b"LOCK",
    b"M-SEARCH",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MKREDIRECTREF",
    b"MKWORKSPACE",
    b"MOVE",
    b"NOTIFY",
    b"OPTIONS",
    b"ORDERPATCH",
    b"PATCH",
    b"POST",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"PUT",
    b"QUERY",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SUBSCRIBE",
    b"TRACE",
    b"UNBIND",
    b"UNCHECKOUT",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
    b"UPDATE",
    b"UPDATEREDIRECTREF",
    b"VERSION-CONTROL",
];
/// A request line that is longer is HTTP; what cannot be told from one by then is not worth telling.
const LONGEST_LINE: usize = 8 << 10;

/// Judges the first bytes of a connection. Needs at most 24 of them, unless they begin with an HTTP method and something
/// else than a path: then the first line.
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

/// RFC 9112, section 3: `method SP request-target SP HTTP-version CRLF`. A target that is a path or `*` is enough; other
/// lines are HTTP if they say so at their end, since `SEARCH x` may be a line of anything.
fn http1(bytes: &[u8]) -> Verdict {
    let Some(space) = bytes.iter().position(|byte| *byte == b' ') else {
        let may_become = METHODS.iter().any(|method| method.starts_with(bytes));
        return if may_become { Verdict::More } else { Verdict::Is(Protocol::Opaque) };
    };
    let (method, target) = bytes.split_at(space);
    if !METHODS.contains(&method) {
        return Verdict::Is(Protocol::Opaque);
    }
    let line = target.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_whole = line.len() < target.len();
    match line.get(1) {
        None if !is_whole => Verdict::More,
        Some(b'/' | b'*') => Verdict::Is(Protocol::Http1),
        // Judged alike whether or not the end has come, so that a verdict does not depend on how bytes arrive.
        Some(byte) if byte.is_ascii_graphic() && line.len() <= LONGEST_LINE => {
            let version = line.trim_ascii_end().rsplit(|byte| *byte == b' ').next();
            match version {
                _ if !is_whole => Verdict::More,
                Some(word) if is_version(word) => Verdict::Is(Protocol::Http1),
                _ => Verdict::Is(Protocol::Opaque),
            }
        }
        _ => Verdict::Is(Protocol::Opaque),
    }
}

fn is_version(word: &[u8]) -> bool {
    matches!(word, b"HTTP/1.0" | b"HTTP/1.1")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_usual_first_bytes_are_told_apart() {
        for (bytes, verdict) in [
            (&b""[..], Verdict::More),
            (b"G", Verdict::More),
            (b"GET ", Verdict::More),
            (b"GET /", Verdict::Is(Protocol::Http1)),
            (b"OPTIONS * HTTP/1.1", Verdict::Is(Protocol::Http1)),
            (b"CONNECT a:1", Verdict::More),
            (b"CONNECT a:1 HTTP/1.1\r\n", Verdict::Is(Protocol::Http1)),
            (b"GET http://a/ HTTP/1.0\n", Verdict::Is(Protocol::Http1)),
            (b"SEARCH x\r\n", Verdict::Is(Protocol::Opaque)),
            (b"PUT \n", Verdict::Is(Protocol::Opaque)),
            (b"HELLO", Verdict::Is(Protocol::Opaque)),
            (b"ECHO x\r\n", Verdict::Is(Protocol::Opaque)),
            (b"get x\r\n", Verdict::Is(Protocol::Opaque)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Verdict::More),
            (PREFACE, Verdict::Is(Protocol::Http2)),
            (b"PRI * HTTP/1.1", Verdict::Is(Protocol::Opaque)),
            (b"\x16", Verdict::More),
            (b"\x16\x03\x01", Verdict::Is(Protocol::Tls)),
            (b"\x16\x00", Verdict::Is(Protocol::Opaque)),
            (b"*1\r\n$4\r\nPING", Verdict::Is(Protocol::Opaque)),
            (b"PING\r\n", Verdict::Is(Protocol::Opaque)),
            (b"AAAAAAAAAAAAAAAAAAAAAAAA", Verdict::Is(Protocol::Opaque)),
            (b" GET /", Verdict::Is(Protocol::Opaque)),
            (b"GET \0", Verdict::Is(Protocol::Opaque)),
            (b"GET \0t/ HTTP/1.1\r\n", Verdict::Is(Protocol::Opaque)),
        ] {
            assert_eq!(detect(bytes), verdict, "{}", bytes.escape_ascii());
        }
    }

    proptest::proptest! {
        #[test]
        fn a_verdict_is_reached_with_the_first_line_and_never_changes(bytes in prop_oneof![
            any::<Vec<u8>>(),
            "(GET|PU|CONNECT|COPY |SEARCH x)[ -~]{0,40}( HTTP/1.1)?\r?\n.{0,9}".prop_map(String::into_bytes),
        ]) {
            let mut verdict = Verdict::More;
            for end in 0..=bytes.len() {
                let next = detect(&bytes[..end]);
                if verdict != Verdict::More {
                    proptest::prop_assert_eq!(next, verdict);
                }
                verdict = next;
            }
            proptest::prop_assert!(bytes.len() < 24 || !bytes.contains(&b'\n') || verdict != Verdict::More);
        }
    }
}
