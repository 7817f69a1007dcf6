//! What routes do to requests and responses, besides choosing where they go: Gateway API's filters.

use std::time::Duration;

use super::route::Backend;

/// What a rule does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filters {
    /// `RequestHeaderModifier` and `ResponseHeaderModifier`.
    pub headers: Headers,
    /// `RequestRedirect`: the request goes nowhere.
    pub redirect: Option<Redirect>,
    /// `URLRewrite`.
    pub rewrite: Rewrite,
    /// `RequestMirror`, each of them.
    pub mirrors: Vec<Mirror>,
    /// `CORS`.
    pub cors: Option<Cors>,
}

/// What a backend does with its share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BackendFilters {
    /// Done after what the rule does.
    pub headers: Headers,
    /// `URLRewrite.hostname`.
    pub hostname: Option<String>,
}

/// Changes of both heads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Headers {
    /// `RequestHeaderModifier`.
    pub request: HeaderChanges,
    /// `ResponseHeaderModifier`.
    pub response: HeaderChanges,
}

/// `HTTPHeaderFilter`: fields by their names in lower case, each once in each list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderChanges {
    /// In place of all fields of that name.
    pub set: Vec<(String, String)>,
    /// Beside the fields of that name.
    pub add: Vec<(String, String)>,
    /// All fields of that name go.
    pub remove: Vec<String>,
}

/// `HTTPRequestRedirectFilter`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redirect {
    /// `http` or `https`; the request's when `None`.
    pub scheme: Option<String>,
    /// The request's when `None`.
    pub hostname: Option<String>,
    /// See [`Redirect::effective_port`].
    pub port: Option<u16>,
    /// The request's when `None`.
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// `HTTPPathModifier`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathChange {
    /// `ReplaceFullPath`; the query stays.
    Full(String),
    /// `ReplacePrefixMatch`: in place of the prefix that the rule matches, without a trailing `/`; empty for the root.
    Prefix(String),
}

/// `HTTPURLRewriteFilter`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rewrite {
    /// What the backend is told that it is called.
    pub hostname: Option<String>,
    /// The path that the backend sees.
    pub path: Option<PathChange>,
}

/// `HTTPRequestMirrorFilter`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mirror {
    /// Its index among the rule's filters, for messages.
    pub place: usize,
    /// Who gets a copy; the weight says nothing.
    pub backend: Backend,
    /// Of a million requests, how many are copied.
    pub per_million: u32,
}

/// `HTTPCORSFilter`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cors {
    /// `*`, or origins; in those `*` stands for any text without `/`.
    pub origins: Vec<String>,
    /// May credentials be used?
    pub credentials: bool,
    /// Methods, or `*`.
    pub methods: Vec<String>,
    /// Fields of requests, or `*`.
    pub headers: Vec<String>,
    /// Fields of responses that scripts may read, or `*`.
    pub exposed: Vec<String>,
    /// How long a browser may remember it.
    pub max_age: Duration,
}

impl Headers {
    /// These changes, and then those of `later`, as one.
    #[must_use]
    pub fn then(&self, later: &Self) -> Self {
        Self { request: self.request.then(&later.request), response: self.response.then(&later.response) }
    }
}

impl HeaderChanges {
    fn then(&self, later: &Self) -> Self {
        let overruled = |name: &String| later.remove.contains(name) || later.set.iter().any(|(set, _)| set == name);
        let kept = |fields: &[(String, String)]| -> Vec<(String, String)> {
            fields.iter().filter(|(name, _)| !overruled(name)).cloned().collect()
        };
        Self {
            set: [kept(&self.set), later.set.clone()].concat(),
            add: [kept(&self.add), later.add.clone()].concat(),
            remove: [self.remove.clone(), later.remove.clone()].concat(),
        }
    }
}

impl Redirect {
    /// The port that the redirect leads to, when it is to be named (Gateway API, `HTTPRequestRedirectFilter.port`): the
    /// one that is written, else the scheme's own, else that of the Service, `own`. `None`: host and port stay as the
    /// client wrote them, or the port is the one that the scheme means anyway.
    #[must_use]
    pub fn effective_port(&self, own: u16) -> Option<u16> {
        let well_known = match self.scheme.as_deref() {
            Some("https") => 443,
            _ => 80,
        };
        let derived = || match (&self.scheme, &self.hostname) {
            (Some(_), _) => Some(well_known),
            (None, Some(_)) => Some(own),
            (None, None) => None,
        };
        // Without a new host the request's own port would stay: it has to be written over.
        self.port.or_else(derived).filter(|port| *port != well_known || self.hostname.is_none())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Removals, then what is set, then what is added, as proxies do it.
    fn applied(changes: &HeaderChanges, before: &[(String, String)]) -> Vec<(String, String)> {
        let mut fields = before.to_vec();
        fields.retain(|(name, _)| !changes.remove.contains(name));
        for (name, value) in &changes.set {
            fields.retain(|(other, _)| other != name);
            fields.push((name.clone(), value.clone()));
        }
        fields.extend(changes.add.iter().cloned());
        fields.sort_by(|one, other| one.0.cmp(&other.0)); // Stable: the order among fields of one name counts.
        fields
    }

    fn changes() -> impl Strategy<Value = HeaderChanges> {
        let fields = || prop::collection::btree_map("[abc]", "[xyz]", 0..3).prop_map(|map| map.into_iter().collect());
        let names = prop::collection::vec("[abc]", 0..2);
        (fields(), fields(), names).prop_map(|(set, add, remove)| HeaderChanges { set, add, remove })
    }

    proptest! {
        #[test]
        fn two_changes_are_one(
            first in changes(),
            second in changes(),
            before in prop::collection::vec(("[abc]", "[xyz]"), 0..4),
        ) {
            prop_assert_eq!(applied(&first.then(&second), &before), applied(&second, &applied(&first, &before)));
        }
    }

    #[test]
    fn ports_of_redirects_are_derived_as_gateway_api_says() {
        for (scheme, hostname, port, own, expected) in [
            (None, None, None, 8080, None),
            (None, Some("a"), None, 8080, Some(8080)),
            (None, Some("a"), None, 80, None),
            (None, Some("a"), Some(80), 8080, None),
            (None, None, Some(80), 8080, Some(80)),
            (None, None, Some(8083), 80, Some(8083)),
            (Some("https"), Some("a"), None, 8080, None),
            (Some("https"), None, None, 8080, Some(443)),
            (Some("https"), Some("a"), Some(8443), 80, Some(8443)),
            (Some("http"), Some("a"), None, 8080, None),
            (Some("http"), Some("a"), Some(443), 80, Some(443)),
        ] {
            let redirect = Redirect {
                scheme: scheme.map(str::to_owned),
                hostname: hostname.map(str::to_owned),
                port,
                path: None,
                status: 302,
            };
            assert_eq!(redirect.effective_port(own), expected, "{redirect:?} of {own}");
        }
    }
}
