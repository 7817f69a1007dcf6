//! What requests a rule is about.

use std::collections::BTreeSet;

use pillion_wire::expression;
use regex::RegexBuilder;

use crate::{
    core::route::{Match, NamedMatch, PathMatch, ValueMatch},
    document::{
        Issues,
        gateway::{self, GrpcMatch, HttpMatch, MethodMatch},
        path::FieldPath,
    },
};

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// The matches of an `HTTPRoute` rule; without any, every request.
pub(super) fn http(raw: Option<Vec<HttpMatch>>, path: &FieldPath, issues: &mut Issues) -> Vec<Match> {
    let raw = raw.filter(|matches| !matches.is_empty()).unwrap_or_else(|| vec![HttpMatch::default()]);
    raw.into_iter()
        .enumerate()
        .map(|(index, raw)| {
            let path = path.index(index);
            if let Some(method) = &raw.method
                && !METHODS.contains(&method.as_str())
            {
                issues.error(path.key("method"), format!("`{method}` is not an HTTP method"));
            }
            Match {
                path: http_path(raw.path, &path.key("path"), issues),
                method: raw.method,
                headers: headers(raw.headers, &path.key("headers"), issues),
                query: values(raw.query_params, &path.key("queryParams"), issues),
            }
        })
        .collect()
}

/// The matches of a `GRPCRoute` rule; without any, every call.
pub(super) fn grpc(raw: Option<Vec<GrpcMatch>>, path: &FieldPath, issues: &mut Issues) -> Vec<Match> {
    let raw = raw.filter(|matches| !matches.is_empty()).unwrap_or_else(|| vec![GrpcMatch::default()]);
    raw.into_iter()
        .enumerate()
        .map(|(index, raw)| {
            let path = path.index(index);
            Match {
                path: grpc_path(raw.method, &path.key("method"), issues),
                method: None,
                headers: headers(raw.headers, &path.key("headers"), issues),
                query: Vec::new(),
            }
        })
        .collect()
}

fn http_path(raw: Option<gateway::PathMatch>, path: &FieldPath, issues: &mut Issues) -> PathMatch {
    let (kind, value) = raw.map_or((None, None), |raw| (raw.kind, raw.value));
    let value = value.unwrap_or_else(|| "/".to_owned());
    let kind = kind.as_deref().unwrap_or("PathPrefix");
    if kind != "RegularExpression" {
        check_literal_path(&value, "value", path, issues);
    }
    match kind {
        "Exact" => PathMatch::Exact(value),
        "PathPrefix" => PathMatch::Prefix(without_trailing_slash(value)),
        "RegularExpression" => {
            check_regex(&value, &path.key("value"), issues);
            PathMatch::Regex(value)
        }
        other => {
            issues.error(path.key("type"), format!("`{other}` is not one of Exact, PathPrefix and RegularExpression"));
            PathMatch::Exact(value)
        }
    }
}

/// A path that a request can have, in the field `key` of `path`.
pub(super) fn check_literal_path(value: &str, key: &'static str, path: &FieldPath, issues: &mut Issues) {
    if !value.starts_with('/') {
        issues.error(path.key(key), format!("`{value}` does not start with `/`"));
    }
    if value.contains("//") || value.split('/').any(|part| matches!(part, "." | "..")) {
        issues.error(path.key(key), format!("`{value}` is not a normalised path"));
    }
    if value.contains(['?', '#']) || value.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        issues.error(path.key(key), format!("`{value}` cannot be the path of a request"));
    }
}

fn without_trailing_slash(mut value: String) -> String {
    while value.len() > 1 && value.ends_with('/') {
        value.pop();
    }
    value
}

/// A method is a path: `/package.Service/Method` (gRPC over HTTP/2, "Requests").
fn grpc_path(raw: Option<MethodMatch>, path: &FieldPath, issues: &mut Issues) -> PathMatch {
    let Some(raw) = raw else {
        return PathMatch::Prefix("/".to_owned());
    };
    if raw.service.is_none() && raw.method.is_none() {
        issues.error(path.clone(), "names neither a service nor a method");
    }
    let (service, method) = (raw.service.as_deref(), raw.method.as_deref());
    match raw.kind.as_deref().unwrap_or("Exact") {
        "Exact" => exact_method(service, method),
        "RegularExpression" => {
            let any = "[^/]+";
            let expression = format!("/({})/({})", service.unwrap_or(any), method.unwrap_or(any));
            check_regex(&expression, path, issues);
            PathMatch::Regex(expression)
        }
        other => {
            issues.error(path.key("type"), format!("`{other}` is not one of Exact and RegularExpression"));
            PathMatch::Prefix("/".to_owned())
        }
    }
}

fn exact_method(service: Option<&str>, method: Option<&str>) -> PathMatch {
    match (service, method) {
        (Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}")),
        (Some(service), None) => PathMatch::Text(format!("/{service}/")),
        (None, Some(method)) => PathMatch::Regex(format!("/[^/]+/{}", regex::escape(method))),
        (None, None) => PathMatch::Prefix("/".to_owned()),
    }
}

/// Header matches. Of several with one name only the first counts, as Gateway
/// API says; names are compared without case.
pub(in crate::document) fn headers(
    raw: Vec<gateway::ValueMatch>,
    path: &FieldPath,
    issues: &mut Issues,
) -> Vec<NamedMatch> {
    for (index, header) in raw.iter().enumerate() {
        let is_token = http::HeaderName::from_bytes(header.name.as_bytes()).is_ok();
        if !is_token {
            issues.error(path.index(index).key("name"), format!("`{}` cannot be the name of a header", header.name));
        }
    }
    let lowered = raw
        .into_iter()
        .map(|header| gateway::ValueMatch { name: header.name.to_ascii_lowercase(), ..header })
        .collect();
    values(lowered, path, issues)
}

fn values(raw: Vec<gateway::ValueMatch>, path: &FieldPath, issues: &mut Issues) -> Vec<NamedMatch> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let path = path.index(index);
        if !seen.insert(raw.name.clone()) {
            issues.warn(path.key("name"), format!("`{}` is there twice, ignored", raw.name));
            continue;
        }
        let value = match raw.kind.as_deref().unwrap_or("Exact") {
            "Exact" => ValueMatch::Exact(raw.value),
            "RegularExpression" => {
                check_regex(&raw.value, &path.key("value"), issues);
                ValueMatch::Regex(raw.value)
            }
            other => {
                issues.error(path.key("type"), format!("`{other}` is not one of Exact and RegularExpression"));
                continue;
            }
        };
        found.push(NamedMatch { name: raw.name, value });
    }
    found
}

fn check_regex(text: &str, path: &FieldPath, issues: &mut Issues) {
    let compiled = RegexBuilder::new(&expression::whole(text)).size_limit(expression::MOST_BYTES).build();
    if let Err(error) = compiled {
        let said = error.to_string();
        let reason = said.lines().last().unwrap_or_default().trim();
        let problem = match error {
            regex::Error::CompiledTooBig(_) => "costs more than a sidecar spends on a request",
            _ => "is not a regular expression",
        };
        issues.error(path.clone(), format!("`{text}` {problem}: {reason}"));
    }
}
