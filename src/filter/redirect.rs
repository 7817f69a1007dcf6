//! Redirects: Gateway API's `RequestRedirect`, Envoy's `RedirectAction`.

use http::HeaderValue;
use http::uri::PathAndQuery;

use super::rewrite;
use crate::config::{Redirect, RedirectPath};

/// The `Location` for a request for `authority` and `path` that came over `scheme`. `None`: it would be no URL.
///
/// A port that the scheme means anyway is left out (Gateway API, `HTTPRequestRedirectFilter.port`).
pub fn location(redirect: &Redirect, scheme: &str, authority: &str, path: &PathAndQuery) -> Option<HeaderValue> {
    let new_scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    let host = redirect.host.as_deref().unwrap_or_else(|| match split_port(authority) {
        (host, Some(_)) if redirect.port.is_some() => host,
        // Another scheme means another port (Envoy `RedirectAction`).
        (host, Some(port)) if new_scheme != scheme && Some(port) == well_known(scheme) => host,
        _ => authority,
    });
    let port = redirect.port.filter(|port| Some(*port) != well_known(new_scheme));
    let path = new_path(redirect, path)?;
    let url = match port {
        Some(port) => format!("{new_scheme}://{host}:{port}{path}"),
        None => format!("{new_scheme}://{host}{path}"),
    };
    HeaderValue::try_from(url).ok()
}

fn new_path(redirect: &Redirect, old: &PathAndQuery) -> Option<String> {
    let query = old.query().filter(|_| !redirect.strip_query);
    let path = match &redirect.path {
        None => old.path().to_owned(),
        Some(RedirectPath::Full(full)) if full.contains('?') => return Some(full.clone()),
        Some(RedirectPath::Full(full)) => full.clone(),
        Some(RedirectPath::Rewrite(rewrite)) => rewrite::path(rewrite, old)?.path().to_owned(),
    };
    Some(query.map_or_else(|| path.clone(), |query| format!("{path}?{query}")))
}

fn well_known(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// The host, in brackets if it is an IPv6 address, and the port.
fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.starts_with('[') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_none) => (authority, None),
        },
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PathRewrite;
    use http::StatusCode;

    fn redirect() -> Redirect {
        Redirect { status: StatusCode::FOUND, scheme: None, host: None, port: None, path: None, strip_query: false }
    }

    #[test]
    fn locations() {
        let full = |path: &str| Some(RedirectPath::Full(path.to_owned()));
        let prefix = PathRewrite::Prefix { matched: Some(2), with: "/new".to_owned() };
        let https = || Some("https".to_owned());
        for (redirect, authority, expected) in [
            (Redirect { port: Some(8083), ..redirect() }, "a:80", "http://a:8083/o/x?q"),
            (Redirect { port: Some(80), ..redirect() }, "a:8080", "http://a/o/x?q"),
            (Redirect { scheme: https(), port: Some(443), ..redirect() }, "a:8080", "https://a/o/x?q"),
            (Redirect { scheme: https(), ..redirect() }, "a:80", "https://a/o/x?q"),
            (Redirect { scheme: https(), ..redirect() }, "a:8080", "https://a:8080/o/x?q"),
            (Redirect { scheme: https(), port: Some(80), ..redirect() }, "a", "https://a:80/o/x?q"),
            (Redirect { host: Some("b".to_owned()), ..redirect() }, "a:8080", "http://b/o/x?q"),
            (Redirect { host: Some("b".to_owned()), port: Some(81), ..redirect() }, "a", "http://b:81/o/x?q"),
            (Redirect { path: full("/full"), ..redirect() }, "a:8080", "http://a:8080/full?q"),
            (Redirect { path: full("/full?own"), ..redirect() }, "a", "http://a/full?own"),
            (Redirect { path: full("/full"), strip_query: true, ..redirect() }, "a", "http://a/full"),
            (Redirect { path: Some(RedirectPath::Rewrite(prefix)), ..redirect() }, "a", "http://a/new/x?q"),
            (Redirect { port: Some(81), ..redirect() }, "[::1]:80", "http://[::1]:81/o/x?q"),
            (Redirect { port: Some(81), ..redirect() }, "[::1]", "http://[::1]:81/o/x?q"),
        ] {
            let found = location(&redirect, "http", authority, &"/o/x?q".parse().expect("a path"));
            assert_eq!(found.expect("a URL"), expected, "{redirect:?} of {authority}");
        }
    }
}
