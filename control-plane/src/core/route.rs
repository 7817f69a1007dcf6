//! Routes as objects say them, and their order when several meet on one port.
//!
//! Order per Gateway API (HTTPRouteRule.matches): exact path, then the longest
//! prefix, then a method, then the most headers, then the most query parameters;
//! then the older route, then the name, then the order in the object. Where a
//! regular expression stands is left to implementations: here between exact and
//! prefix, longest first, so that the usual catch-all `/` does not hide it.
//! A GRPCRoute's method is a path too, so both kinds may share a port.

use std::{cmp::Ordering, time::Duration};

use super::{
    filter::{BackendFilters, Filters},
    policy::{RuleRetry, SessionPersistence},
    service::Name,
};

/// What kind of object a route came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// `HTTPRoute`.
    Http,
    /// `GRPCRoute`.
    Grpc,
    /// `TCPRoute`.
    Tcp,
    /// `TLSRoute`.
    Tls,
}

impl RouteKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Http, Self::Grpc, Self::Tcp, Self::Tls];

    /// The kind as documents name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tcp => "TCPRoute",
            Self::Tls => "TLSRoute",
        }
    }
}

/// A route object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Its kind.
    pub kind: RouteKind,
    /// Its name.
    pub name: Name,
    /// `metadata.creationTimestamp` where there is one: RFC 3339, so it sorts as text.
    pub created: Option<String>,
    /// The Services whose callers it concerns.
    pub parents: Vec<Parent>,
    /// The names that TLS clients ask for, exact or `*.suffix`; empty for all. Only of a `TLSRoute`.
    pub hostnames: Vec<String>,
    /// Its rules, in the order of the object. A `TCPRoute` and a `TLSRoute` have one, without matches.
    pub rules: Vec<Rule>,
}

/// A Service that a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Parent {
    /// The Service, in the route's own namespace.
    pub service: String,
    /// Only this port number.
    pub port: Option<u16>,
    /// Only the port of this name.
    pub section: Option<String>,
}

/// A rule of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Its name, when it has one.
    pub name: Option<String>,
    /// Any of these must match; never empty for HTTP and gRPC.
    pub matches: Vec<Match>,
    /// What is done to matching requests besides.
    pub filters: Filters,
    /// Where matching traffic goes.
    pub backends: Vec<Backend>,
    /// `timeouts.request`: the whole request; zero for no limit.
    pub request: Option<Duration>,
    /// `timeouts.backendRequest`: one try.
    pub backend_request: Option<Duration>,
    /// `retry` (GEP-1731).
    pub retry: Option<RuleRetry>,
    /// `sessionPersistence` (GEP-1619).
    pub session: Option<SessionPersistence>,
}

/// What a request must look like: all parts must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Match {
    /// The path without the query.
    pub path: PathMatch,
    /// The method.
    pub method: Option<String>,
    /// Headers, names in lower case, each name once.
    pub headers: Vec<NamedMatch>,
    /// Query parameters, each name once.
    pub query: Vec<NamedMatch>,
}

/// What a path must look like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Exactly this.
    Exact(String),
    /// This, or this followed by `/` and anything. Without a trailing `/`, except the root.
    Prefix(String),
    /// Starts with this text.
    Text(String),
    /// The whole path matches this RE2 expression.
    Regex(String),
}

/// A header or query parameter that must be there with a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamedMatch {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: ValueMatch,
}

/// What a value must look like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueMatch {
    /// Exactly this.
    Exact(String),
    /// The whole value matches this RE2 expression.
    Regex(String),
}

/// A Service that takes a share of the traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// The Service.
    pub service: Name,
    /// Its port.
    pub port: u16,
    /// Only the workloads of this subset (`TrafficPolicy`, `spec.subsets`).
    pub subset: Option<String>,
    /// Its share, relative to the other backends of the rule.
    pub weight: u32,
    /// What is done to its share of the requests.
    pub filters: BackendFilters,
}

/// A match and the facts that decide its place among others.
#[derive(Clone, Copy, Debug)]
pub struct Ranked<'a> {
    /// The route it belongs to.
    pub route: &'a Route,
    /// Index of its rule in the route.
    pub rule: usize,
    /// The match.
    pub matched: &'a Match,
}

