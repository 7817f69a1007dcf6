//! The query of a URI, and a request's own words of whom it is for: what pages on localhost read.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// Longest filter of the log, in bytes.
const MAX_FILTER_BYTES: usize = 1024;
/// Longest time after which a filter goes back.
const LONGEST: Duration = Duration::from_secs(86_400);

/// `a=b&c=d`, percent-decoded; `+` stays as it is.
#[must_use]
pub fn pairs(query: &str) -> Vec<(String, String)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// Bytes that make no text become `U+FFFD`; a `%` without two digits stays.
#[must_use]
pub fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Does a request come from a program, not from a web page? Pages say their `Origin`, and reach us under a name of their
/// own only. `Host` (of HTTP/2 the authority) may be missing, or is `localhost` or an address.
#[must_use]
pub fn is_direct(headers: &HeaderMap, uri: &Uri) -> bool {
    let host = match (headers.get(HOST), uri.authority()) {
        (Some(host), _) => host.to_str().unwrap_or_default(),
        (None, Some(authority)) => authority.as_str(),
        (None, None) => "localhost",
    };
    let is_local = host.parse::<Authority>().is_ok_and(|authority| {
        let name = authority.host().trim_matches(['[', ']']);
        name == "localhost" || name.parse::<IpAddr>().is_ok()
    });
    is_local && !headers.contains_key(ORIGIN)
}

/// A filter of the log as `level=debug`, or as `tracing` has it (`pillion_proxy::discovery=debug`), and for how long
/// (`for=10m`).
///
/// # Errors
/// What is wrong with it, for people.
pub fn log_filter(query: &str) -> Result<(String, Option<Duration>), String> {
    let (mut directives, mut lasts) = (Vec::new(), None);
    for (name, value) in pairs(query) {
        match name.as_str() {
            "level" if is_level(&value) => {
                directives.push(value);
            }
            "level" => return Err(format!("level `{value}`: off, error, warn, info, debug or trace")),
            "for" => {
                let problem = format!("for `{value}`: a whole number and s, m or h, at most 24h, such as 10m");
                lasts = Some(duration(&value).filter(|lasts| *lasts <= LONGEST).ok_or(problem)?);
            }
            _ if value.is_empty() => {
                // A word alone would be a module, and all others would fall silent.
                if let Some(word) = name.split(',').find(|word| !is_level(word)) {
                    return Err(format!("`{word}`: a level, or MODULE=LEVEL"));
                }
                directives.push(name);
            }
            _ => directives.push(format!("{name}={value}")),
        }
    }
    let filter = directives.join(",");
    if filter.is_empty() || filter.len() > MAX_FILTER_BYTES {
        return Err("say what to log: ?level=debug, or a filter as ?info,MODULE=debug".to_owned());
    }
    Ok((filter, lasts))
}

fn is_level(word: &str) -> bool {
    matches!(word, "off" | "error" | "warn" | "info" | "debug" | "trace")
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.find(|character: char| !character.is_ascii_digit())?)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn queries_are_decoded() {
        let read: Vec<(String, String)> = pairs("a=b%20c&&d&e=%2Fx=1&f=%zz%2");
        let wanted = [("a", "b c"), ("d", ""), ("e", "/x=1"), ("f", "%zz%2")];
        assert_eq!(read, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn only_programs_on_this_machine_are_direct() {
        for (host, direct) in [
            ("localhost", true),
            ("localhost:15014", true),
            ("127.0.0.1:1", true),
            ("[::1]", true),
            ("[::1]:15000", true),
            ("rebound.example", false),
            ("localhost.example", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
            assert_eq!(is_direct(&headers, &Uri::from_static("/")), direct, "{host}");
        }
        assert!(is_direct(&HeaderMap::new(), &Uri::from_static("http://[::1]:80/")));
        assert!(!is_direct(&HeaderMap::new(), &Uri::from_static("http://evil.example/")));
        let page = HeaderMap::from_iter([(ORIGIN, "http://localhost".parse().unwrap())]);
        assert!(!is_direct(&page, &Uri::from_static("/")));
    }

    #[test]
    fn filters_are_read_as_people_write_them() {
        let read = |query: &str| log_filter(query).map(|(filter, lasts)| (filter, lasts.map(|lasts| lasts.as_secs())));
        assert_eq!(read("level=debug"), Ok(("debug".to_owned(), None)));
        assert_eq!(read("level=debug&for=10m"), Ok(("debug".to_owned(), Some(600))));
        assert_eq!(read("info,a::b=debug&for=5s"), Ok(("info,a::b=debug".to_owned(), Some(5))));
        for query in ["", "for=5s", "level=loud", "level=debug&for=5", "level=debug&for=99999h", "level=debug&for=0s"] {
            assert!(read(query).is_err(), "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = (pairs(&text), log_filter(&text));
        }
    }
}
