//! Routes (RDS): first match wins, in the order sent.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use pillion_wire::expression;
use pillion_wire::origin::Origins;
use pillion_wire::resilience::Fallback;
use regex::Regex;

use super::{HashPolicy, HeaderChanges, Labels, Redirect, RouteFilters};

/// `RouteConfiguration`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RouteConfig {
    /// Name of the resource.
    pub name: String,
    /// Searched by authority.
    pub virtual_hosts: Vec<VirtualHost>,
}

/// `VirtualHost`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct VirtualHost {
    /// Name, for messages.
    pub name: String,
    /// `*`, `host`, `host:port`, `*.suffix` or `prefix.*`, lower case.
    pub domains: Vec<String>,
    /// First match wins.
    pub routes: Vec<Route>,
}

/// `Route`.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// `<kind>/<namespace>/<name>/<rule>`, for logs and metrics; may be empty.
    pub name: String,
    /// What it applies to.
    pub matches: RouteMatch,
    /// What to do.
    pub action: Action,
    /// What to do besides.
    pub filters: RouteFilters,
    /// What to do when no endpoint can take the request.
    pub fallback: Option<Fallback>,
    /// How long that may take, and when it is repeated.
    pub treatment: super::Treatment,
    /// What it comes from.
    pub origins: Arc<Origins>,
}

/// `RouteMatch`: all parts have to match.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RouteMatch {
    /// On the path without the query.
    pub path: PathMatch,
    /// On header fields.
    pub headers: Vec<HeaderMatch>,
    /// On query parameters; the first of a repeated name counts.
    pub query: Vec<QueryMatch>,
}

/// `RouteMatch.path_specifier`.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum PathMatch {
    /// `prefix: ""` or `"/"`.
    #[default]
    Any,
    /// `path`.
    Exact(String),
    /// `prefix`: by characters.
    Prefix(String),
    /// `path_separated_prefix`: by whole segments, as Gateway API's `PathPrefix`. Without trailing slash.
    SegmentPrefix(String),
    /// `safe_regex`: the whole path.
    Regex(Pattern),
}

/// `HeaderMatcher`.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatch {
    /// Which field.
    pub name: HeaderName,
    /// What its value has to be; several fields of a name count as one, joined by `,`.
    pub value: ValueMatch,
    /// `invert_match`.
    pub invert: bool,
}

/// A header field or one of HTTP/2's pseudo headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderName {
    /// `:method`.
    Method,
    /// `:authority`, or `Host`.
    Authority,
    /// `:path`, with the query.
    Path,
    /// `:scheme`.
    Scheme,
    /// A field.
    Field(http::HeaderName),
}

/// What a header value has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueMatch {
    /// `present_match`.
    Present,
    /// `present_match: false`.
    Absent,
    /// `range_match`, start included, end excluded.
    Range(std::ops::Range<i64>),
    /// `string_match` and its older spellings.
    String(StringMatch),
}

/// `QueryParameterMatcher`.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryMatch {
    /// Name of the parameter, percent-decoded.
    pub name: String,
    /// `None`: present is enough.
    pub value: Option<StringMatch>,
}

/// `StringMatcher`.
#[derive(Clone, Debug, PartialEq)]
pub enum StringMatch {
    /// `exact`; the flag is `ignore_case`.
    Exact(String, bool),
    /// `prefix`; the flag is `ignore_case`.
    Prefix(String, bool),
    /// `suffix`; the flag is `ignore_case`.
    Suffix(String, bool),
    /// `contains`; the flag is `ignore_case`.
    Contains(String, bool),
    /// `safe_regex`: the whole value.
    Regex(Pattern),
}

/// A regular expression that matches whole values, compared by its text.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles `text` (RE2 syntax) to match whole values only.
    ///
    /// # Errors
    /// When it is not valid, or compiles to more than 64 KiB (what a request may cost is bounded).
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        let regex = regex::RegexBuilder::new(&expression::whole(text)).size_limit(expression::MOST_BYTES).build()?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// Does the whole of `value` match?
    pub fn matches(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }

    /// The text it was made from.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// `Route.action`.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// `route.cluster` or `route.weighted_clusters`.
    Forward(Split),
    /// `redirect`.
    Redirect(Redirect),
    /// `direct_response`.
    DirectResponse {
        /// Status to answer with.
        status: StatusCode,
        /// Body, often empty.
        body: String,
    },
}

/// Traffic divided over clusters by weight. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Clusters of non-zero weight.
    pub clusters: Vec<WeightedCluster>,
    /// `hash_policy`: what keeps calls together on a host of the cluster. Empty: nothing does.
    pub hash: Vec<HashPolicy>,
    /// `weighted_clusters.use_hash_policy`: it keeps them on one of the clusters, too.
    pub by_hash: bool,
    /// How long connections of opaque TCP last.
    pub lasts: Lasts,
}

/// Limits of a connection of opaque TCP. The default has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Lasts {
    /// `TcpProxy.idle_timeout`: without a byte either way. 0 is none, as in Envoy; unlike there, so is its absence.
    pub idle: Option<Duration>,
    /// `TcpProxy.max_downstream_connection_duration`: as a whole.
    pub most: Option<Duration>,
}

/// `WeightedCluster.ClusterWeight`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedCluster {
    /// Name of the cluster.
    pub name: String,
    /// Share of the traffic.
    pub weight: NonZeroU32,
    /// What is done to heads, by the route and all that it stands in, too.
    pub headers: HeaderChanges,
    /// `host_rewrite_literal` of the route, else its own: what the host is told that it is called.
    pub authority: Option<HeaderValue>,
    /// `metadata_match` under `envoy.lb`, of the route and its own: which part of a cluster that has [`super::Subsets`].
    pub criteria: Labels,
}

impl WeightedCluster {
    /// A cluster whose requests go on as they are.
    pub fn new(name: String, weight: NonZeroU32) -> Self {
        Self { name, weight, headers: HeaderChanges::default(), authority: None, criteria: Labels::new() }
    }
}

impl Split {
    /// All traffic to one cluster.
    pub fn one(name: &str) -> Self {
        Self {
            clusters: vec![WeightedCluster::new(name.to_owned(), NonZeroU32::MIN)],
            hash: Vec::new(),
            lasts: Lasts::default(),
            by_hash: false,
        }
    }
}
