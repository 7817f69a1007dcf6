//! Which route a request takes: matching as Envoy and gRPC do it (gRFC A28, Gateway API).
//!
//! Pure: a request head in, a verdict out. Order and precedence were settled by
//! the control plane; here the first match wins.

mod domain;
mod hash;
mod query;
pub mod session;

pub use domain::best_domain;
pub use hash::{Affinity, affinity, connection_affinity};
pub use session::Bound;

use std::borrow::Cow;

use http::header::HOST;
use http::{HeaderValue, request};

use crate::config::{HeaderMatch, HeaderName, PathMatch, QueryMatch, RouteMatch, StringMatch, ValueMatch};

/// The authority of a request: of its target when that has one, else its `Host` field; empty when there is neither.
pub fn authority(request: &request::Parts) -> Cow<'_, str> {
    if let Some(authority) = request.uri.authority() {
        return Cow::Borrowed(authority.as_str());
    }
    request.headers.get(HOST).map_or(Cow::Borrowed(""), text)
}

/// The same as `from_utf8_lossy`, which is slow with what is UTF-8.
fn text(value: &HeaderValue) -> Cow<'_, str> {
    let bytes = value.as_bytes();
    std::str::from_utf8(bytes).map_or_else(|_invalid| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Do all parts of `rule` match?
pub fn matches(rule: &RouteMatch, request: &request::Parts) -> bool {
    path_matches(&rule.path, request.uri.path())
        && rule.headers.iter().all(|header| header_matches(header, request))
        && query_matches(&rule.query, request.uri.query().unwrap_or(""))
}

/// Why `rule` does not match: its first part that does not, in words. `None`: it matches.
pub fn mismatch(rule: &RouteMatch, request: &request::Parts) -> Option<String> {
    let path = request.uri.path();
    if !path_matches(&rule.path, path) {
        return Some(match &rule.path {
            PathMatch::Any => "the path".to_owned(),
            PathMatch::Exact(wanted) => format!("the path is not {wanted}"),
            PathMatch::Prefix(wanted) => format!("the path does not begin with {wanted}"),
            PathMatch::SegmentPrefix(wanted) => format!("the path is neither {wanted} nor below it"),
            PathMatch::Regex(wanted) => format!("the path does not match {}", wanted.as_str()),
        });
    }
    if let Some(header) = rule.headers.iter().find(|header| !header_matches(header, request)) {
        let name = match &header.name {
            HeaderName::Method => "the method".to_owned(),
            HeaderName::Authority => "the authority".to_owned(),
            HeaderName::Path => "the path with its query".to_owned(),
            HeaderName::Scheme => "the scheme".to_owned(),
            HeaderName::Field(name) => format!("the header {name}"),
        };
        let not = if header.invert { "" } else { "not " };
        let said = match header_value(&header.name, request) {
            Some(value) => format!("{value:?}"),
            None => "missing".to_owned(),
        };
        return Some(match &header.value {
            ValueMatch::Present => {
                format!("{name} is {said}, and has to be {}there", if header.invert { "not " } else { "" })
            }
            ValueMatch::Absent => format!("{name} is {said}, and must not be there"),
            ValueMatch::Range(range) => {
                format!("{name} is {said}, {not}a number from {} to {}", range.start, range.end - 1)
            }
            ValueMatch::String(wanted) => format!("{name} is {said}, {not}{}", in_words(wanted)),
        });
    }
    let query = request.uri.query().unwrap_or("");
    let parameter = rule.query.iter().find(|rule| !query_matches(std::slice::from_ref(rule), query))?;
    let said = query::first(query, &parameter.name).map_or_else(|| "missing".to_owned(), |value| format!("{value:?}"));
    let wanted = parameter.value.as_ref().map_or_else(String::new, |wanted| format!(", not {}", in_words(wanted)));
    Some(format!("the query parameter {} is {said}{wanted}", parameter.name))
}

fn in_words(wanted: &StringMatch) -> String {
    match wanted {
        StringMatch::Exact(text, _) => format!("{text:?}"),
        StringMatch::Prefix(text, _) => format!("what begins with {text:?}"),
        StringMatch::Suffix(text, _) => format!("what ends with {text:?}"),
        StringMatch::Contains(text, _) => format!("what contains {text:?}"),
        StringMatch::Regex(pattern) => format!("what matches {}", pattern.as_str()),
    }
}

fn path_matches(rule: &PathMatch, path: &str) -> bool {
    match rule {
        PathMatch::Any => true,
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => path.starts_with(prefix),
        PathMatch::SegmentPrefix(prefix) => {
            path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Regex(pattern) => pattern.matches(path),
    }
}

/// Does this field, or pseudo header, match?
pub fn header_matches(rule: &HeaderMatch, request: &request::Parts) -> bool {
    let value = header_value(&rule.name, request);
    let matched = match (&rule.value, value.as_deref()) {
        (ValueMatch::Present, value) => value.is_some(),
        (ValueMatch::Absent, value) => value.is_none(),
        // An absent field matches no value, and does so under inversion too (Envoy `invert_match`).
        (_, None) => return rule.invert,
        (ValueMatch::Range(range), Some(value)) => value.trim().parse().is_ok_and(|number| range.contains(&number)),
        (ValueMatch::String(string), Some(value)) => string_matches(string, value),
    };
    matched != rule.invert
}

fn header_value<'a>(name: &HeaderName, request: &'a request::Parts) -> Option<Cow<'a, str>> {
    match name {
        HeaderName::Method => Some(Cow::Borrowed(request.method.as_str())),
        HeaderName::Authority => Some(authority(request)),
        HeaderName::Path => request.uri.path_and_query().map(|path| Cow::Borrowed(path.as_str())),
        HeaderName::Scheme => Some(Cow::Borrowed(request.uri.scheme_str().unwrap_or("http"))),
        HeaderName::Field(name) => {
            let mut values = request.headers.get_all(name).iter().map(text);
            let first = values.next()?;
            Some(values.fold(first, |joined, value| Cow::Owned(format!("{joined},{value}"))))
        }
    }
}

