//! `filters` of rules and of backends.

mod cors;
mod headers;
mod mirror;
mod path;

use std::collections::BTreeSet;

use crate::{
    core::{
        filter::{BackendFilters, Filters, Rewrite},
        route::{Match, RouteKind},
    },
    document::{Issues, Metadata, gateway::Filter, path::FieldPath},
};

/// What filters do that are of this `type`, whose field is named so, in these places.
struct Kind {
    name: &'static str,
    field: &'static str,
    is_there: fn(&Filter) -> bool,
    in_grpc: bool,
    in_backends: bool,
    repeats: bool,
}

const KINDS: [Kind; 6] = [
    Kind {
        name: "RequestHeaderModifier",
        field: "requestHeaderModifier",
        is_there: |filter| filter.request_header_modifier.is_some(),
        in_grpc: true,
        in_backends: true,
        repeats: false,
    },
    Kind {
        name: "ResponseHeaderModifier",
        field: "responseHeaderModifier",
        is_there: |filter| filter.response_header_modifier.is_some(),
        in_grpc: true,
        in_backends: true,
        repeats: false,
    },
    Kind {
        name: "RequestRedirect",
        field: "requestRedirect",
        is_there: |filter| filter.request_redirect.is_some(),
        in_grpc: false,
        in_backends: false,
        repeats: false,
    },
    Kind {
        name: "URLRewrite",
        field: "urlRewrite",
        is_there: |filter| filter.url_rewrite.is_some(),
        in_grpc: false,
        in_backends: true,
        repeats: false,
    },
    Kind {
        name: "RequestMirror",
        field: "requestMirror",
        is_there: |filter| filter.request_mirror.is_some(),
        in_grpc: true,
        in_backends: false,
        repeats: true,
    },
    Kind {
        name: "CORS",
        field: "cors",
        is_there: |filter| filter.cors.is_some(),
        in_grpc: false,
        in_backends: false,
        repeats: false,
    },
];

/// The filters of a rule with these matches.
pub(super) fn of_rule(
    route: RouteKind,
    raw: Option<Vec<Filter>>,
    matches: &[Match],
    metadata: &Metadata,
    path: &FieldPath,
    issues: &mut Issues,
) -> Filters {
    let mut filters = Filters::default();
    for (place, filter, path) in known(route, false, raw, path, issues) {
        if let Some(raw) = filter.request_header_modifier {
            filters.headers.request = headers::read(raw, &path.key("requestHeaderModifier"), issues);
        } else if let Some(raw) = filter.response_header_modifier {
            filters.headers.response = headers::read(raw, &path.key("responseHeaderModifier"), issues);
        } else if let Some(raw) = filter.request_redirect {
            filters.redirect = Some(path::redirect(raw, matches, &path.key("requestRedirect"), issues));
        } else if let Some(raw) = filter.url_rewrite {
            filters.rewrite = path::rewrite(raw, matches, &path.key("urlRewrite"), issues);
        } else if let Some(raw) = filter.request_mirror {
            filters.mirrors.extend(mirror::read(raw, place, metadata, &path.key("requestMirror"), issues));
        } else if let Some(raw) = filter.cors {
            filters.cors = Some(cors::read(raw, &path.key("cors"), issues));
        }
    }
    if filters.redirect.is_some() && filters.rewrite != Rewrite::default() {
        issues.error(path.clone(), "RequestRedirect and URLRewrite exclude each other");
    }
    filters
}

/// The filters of a backend.
pub(super) fn of_backend(
    route: RouteKind,
    raw: Option<Vec<Filter>>,
    path: &FieldPath,
    issues: &mut Issues,
) -> BackendFilters {
    let mut filters = BackendFilters::default();
    for (_, filter, path) in known(route, true, raw, path, issues) {
        if let Some(raw) = filter.request_header_modifier {
            filters.headers.request = headers::read(raw, &path.key("requestHeaderModifier"), issues);
        } else if let Some(raw) = filter.response_header_modifier {
            filters.headers.response = headers::read(raw, &path.key("responseHeaderModifier"), issues);
        } else if let Some(raw) = filter.url_rewrite {
            let path = path.key("urlRewrite");
            if raw.path.is_some() {
                issues.error(
                    path.key("path"),
                    "the path of one backend's requests cannot be rewritten: do it in the rule",
                );
            }
            filters.hostname = path::hostname(raw.hostname, &path.key("hostname"), issues);
        }
    }
    filters
}

/// Those filters that are supported there and complete, each with its index and its path.
fn known(
    route: RouteKind,
    in_backend: bool,
    raw: Option<Vec<Filter>>,
    path: &FieldPath,
    issues: &mut Issues,
) -> Vec<(usize, Filter, FieldPath)> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for (index, filter) in raw.unwrap_or_default().into_iter().enumerate() {
        let path = path.index(index);
        let said = filter.kind.as_deref().unwrap_or("of no type");
        let fits = |kind: &&Kind| {
            let in_route = match route {
                RouteKind::Http => true,
                RouteKind::Grpc => kind.in_grpc,
                RouteKind::Tcp | RouteKind::Tls => false,
            };
            kind.name == said && in_route && (kind.in_backends || !in_backend)
        };
        let Some(kind) = KINDS.iter().find(fits) else {
            issues.error(path.key("type"), format!("filter {said} is not supported here"));
            continue;
        };
        if !kind.repeats && !seen.insert(kind.name) {
            issues.error(path.key("type"), format!("filter {said} is there twice"));
        }
        for other in KINDS.iter().filter(|other| other.field != kind.field && (other.is_there)(&filter)) {
            issues.error(path.key(other.field), format!("does not belong to a filter of type {said}"));
        }
        if (kind.is_there)(&filter) {
            kept.push((index, filter, path));
        } else {
            issues.error(path.key(kind.field), "is missing");
        }
    }
    kept
}

#[cfg(test)]
mod tests;
