//! `HTTPRequestRedirectFilter` and `HTTPURLRewriteFilter`.

use pillion_wire::{label::is_subdomain, name::host_name};

use super::super::matches::check_literal_path;
use crate::{
    core::{
        filter::{PathChange, Redirect, Rewrite},
        route::{Match, PathMatch},
    },
    document::{
        Issues,
        gateway::{PathModifier, RedirectFilter, RewriteFilter},
        path::FieldPath,
    },
};

/// What Gateway API allows: 301 and 302 in its core, the others as `HTTPRoute{303,307,308}RedirectStatusCode`.
const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

pub(super) fn redirect(raw: RedirectFilter, matches: &[Match], path: &FieldPath, issues: &mut Issues) -> Redirect {
    if let Some(scheme) = raw.scheme.as_deref().filter(|scheme| !matches!(*scheme, "http" | "https")) {
        issues.error(path.key("scheme"), format!("`{scheme}` is not one of http and https"));
    }
    if raw.port == Some(0) {
        issues.error(path.key("port"), "0 is no port");
    }
    let status = raw.status_code.unwrap_or(302);
    if !STATUSES.contains(&status) {
        issues.error(path.key("statusCode"), format!("{status} is not one of 301, 302, 303, 307 and 308"));
    }
    let redirect = Redirect {
        scheme: raw.scheme,
        hostname: hostname(raw.hostname, &path.key("hostname"), issues),
        port: raw.port,
        path: raw.path.and_then(|raw| change(raw, matches, &path.key("path"), issues)),
        status,
    };
    if redirect.scheme.is_none() && redirect.hostname.is_none() && redirect.port.is_none() && redirect.path.is_none() {
        issues.error(path.clone(), "leads back to where the request came from: write scheme, hostname, port or path");
    }
    redirect
}

pub(super) fn rewrite(raw: RewriteFilter, matches: &[Match], path: &FieldPath, issues: &mut Issues) -> Rewrite {
    if raw.hostname.is_none() && raw.path.is_none() {
        issues.error(path.clone(), "rewrites nothing: write hostname or path");
    }
    Rewrite {
        hostname: hostname(raw.hostname, &path.key("hostname"), issues),
        path: raw.path.and_then(|raw| change(raw, matches, &path.key("path"), issues)),
    }
}

/// A name, without a port (`PreciseHostname`).
pub(super) fn hostname(raw: Option<String>, path: &FieldPath, issues: &mut Issues) -> Option<String> {
    if let Some(name) = raw.as_deref().filter(|name| !is_subdomain(name) || host_name(name).is_err()) {
        issues.error(path.clone(), format!("`{name}` is not a DNS name in lower case"));
    }
    raw
}

fn change(raw: PathModifier, matches: &[Match], path: &FieldPath, issues: &mut Issues) -> Option<PathChange> {
    match (raw.kind.as_deref().unwrap_or_default(), raw.replace_full_path, raw.replace_prefix_match) {
        ("ReplaceFullPath", Some(full), None) => {
            let full = if full.is_empty() { "/".to_owned() } else { full };
            check_literal_path(&full, "replaceFullPath", path, issues);
            Some(PathChange::Full(full))
        }
        ("ReplacePrefixMatch", None, Some(prefix)) => {
            if !matches.iter().all(|matched| matches!(matched.path, PathMatch::Prefix(_))) {
                issues.error(path.key("type"), "ReplacePrefixMatch needs matches by PathPrefix, and no others");
            }
            let kept = prefix.trim_end_matches('/');
            if !kept.is_empty() {
                check_literal_path(&prefix, "replacePrefixMatch", path, issues);
            }
            Some(PathChange::Prefix(kept.to_owned()))
        }
        ("ReplaceFullPath" | "ReplacePrefixMatch", ..) => {
            issues.error(path.clone(), "has exactly the field that its type names");
            None
        }
        (other, ..) => {
            issues.error(path.key("type"), format!("`{other}` is not one of ReplaceFullPath and ReplacePrefixMatch"));
            None
        }
    }
}