fn query_matches(rules: &[QueryMatch], query: &str) -> bool {
    rules.iter().all(|rule| match (query::first(query, &rule.name), &rule.value) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(value), Some(string)) => string_matches(string, &value),
    })
}

/// Does this text match?
pub fn string_matches(rule: &StringMatch, value: &str) -> bool {
    match rule {
        StringMatch::Exact(text, false) => value == text,
        StringMatch::Exact(text, true) => value.eq_ignore_ascii_case(text),
        StringMatch::Prefix(text, false) => value.starts_with(text),
        StringMatch::Prefix(text, true) => lower(value).starts_with(&lower(text)),
        StringMatch::Suffix(text, false) => value.ends_with(text),
        StringMatch::Suffix(text, true) => lower(value).ends_with(&lower(text)),
        StringMatch::Contains(text, false) => value.contains(text),
        StringMatch::Contains(text, true) => lower(value).contains(&lower(text)),
        StringMatch::Regex(pattern) => pattern.matches(value),
    }
}

fn lower(text: &str) -> String {
    text.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pattern;

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut builder = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("valid request").into_parts().0
    }

    fn path(rule: &PathMatch, path: &str) -> bool {
        path_matches(rule, path)
    }

    #[test]
    fn segment_prefixes_end_at_a_slash() {
        let rule = PathMatch::SegmentPrefix("/abc".into());
        assert!(path(&rule, "/abc") && path(&rule, "/abc/") && path(&rule, "/abc/d"));
        assert!(!path(&rule, "/abcd") && !path(&rule, "/ab"));
    }

    #[test]
    fn a_regex_has_to_match_the_whole_path() {
        let rule = PathMatch::Regex(Pattern::new("/v[0-9]+|/x").expect("valid"));
        assert!(path(&rule, "/v12") && path(&rule, "/x"));
        assert!(!path(&rule, "/v12/y") && !path(&rule, "/xy") && !path(&rule, "/z/v1"));
    }

    #[test]
    fn repeated_fields_are_matched_as_one_joined_value() {
        let rule = HeaderMatch {
            name: HeaderName::Field(http::HeaderName::from_static("x-a")),
            value: ValueMatch::String(StringMatch::Exact("1,2".into(), false)),
            invert: false,
        };
        assert!(header_matches(&rule, &request("GET", "/", &[("x-a", "1"), ("x-a", "2")])));
        assert!(!header_matches(&rule, &request("GET", "/", &[("x-a", "1")])));
        assert!(!header_matches(&rule, &request("GET", "/", &[])));
    }

    #[test]
    fn what_does_not_match_is_said_in_words() {
        let exact = |text: &str| ValueMatch::String(StringMatch::Exact(text.into(), false));
        let method = HeaderMatch { name: HeaderName::Method, value: exact("POST"), invert: false };
        let rule = RouteMatch {
            path: PathMatch::SegmentPrefix("/a".into()),
            headers: vec![method],
            query: vec![QueryMatch { name: "q".into(), value: Some(StringMatch::Exact("1".into(), false)) }],
        };
        for (verb, uri, wanted) in [
            ("POST", "/a/b?q=1", None),
            ("POST", "/ab?q=1", Some("the path is neither /a nor below it")),
            ("GET", "/a?q=1", Some("the method is \"GET\", not \"POST\"")),
            ("POST", "/a?q=2", Some("the query parameter q is \"2\", not \"1\"")),
            ("POST", "/a", Some("the query parameter q is missing, not \"1\"")),
        ] {
            let request = request(verb, uri, &[]);
            assert_eq!(mismatch(&rule, &request).as_deref(), wanted, "{uri}");
            assert_eq!(matches(&rule, &request), wanted.is_none(), "{uri}");
        }
    }

    #[test]
    fn method_and_query_have_to_match_together() {
        let rule = RouteMatch {
            headers: vec![HeaderMatch {
                name: HeaderName::Method,
                value: ValueMatch::String(StringMatch::Exact("POST".into(), false)),
                invert: false,
            }],
            query: vec![QueryMatch { name: "a b".into(), value: Some(StringMatch::Exact("1".into(), false)) }],
            ..RouteMatch::default()
        };
        assert!(matches(&rule, &request("POST", "/x?a+b=1&a%20b=2", &[])));
        assert!(!matches(&rule, &request("POST", "/x?a%20b=2&a%20b=1", &[])));
        assert!(!matches(&rule, &request("GET", "/x?a%20b=1", &[])));
        assert!(!matches(&rule, &request("POST", "/x", &[])));
    }
}
