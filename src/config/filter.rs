//! What routes do to requests and responses besides choosing where they go.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use regex::Regex;

use super::{HeaderMatch, Session, StringMatch};

/// One change of a head (`*_headers_to_add`, `*_headers_to_remove`). Never of a field that concerns one connection, nor
/// of one that only sidecars set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderChange {
    /// `*_headers_to_remove`.
    Remove(HeaderName),
    /// `APPEND_IF_EXISTS_OR_ADD`: one more field of this name.
    Append(HeaderName, HeaderValue),
    /// `ADD_IF_ABSENT`.
    AddIfAbsent(HeaderName, HeaderValue),
    /// `OVERWRITE_IF_EXISTS_OR_ADD`: in place of all fields of this name.
    Overwrite(HeaderName, HeaderValue),
    /// `OVERWRITE_IF_EXISTS`.
    OverwriteIfExists(HeaderName, HeaderValue),
}

/// Changes of both heads, in the order in which they are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Of the request, on its way to the host.
    pub request: Vec<HeaderChange>,
    /// Of the response, on its way to the client.
    pub response: Vec<HeaderChange>,
}

/// What a route does besides. Most do nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteFilters {
    /// `prefix_rewrite` or `regex_rewrite`.
    pub path: Option<PathRewrite>,
    /// `request_mirror_policies`.
    pub mirrors: Vec<Mirror>,
    /// Changes of answers that the route itself gives: redirects and direct responses.
    pub answers: Vec<HeaderChange>,
    /// `typed_per_filter_config` by the filter's name, that of the virtual host and the configuration included.
    pub overrides: Vec<(String, Override)>,
}

/// What one HTTP filter does on one route.
#[derive(Clone, Debug, PartialEq)]
pub enum Override {
    /// Nothing (`FilterConfig.disabled`).
    Disabled,
    /// `CorsPolicy`.
    Cors(Cors),
    /// `HTTPFault`.
    Fault(Fault),
    /// `StatefulSessionPerRoute`.
    Session(Session),
}

/// An HTTP filter of a listener, before the router.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpFilter {
    /// `envoy.filters.http.cors`: does nothing but on routes that say what.
    Cors {
        /// What routes call it.
        name: String,
    },
    /// `envoy.filters.http.fault`.
    Fault {
        /// What routes call it.
        name: String,
        /// What it does on routes that say nothing else.
        otherwise: Option<Fault>,
    },
    /// `envoy.filters.http.stateful_session`.
    Session {
        /// What routes call it.
        name: String,
        /// What it does on routes that say nothing else.
        otherwise: Option<Session>,
    },
}

/// A new path; the query stays.
#[derive(Clone, Debug, PartialEq)]
pub enum PathRewrite {
    /// `prefix_rewrite`.
    Prefix {
        /// Characters that the route matches; `None`: all of the path.
        matched: Option<usize>,
        /// What they are replaced by.
        with: String,
    },
    /// `regex_rewrite`.
    Regex(Substitution),
}

/// `RegexMatchAndSubstitute`: every match is replaced.
#[derive(Clone, Debug)]
pub struct Substitution {
    /// What is replaced, found anywhere.
    pub regex: Regex,
    /// What it is replaced by, as the crate `regex` writes it: `$1` is a group, `$$` a dollar.
    pub with: String,
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str() && self.with == other.with
    }
}

/// `RedirectAction`. What is `None` stays as in the request.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// `scheme_redirect`, `https_redirect`.
    pub scheme: Option<String>,
    /// `host_redirect`; then the request's port is left out.
    pub host: Option<String>,
    /// `port_redirect`; left out of the location when the scheme means it anyway.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<RedirectPath>,
    /// `strip_query`.
    pub strip_query: bool,
}

/// `RedirectAction.path_rewrite_specifier`.
#[derive(Clone, Debug, PartialEq)]
pub enum RedirectPath {
    /// `path_redirect`; with a query of its own it loses the request's.
    Full(String),
    /// `prefix_rewrite` or `regex_rewrite`.
    Rewrite(PathRewrite),
}

/// `RequestMirrorPolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Who gets copies.
    pub cluster: String,
    /// `runtime_fraction.default_value`; all when it is missing.
    pub share: PerMillion,
    /// Is `-shadow` added to the host (not `disable_shadow_host_suffix_append`)?
    pub suffix: bool,
}

/// `FractionalPercent`: of a million requests, how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerMillion(pub u32);

impl PerMillion {
    /// All of them.
    pub const ALL: Self = Self(1_000_000);

    /// Does `chance`, uniform over all of `u32`, fall into this share?
    pub fn includes(self, chance: u32) -> bool {
        u64::from(chance) * u64::from(Self::ALL.0) < u64::from(self.0) << 32
    }
}

/// `HTTPFault` (gRFC A33).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fault {
    /// How long a share of the requests is held back.
    pub delay: Option<(Duration, PerMillion)>,
    /// What a share of the requests is answered with.
    pub abort: Option<(Abort, PerMillion)>,
    /// Only requests that match all of these.
    pub headers: Vec<HeaderMatch>,
    /// `max_active_faults`: requests held back at a time, at most. `None`: no limit.
    pub max_active: Option<u32>,
}

/// `FaultAbort.error_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// `http_status`.
    Http(StatusCode),
    /// `grpc_status`.
    Grpc(u8),
}

/// `CorsPolicy`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    /// `allow_origin_string_match`; exactly `*` is any.
    pub origins: Vec<StringMatch>,
    /// `allow_methods`.
    pub methods: Option<HeaderValue>,
    /// `allow_headers`.
    pub headers: Option<HeaderValue>,
    /// `expose_headers`.
    pub exposed: Option<HeaderValue>,
    /// `max_age`.
    pub max_age: Option<HeaderValue>,
    /// `allow_credentials`.
    pub credentials: bool,
    /// `forward_not_matching_preflights`: is the application asked where the origin is not allowed?
    pub forward_others: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_at_both_ends() {
        assert!(!PerMillion(0).includes(0));
        assert!(PerMillion(1).includes(0) && !PerMillion(1).includes(u32::MAX));
        assert!(PerMillion::ALL.includes(u32::MAX) && PerMillion(500_000).includes(u32::MAX / 2));
        assert!(!PerMillion(500_000).includes(u32::MAX / 2 + 1));
    }
}
