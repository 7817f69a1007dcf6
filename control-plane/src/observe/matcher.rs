//! Which nodes a question is about (`envoy.type.matcher.v3.NodeMatcher`).

use pillion_wire::xds::matcher::{NodeMatcher, StringMatcher, string_matcher::MatchPattern};
use regex::RegexBuilder;
use tonic::Status;

/// Compiled patterns are at most this large.
const REGEX_BYTES: usize = 64 << 10;

/// A test of a node's id.
pub(super) type Test = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// Whether one of the matchers matches; all nodes when there is none.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is not supported: metadata is not kept, so it cannot be matched.
pub(super) fn compile(matchers: &[NodeMatcher]) -> Result<Test, Status> {
    let mut tests = Vec::new();
    for matcher in matchers {
        if !matcher.node_metadatas.is_empty() {
            return Err(Status::invalid_argument("node_matchers.node_metadatas is not supported; use node_id"));
        }
        tests.push(matcher.node_id.as_ref().map(text).transpose()?);
    }
    Ok(Box::new(move |id| tests.is_empty() || tests.iter().any(|test| test.as_ref().is_none_or(|test| test(id)))))
}

fn text(matcher: &StringMatcher) -> Result<Test, Status> {
    let ignore_case = matcher.ignore_case;
    let fold = move |text: &str| if ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
    let test: Test = match &matcher.match_pattern {
        Some(MatchPattern::Exact(wanted)) => {
            let wanted = fold(wanted);
            Box::new(move |id| fold(id) == wanted)
        }
        Some(MatchPattern::Prefix(wanted)) => {
            let wanted = fold(wanted);
            Box::new(move |id| fold(id).starts_with(&wanted))
        }
        Some(MatchPattern::Suffix(wanted)) => {
            let wanted = fold(wanted);
            Box::new(move |id| fold(id).ends_with(&wanted))
        }
        Some(MatchPattern::Contains(wanted)) => {
            let wanted = fold(wanted);
            Box::new(move |id| fold(id).contains(&wanted))
        }
        Some(MatchPattern::SafeRegex(wanted)) => {
            let whole = format!("^(?:{})$", wanted.regex);
            let regex = RegexBuilder::new(&whole).size_limit(REGEX_BYTES).build();
            let regex = regex.map_err(|error| Status::invalid_argument(format!("node_matchers.node_id: {error}")))?;
            Box::new(move |id| regex.is_match(id))
        }
        _ => return Err(Status::invalid_argument("node_matchers.node_id: not a pattern that is supported")),
    };
    Ok(test)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(pattern: MatchPattern, ignore_case: bool) -> NodeMatcher {
        let node_id = Some(StringMatcher { ignore_case, match_pattern: Some(pattern) });
        NodeMatcher { node_id, ..NodeMatcher::default() }
    }

    #[test]
    fn one_of_several_is_enough_and_none_means_all() {
        assert!(compile(&[]).unwrap()("shop/orders"));
        let two = [
            node(MatchPattern::Exact("shop/Orders".to_owned()), true),
            node(MatchPattern::Prefix("bank/".to_owned()), false),
        ];
        let test = compile(&two).unwrap();
        assert!(test("shop/orders") && test("bank/a") && !test("shop/web"));
        let broken = pillion_wire::xds::matcher::RegexMatcher { regex: "(".to_owned(), ..Default::default() };
        assert!(compile(&[node(MatchPattern::SafeRegex(broken), false)]).is_err());
    }
}
