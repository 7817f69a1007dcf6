//! What routes do to requests, in the fields of `Route`, `RouteAction` and `ClusterWeight`.

use pillion_wire::xds::{
    core::{HeaderValue, HeaderValueOption, RuntimeFractionalPercent, header_value_option::HeaderAppendAction},
    matcher::{RegexMatchAndSubstitute, RegexMatcher},
    route::{
        RedirectAction, RouteAction,
        redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
        route_action::{HostRewriteSpecifier, RequestMirrorPolicy},
    },
};

use super::http_filters::per_million;
use crate::core::{
    filter::{HeaderChanges, PathChange, Redirect},
    route::PathMatch,
    view::RouteEntry,
};

/// Fields to add or to set, in this order after all removals (Envoy, "Custom request/response headers").
pub(super) fn added(changes: &HeaderChanges) -> Vec<HeaderValueOption> {
    let set = changes.set.iter().map(|field| (field, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = changes.add.iter().map(|field| (field, HeaderAppendAction::AppendIfExistsOrAdd));
    let option = |((name, value), action): (&(String, String), HeaderAppendAction)| HeaderValueOption {
        // Envoy would take what stands between two `%` for one of its variables.
        header: Some(HeaderValue { key: name.clone(), value: value.replace('%', "%%"), ..HeaderValue::default() }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    };
    set.chain(add).map(option).collect()
}

/// Rewrites and mirrors of `entry`.
pub(super) fn forwarding(entry: &RouteEntry, action: RouteAction) -> RouteAction {
    let rewrite = &entry.filters.rewrite;
    let path = rewrite.path.as_ref().and_then(|path| changed_path(path, &entry.matched.path));
    let (prefix_rewrite, regex_rewrite) = match path {
        None => (String::new(), None),
        Some(NewPath::Prefix(prefix)) => (prefix, None),
        Some(NewPath::Full(full)) => (String::new(), Some(substitute("^/.*$".to_owned(), &full))),
        Some(NewPath::Substitute(substitute)) => (String::new(), Some(substitute)),
    };
    RouteAction {
        prefix_rewrite,
        regex_rewrite,
        host_rewrite_specifier: rewrite.hostname.clone().map(HostRewriteSpecifier::HostRewriteLiteral),
        request_mirror_policies: entry
            .mirrors
            .iter()
            .map(|(target, share)| RequestMirrorPolicy {
                cluster: target.to_string(),
                runtime_fraction: Some(RuntimeFractionalPercent {
                    default_value: Some(per_million(*share)),
                    runtime_key: String::new(),
                }),
                ..RequestMirrorPolicy::default()
            })
            .collect(),
        ..action
    }
}

/// The redirect of requests that match `matched`, on the Service's port `own`.
pub(super) fn redirect(redirect: &Redirect, matched: &PathMatch, own: u16) -> RedirectAction {
    let path = redirect.path.as_ref().and_then(|path| changed_path(path, matched));
    RedirectAction {
        scheme_rewrite_specifier: redirect.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        host_redirect: redirect.hostname.clone().unwrap_or_default(),
        port_redirect: redirect.effective_port(own).map_or(0, u32::from),
        path_rewrite_specifier: path.map(|path| match path {
            NewPath::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix),
            NewPath::Full(full) => PathRewriteSpecifier::PathRedirect(full),
            NewPath::Substitute(substitute) => PathRewriteSpecifier::RegexRewrite(substitute),
        }),
        response_code: match redirect.status {
            301 => RedirectResponseCode::MovedPermanently,
            303 => RedirectResponseCode::SeeOther,
            307 => RedirectResponseCode::TemporaryRedirect,
            308 => RedirectResponseCode::PermanentRedirect,
            _ => RedirectResponseCode::Found,
        }
        .into(),
        ..RedirectAction::default()
    }
}

/// A path as xDS says it.
enum NewPath {
    Prefix(String),
    Full(String),
    Substitute(RegexMatchAndSubstitute),
}

/// Gateway API's table of prefixes (`HTTPPathModifier.replacePrefixMatch`) in Envoy's terms, which replace characters: a
/// prefix that is to vanish takes the `/` after it along, and one is put back.
fn changed_path(change: &PathChange, matched: &PathMatch) -> Option<NewPath> {
    match (change, matched) {
        (PathChange::Full(full), _) => Some(NewPath::Full(full.clone())),
        (PathChange::Prefix(prefix), _) if !prefix.is_empty() => Some(NewPath::Prefix(prefix.clone())),
        (PathChange::Prefix(_), PathMatch::Prefix(text)) if text != "/" => {
            Some(NewPath::Substitute(substitute(format!("^{}/*", regex::escape(text)), "/")))
        }
        // The root for the root.
        (PathChange::Prefix(_), _) => None,
    }
}

fn substitute(regex: String, with: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute {
        pattern: Some(RegexMatcher { regex, ..RegexMatcher::default() }),
        substitution: with.replace('\\', r"\\"),
    }
}
