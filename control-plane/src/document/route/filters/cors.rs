//! `HTTPCORSFilter`.

use std::time::Duration;

use super::headers::field_name;
use crate::{
    core::filter::Cors,
    document::{Issues, gateway::CorsFilter, path::FieldPath},
};

/// Gateway API's default of `maxAge`.
const MAX_AGE: u32 = 5;

pub(super) fn read(raw: CorsFilter, path: &FieldPath, issues: &mut Issues) -> Cors {
    if raw.allow_origins.is_empty() {
        issues.error(path.key("allowOrigins"), "allows no origin: write at least one, or `*`");
    }
    let origins = path.key("allowOrigins");
    for (index, origin) in raw.allow_origins.iter().enumerate() {
        if !is_origin(origin) {
            issues.error(origins.index(index), format!("`{origin}` is neither `*` nor SCHEME://HOST[:PORT]"));
        }
    }
    check_alone(&raw.allow_origins, &origins, issues);
    check_alone(&raw.allow_methods, &path.key("allowMethods"), issues);
    let methods = path.key("allowMethods");
    for (index, method) in raw.allow_methods.iter().enumerate() {
        let is_method = method == "*" || http::Method::from_bytes(method.as_bytes()).is_ok();
        if !is_method || method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            issues.error(methods.index(index), format!("`{method}` is not an HTTP method"));
        }
    }
    Cors {
        origins: raw.allow_origins,
        credentials: raw.allow_credentials,
        methods: raw.allow_methods,
        headers: names(raw.allow_headers, &path.key("allowHeaders"), issues),
        exposed: names(raw.expose_headers, &path.key("exposeHeaders"), issues),
        max_age: Duration::from_secs(raw.max_age.unwrap_or(MAX_AGE).into()),
    }
}

fn names(raw: Vec<String>, path: &FieldPath, issues: &mut Issues) -> Vec<String> {
    check_alone(&raw, path, issues);
    for (index, name) in raw.iter().enumerate().filter(|(_, name)| *name != "*") {
        let _lower = field_name(name, &path.index(index), issues);
    }
    raw
}

/// `*` says all, and nothing beside it says more.
fn check_alone(list: &[String], path: &FieldPath, issues: &mut Issues) {
    if list.len() > 1 && list.iter().any(|one| one == "*") {
        issues.error(path.clone(), "`*` stands alone");
    }
}

/// RFC 6454, section 6.2, with `*` in the host, and with `*` alone.
fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    };
    let is_host = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._*[:]".contains(&byte))
        && (host.starts_with('[') || !host.contains(':'));
    is_scheme && is_host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_a_scheme_and_a_host() {
        for good in
            ["*", "https://a.example", "http://localhost:3000", "https://*.example", "null://x", "http://[::1]:1"]
        {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["", "a.example", "https://", "https://a/", "https://a:0", "https://a:99999", "://a", "https://a b"]
        {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
