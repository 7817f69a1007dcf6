//! Cross-origin resource sharing (Fetch standard, "CORS protocol"): Gateway API's `CORS`, Envoy's `CorsPolicy`.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, request};

use crate::config::{Cors, StringMatch};
use crate::route;

/// What becomes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It goes on, and nothing is said in its response.
    Pass,
    /// It goes on; the response is for this origin ([`permit`]).
    Permitted(HeaderValue),
    /// It asks what would be allowed, and these fields are the answer, without any when nothing is.
    Preflight(HeaderMap),
}

/// Judges a request by its `Origin`.
pub fn judge(cors: &Cors, request: &request::Parts) -> Verdict {
    let Some(origin) = origin(request) else { return Verdict::Pass };
    let allowed = origin.to_str().is_ok_and(|text| is_allowed(cors, text));
    let asked = request.headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| request.method == Method::OPTIONS);
    match (asked, allowed) {
        (None, true) => Verdict::Permitted(origin.clone()),
        (None, false) => Verdict::Pass,
        (Some(_), false) if cors.forward_others => Verdict::Pass,
        (Some(_), false) => Verdict::Preflight(HeaderMap::new()),
        (Some(method), true) => Verdict::Preflight(preflight(cors, origin, method, request)),
    }
}

/// Lets `origin` read a response, whatever the application said about it.
pub fn permit(cors: &Cors, origin: &HeaderValue, fields: &mut HeaderMap) {
    allow(cors, origin, fields);
    if let Some(exposed) = &cors.exposed {
        fields.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
    }
}

/// The one `Origin` of a request.
fn origin(request: &request::Parts) -> Option<&HeaderValue> {
    let mut origins = request.headers.get_all(ORIGIN).iter();
    origins.next().filter(|_| origins.next().is_none())
}

fn is_allowed(cors: &Cors, origin: &str) -> bool {
    let is_any = |matcher: &StringMatch| matches!(matcher, StringMatch::Exact(text, _) if text == "*");
    cors.origins.iter().any(|matcher| is_any(matcher) || route::string_matches(matcher, origin))
}

fn preflight(cors: &Cors, origin: &HeaderValue, method: &HeaderValue, request: &request::Parts) -> HeaderMap {
    let mut fields = HeaderMap::new();
    allow(cors, origin, &mut fields);
    if let Some(methods) = &cors.methods {
        fields.insert(ACCESS_CONTROL_ALLOW_METHODS, spelled_out(cors, methods, Some(method)));
    }
    if let Some(headers) = &cors.headers {
        let asked = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, spelled_out(cors, headers, asked));
    }
    if let Some(max_age) = &cors.max_age {
        fields.insert(ACCESS_CONTROL_MAX_AGE, max_age.clone());
    }
    fields
}

/// With credentials `*` is a name like any other (Fetch): what was asked for stands in its place.
fn spelled_out(cors: &Cors, list: &HeaderValue, asked: Option<&HeaderValue>) -> HeaderValue {
    asked.filter(|_| cors.credentials && list == "*").unwrap_or(list).clone()
}

fn allow(cors: &Cors, origin: &HeaderValue, fields: &mut HeaderMap) {
    fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    // A cache must not give one origin's answer to another (Fetch, "CORS protocol and HTTP caches").
    fields.append(VARY, HeaderValue::from_static("origin"));
    if cors.credentials {
        fields.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pattern;

    fn cors(credentials: bool) -> Cors {
        Cors {
            origins: vec![
                StringMatch::Exact("https://a.example".to_owned(), false),
                StringMatch::Regex(Pattern::new(r"https://[^/]+\.b\.example").expect("valid")),
            ],
            methods: Some(HeaderValue::from_static("GET, PUT")),
            headers: Some(HeaderValue::from_static("*")),
            exposed: Some(HeaderValue::from_static("x-sum")),
            max_age: Some(HeaderValue::from_static("5")),
            credentials,
            forward_others: false,
        }
    }

    fn request(method: &str, fields: &[(&str, &str)]) -> request::Parts {
        let builder = http::Request::builder().method(method).uri("/");
        let builder = fields.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).expect("valid").into_parts().0
    }

    fn asks(origin: &str) -> request::Parts {
        let fields = [
            ("origin", origin),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-a, x-b"),
        ];
        request("OPTIONS", &fields)
    }

    #[test]
    fn only_allowed_origins_are_told_what_is_allowed() {
        for (origin, allowed) in [
            ("https://a.example", true),
            ("https://c.b.example", true),
            ("https://b.example", false),
            ("http://a.example", false),
            ("null", false),
        ] {
            let Verdict::Preflight(fields) = judge(&cors(false), &asks(origin)) else { panic!("{origin}") };
            assert_eq!(fields.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), allowed, "{origin}");
            assert_eq!(fields.is_empty(), !allowed, "{origin}");
            let permitted =
                matches!(judge(&cors(false), &request("GET", &[("origin", origin)])), Verdict::Permitted(_));
            assert_eq!(permitted, allowed, "{origin}");
        }
        assert!(matches!(judge(&cors(false), &request("GET", &[])), Verdict::Pass));
        let forwarding = Cors { forward_others: true, ..cors(false) };
        assert!(matches!(judge(&forwarding, &asks("https://x")), Verdict::Pass));
    }

    #[test]
    fn with_credentials_a_star_is_spelled_out() {
        for (credentials, headers) in [(false, "*"), (true, "x-a, x-b")] {
            let Verdict::Preflight(fields) = judge(&cors(credentials), &asks("https://a.example")) else { panic!() };
            assert_eq!(fields[ACCESS_CONTROL_ALLOW_HEADERS], headers);
            assert_eq!(fields[ACCESS_CONTROL_ALLOW_METHODS], "GET, PUT");
            assert_eq!(fields.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS), credentials);
        }
    }

    #[test]
    fn what_the_application_permits_is_overruled() {
        let mut fields = HeaderMap::new();
        fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        permit(&cors(true), &HeaderValue::from_static("https://a.example"), &mut fields);
        assert_eq!(fields[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(fields[ACCESS_CONTROL_EXPOSE_HEADERS], "x-sum");
    }
}