impl Ranked<'_> {
    /// Which of two comes first. A stable sort by this keeps the object's order.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        let key = |ranked: &Self| {
            let matched = ranked.matched;
            (path_rank(&matched.path), matched.method.is_some(), matched.headers.len(), matched.query.len())
        };
        key(other)
            .cmp(&key(self))
            .then_with(|| age(self.route).cmp(&age(other.route)))
            .then_with(|| self.route.name.cmp(&other.route.name))
            .then_with(|| self.route.kind.cmp(&other.route.kind))
            .then_with(|| self.rule.cmp(&other.rule))
    }
}

/// More specific is greater.
fn path_rank(path: &PathMatch) -> (u8, usize) {
    match path {
        PathMatch::Exact(text) => (2, text.chars().count()),
        PathMatch::Regex(text) => (1, text.chars().count()),
        PathMatch::Prefix(text) | PathMatch::Text(text) => (0, text.chars().count()),
    }
}

/// Routes that know their age come before those that do not.
fn age(route: &Route) -> (bool, &str) {
    (route.created.is_none(), route.created.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(path: PathMatch) -> Match {
        Match { path, method: None, headers: Vec::new(), query: Vec::new() }
    }

    fn named(name: &str) -> NamedMatch {
        NamedMatch { name: name.to_owned(), value: ValueMatch::Exact("x".to_owned()) }
    }

    fn route(name: &str, created: Option<&str>, matches: Vec<Match>) -> Route {
        Route {
            kind: RouteKind::Http,
            name: Name::new("shop", name),
            created: created.map(str::to_owned),
            parents: Vec::new(),
            hostnames: Vec::new(),
            rules: matches
                .into_iter()
                .map(|matched| Rule {
                    name: None,
                    matches: vec![matched],
                    filters: Filters::default(),
                    backends: Vec::new(),
                    request: None,
                    backend_request: None,
                    retry: None,
                    session: None,
                })
                .collect(),
        }
    }

    fn order(routes: &[Route]) -> Vec<String> {
        let mut ranked: Vec<Ranked<'_>> = routes
            .iter()
            .flat_map(|route| {
                route.rules.iter().enumerate().flat_map(move |(rule, body)| {
                    body.matches.iter().map(move |matched| Ranked { route, rule, matched })
                })
            })
            .collect();
        ranked.sort_by(Ranked::precedence);
        ranked.iter().map(|ranked| format!("{}/{}", ranked.route.name.name, ranked.rule)).collect()
    }

    #[test]
    fn exact_before_regex_before_longer_prefix_before_shorter() {
        let routes = [route(
            "a",
            None,
            vec![
                matched(PathMatch::Prefix("/".into())),
                matched(PathMatch::Prefix("/shop/orders".into())),
                matched(PathMatch::Regex("/shop/.*".into())),
                matched(PathMatch::Exact("/shop".into())),
                matched(PathMatch::Prefix("/shop".into())),
            ],
        )];
        assert_eq!(order(&routes), ["a/3", "a/2", "a/1", "a/4", "a/0"]);
    }

    #[test]
    fn method_before_headers_before_query() {
        let base = matched(PathMatch::Prefix("/".into()));
        let method = Match { method: Some("GET".into()), ..base.clone() };
        let headers = Match { headers: vec![named("a"), named("b")], ..base.clone() };
        let header = Match { headers: vec![named("a")], ..base.clone() };
        let query = Match { query: vec![named("q")], ..base.clone() };
        let routes = [route("a", None, vec![base, query, header, headers, method])];
        assert_eq!(order(&routes), ["a/4", "a/3", "a/2", "a/1", "a/0"]);
    }

    #[test]
    fn older_then_name_then_rule_order_break_ties() {
        let base = || vec![matched(PathMatch::Prefix("/".into()))];
        let routes = [
            route("z", None, base()),
            route("b", None, base()),
            route("y", Some("2026-02-01T00:00:00Z"), base()),
            route("x", Some("2026-01-01T00:00:00Z"), base()),
        ];
        assert_eq!(order(&routes), ["x/0", "y/0", "b/0", "z/0"]);
    }
}
