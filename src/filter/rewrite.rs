//! Paths rewritten: Gateway API's `URLRewrite`, Envoy's `prefix_rewrite` and `regex_rewrite`.

use http::uri::PathAndQuery;

use crate::config::PathRewrite;

/// The new path with the old query. `None`: what would become of it is no path.
pub fn path(rewrite: &PathRewrite, old: &PathAndQuery) -> Option<PathAndQuery> {
    let mut new = match rewrite {
        PathRewrite::Prefix { matched, with } => {
            let rest = matched.map_or(Some(""), |matched| old.path().get(matched..))?;
            format!("{with}{rest}")
        }
        PathRewrite::Regex(substitution) => {
            substitution.regex.replace_all(old.path(), substitution.with.as_str()).into_owned()
        }
    };
    if !new.starts_with('/') {
        return None;
    }
    if let Some(query) = old.query() {
        new.push('?');
        new.push_str(query);
    }
    new.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Substitution;

    fn rewritten(rewrite: &PathRewrite, old: &str) -> Option<String> {
        path(rewrite, &old.parse().expect("a path")).map(|new| new.to_string())
    }

    fn regex(regex: &str, with: &str) -> PathRewrite {
        PathRewrite::Regex(Substitution { regex: regex.parse().expect("valid"), with: with.to_owned() })
    }

    #[test]
    fn a_prefix_is_replaced_by_characters_and_the_query_stays() {
        let prefix = |matched, with: &str| PathRewrite::Prefix { matched, with: with.to_owned() };
        for (rewrite, old, new) in [
            (prefix(Some(4), "/xyz"), "/foo/bar?a=/foo", "/xyz/bar?a=/foo"),
            (prefix(Some(4), "/xyz"), "/foo", "/xyz"),
            (prefix(Some(4), "/xyz"), "/foo/", "/xyz/"),
            (prefix(Some(0), "/xyz"), "/foo", "/xyz/foo"),
            (prefix(None, "/xyz"), "/foo/bar?q", "/xyz?q"),
        ] {
            assert_eq!(rewritten(&rewrite, old).as_deref(), Some(new), "{rewrite:?}");
        }
    }

    /// What the control plane writes for a prefix that is to vanish (Gateway API, `replacePrefixMatch` empty or `/`).
    #[test]
    fn a_prefix_vanishes_with_its_slash() {
        let vanish = regex("^/foo/*", "/");
        for (old, new) in [("/foo/bar", "/bar"), ("/foo/", "/"), ("/foo", "/"), ("/foo//bar?x", "/bar?x")] {
            assert_eq!(rewritten(&vanish, old).as_deref(), Some(new), "{old}");
        }
    }

    #[test]
    fn groups_are_put_in_and_what_is_no_path_is_none() {
        assert_eq!(rewritten(&regex("^/v([0-9])/(.*)$", "/${2}/v${1}"), "/v2/a/b?q").as_deref(), Some("/a/b/v2?q"));
        assert_eq!(rewritten(&regex("a", "b"), "/aXa").as_deref(), Some("/bXb"));
        assert_eq!(rewritten(&regex("^/", ""), "/a"), None);
    }
}
