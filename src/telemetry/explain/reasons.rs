//! The reference of reason codes: one page for people, and the same page for programs.

/// `docs/reasons.md`.
pub const REASONS: &str = include_str!("../../../docs/reasons.md");

/// Where the section of `code` is, relative to the repository.
pub fn reason_link(code: &str) -> String {
    format!("docs/reasons.md#{code}")
}

/// The section of `code`: its title and all up to the next one.
pub fn page(code: &str) -> Option<&'static str> {
    let title = format!("### {code}\n");
    let from = REASONS.find(&title)?;
    let rest = REASONS.get(from..)?;
    let next = rest.get(4..)?.find("\n## ").into_iter().chain(rest.get(4..)?.find("\n### ")).min();
    rest.get(..next.map_or(rest.len(), |end| end + 4)).map(str::trim_end)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use regex::Regex;

    use super::*;

    /// Reason codes in the sources of the proxy.
    fn in_code() -> BTreeSet<String> {
        let read = |file: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
            std::fs::read_to_string(path).expect("a source file")
        };
        let mut codes = BTreeSet::new();
        let mut collect = |file: &str, pattern: &str| {
            let text = read(file);
            let pattern = Regex::new(pattern).expect("a pattern");
            let before = codes.len();
            codes.extend(pattern.captures_iter(&text).map(|all| all[1].to_owned()));
            assert!(codes.len() > before, "{file} has codes");
        };
        collect("error.rs", r#"\("([a-z0-9_]+)", "[A-Z]+""#);
        collect("proxy/refused.rs", r#"=> (?:\{\s*)?"([a-z0-9_]+)""#);
        collect("proxy/retry.rs", r#"\("(retr[a-z_]+)", "[A-Z]*""#);
        collect("proxy/http.rs", r#"(?:const [A-Z_]+: &str = |fail\(\s*)"([a-z_]+)""#);
        collect("proxy/tunnel.rs", r#"fail\("(stream_[a-z_]+)""#);
        collect("proxy/filters.rs", r#"local\(StatusCode::OK, "([a-z_]+)""#);
        collect("telemetry/explain/tell.rs", r#"const [A-Z_]+: &str = "([a-z_]+)";"#);
        collect("proxy/attempt.rs", r#"step(?:_at)?\((?:Some\(host.address\(\)\), )?"([a-z_]+)""#);
        collect("proxy/retry.rs", r#"step\("([a-z_]+)""#);
        collect("proxy/fallback.rs", r#"step\("([a-z_]+)""#);
        collect("admin/mod.rs", r#"connection_refused\("admin", client, "([a-z_]+)""#);
        codes
    }

    #[test]
    fn every_code_has_a_section_and_every_section_a_code() {
        let titles = Regex::new(r"(?m)^### ([a-z0-9_]+)$").expect("a pattern");
        let titles: BTreeSet<String> = titles.captures_iter(REASONS).map(|all| all[1].to_owned()).collect();
        let codes = in_code();
        let missing: Vec<_> = codes.difference(&titles).collect();
        let stale: Vec<_> = titles.difference(&codes).collect();
        assert!(missing.is_empty(), "docs/reasons.md says nothing of {missing:?}");
        assert!(stale.is_empty(), "docs/reasons.md speaks of what is in no source: {stale:?}");
        assert!(codes.len() > 70, "{}", codes.len());
    }

    #[test]
    fn a_page_ends_where_the_next_begins() {
        let page = page("overflow").expect("a page");
        assert!(page.starts_with("### overflow\n") && page.contains("503"), "{page}");
        assert_eq!(page.matches("###").count(), 1);
        assert!(super::page("nothing").is_none());
    }
}
