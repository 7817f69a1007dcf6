//! Gateway API objects, as much of them as is read.
//!
//! Slim on purpose: a field that is not here is reported by its path, and
//! refused when it stands in a rule, where it would change which requests match
//! or where they go. Newer versions of the API therefore fail only where they
//! matter.

use serde::Deserialize;

use super::duration::Written;

/// The API group of Gateway API.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// `spec` of any route; `R` is its rule.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RouteSpec<R> {
    #[serde(default)]
    pub(super) parent_refs: Vec<ParentRef>,
    pub(super) hostnames: Option<Vec<String>>,
    #[serde(default = "Vec::new")]
    pub(super) rules: Vec<R>,
}

/// What a route is attached to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ParentRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) section_name: Option<String>,
    pub(super) port: Option<u16>,
}

/// A rule of an `HTTPRoute`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpRule {
    pub(super) name: Option<String>,
    pub(super) matches: Option<Vec<HttpMatch>>,
    pub(super) filters: Option<Vec<Filter>>,
    pub(super) backend_refs: Option<Vec<BackendRef>>,
    pub(super) timeouts: Option<RuleTimeouts>,
    pub(super) retry: Option<RuleRetry>,
    pub(super) session_persistence: Option<RuleSession>,
}

/// What keeps requests on one endpoint (GEP-1619).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuleSession {
    pub(super) session_name: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) absolute_timeout: Option<Written>,
    pub(super) idle_timeout: Option<Written>,
    pub(super) cookie_config: Option<CookieConfig>,
}

/// What the cookie of a session is like.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CookieConfig {
    pub(super) lifetime_type: Option<String>,
}

/// How long a request may take (GEP-1742).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuleTimeouts {
    pub(super) request: Option<Written>,
    pub(super) backend_request: Option<Written>,
}

/// When a request is sent again (GEP-1731).
#[derive(Debug, Deserialize)]
pub(super) struct RuleRetry {
    #[serde(default)]
    pub(super) codes: Vec<u16>,
    pub(super) attempts: Option<u32>,
    pub(super) backoff: Option<Written>,
}

/// What a request must look like.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpMatch {
    pub(super) path: Option<PathMatch>,
    pub(super) method: Option<String>,
    #[serde(default)]
    pub(super) headers: Vec<ValueMatch>,
    #[serde(default)]
    pub(super) query_params: Vec<ValueMatch>,
}

/// What a path must look like.
#[derive(Debug, Deserialize)]
pub(super) struct PathMatch {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) value: Option<String>,
}

/// What a header or parameter must look like.
#[derive(Debug, Deserialize)]
pub(super) struct ValueMatch {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) name: String,
    pub(super) value: String,
}

/// A rule of a `GRPCRoute`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GrpcRule {
    pub(super) name: Option<String>,
    pub(super) matches: Option<Vec<GrpcMatch>>,
    pub(super) filters: Option<Vec<Filter>>,
    pub(super) backend_refs: Option<Vec<BackendRef>>,
    pub(super) session_persistence: Option<RuleSession>,
}

/// What a call must look like.
#[derive(Debug, Default, Deserialize)]
pub(super) struct GrpcMatch {
    pub(super) method: Option<MethodMatch>,
    #[serde(default)]
    pub(super) headers: Vec<ValueMatch>,
}

/// What is called.
#[derive(Debug, Deserialize)]
pub(super) struct MethodMatch {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) service: Option<String>,
    pub(super) method: Option<String>,
}

/// A rule of a `TCPRoute` or `TLSRoute`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StreamRule {
    #[serde(rename = "name")]
    pub(super) _name: Option<String>,
    pub(super) backend_refs: Option<Vec<BackendRef>>,
}

/// A filter of an `HTTPRoute` or a `GRPCRoute`: its type, and the field that belongs to it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) request_header_modifier: Option<HeaderFilter>,
    pub(super) response_header_modifier: Option<HeaderFilter>,
    pub(super) request_redirect: Option<RedirectFilter>,
    pub(super) url_rewrite: Option<RewriteFilter>,
    pub(super) request_mirror: Option<MirrorFilter>,
    pub(super) cors: Option<CorsFilter>,
}

/// What is done to header fields.
#[derive(Debug, Default, Deserialize)]
pub(super) struct HeaderFilter {
    #[serde(default)]
    pub(super) set: Vec<Header>,
    #[serde(default)]
    pub(super) add: Vec<Header>,
    #[serde(default)]
    pub(super) remove: Vec<String>,
}

/// A header field.
#[derive(Debug, Deserialize)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) value: String,
}

/// Where clients are sent instead.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RedirectFilter {
    pub(super) scheme: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) path: Option<PathModifier>,
    pub(super) port: Option<u16>,
    pub(super) status_code: Option<u16>,
}

/// What requests look like to the backend.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RewriteFilter {
    pub(super) hostname: Option<String>,
    pub(super) path: Option<PathModifier>,
}

/// Another path.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PathModifier {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) replace_full_path: Option<String>,
    pub(super) replace_prefix_match: Option<String>,
}

/// Who gets copies of requests.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MirrorFilter {
    pub(super) backend_ref: BackendRef,
    pub(super) percent: Option<u32>,
    pub(super) fraction: Option<Fraction>,
}

/// A part of all requests.
#[derive(Debug, Deserialize)]
pub(super) struct Fraction {
    pub(super) numerator: u32,
    pub(super) denominator: Option<u32>,
}

/// Who may call from a browser's page of another origin.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CorsFilter {
    pub(super) allow_origins: Vec<String>,
    pub(super) allow_credentials: bool,
    pub(super) allow_methods: Vec<String>,
    pub(super) allow_headers: Vec<String>,
    pub(super) expose_headers: Vec<String>,
    pub(super) max_age: Option<u32>,
}

/// Where traffic goes.
#[derive(Debug, Deserialize)]
pub(super) struct BackendRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) port: Option<u16>,
    pub(super) weight: Option<i64>,
    pub(super) filters: Option<Vec<Filter>>,
}

/// `spec` of a `ReferenceGrant`.
#[derive(Debug, Deserialize)]
pub(super) struct GrantSpec {
    pub(super) from: Vec<GrantFrom>,
    pub(super) to: Vec<GrantTo>,
}

/// Who may refer.
#[derive(Debug, Deserialize)]
pub(super) struct GrantFrom {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) namespace: String,
}

/// What may be referred to.
#[derive(Debug, Deserialize)]
pub(super) struct GrantTo {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: Option<String>,
}
