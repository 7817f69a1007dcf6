//! What a route applies to.

use pillion_wire::xds::matcher::StringMatcher;
use pillion_wire::xds::matcher::string_matcher::MatchPattern;
use pillion_wire::xds::route::header_matcher::HeaderMatchSpecifier;
use pillion_wire::xds::route::query_parameter_matcher::QueryParameterMatchSpecifier;
use pillion_wire::xds::route::route_match::PathSpecifier;
use pillion_wire::xds::route::{self as pb};

use super::at::{At, Reason, Refusal, refuse};
use crate::config::{HeaderMatch, HeaderName, PathMatch, Pattern, QueryMatch, RouteMatch, StringMatch, ValueMatch};

/// `RouteMatch`.
pub(super) fn rule(at: &At<'_>, rule: pb::RouteMatch) -> Result<RouteMatch, Refusal> {
    refuse!(at, rule; runtime_fraction, cookies, grpc, tls_context, dynamic_metadata, filter_state);
    if rule.case_sensitive.is_some_and(|sensitive| !sensitive.value) {
        return Err(at.field("case_sensitive").refuse(Reason::Unsupported));
    }
    let path = path(at, at.field("path_specifier").required(rule.path_specifier)?)?;
    let (fields, parameters) = (&at.field("headers"), &at.field("query_parameters"));
    let mut headers = Vec::with_capacity(rule.headers.len());
    for (index, matcher) in rule.headers.into_iter().enumerate() {
        headers.push(header(&fields.index(index), matcher)?);
    }
    let mut query = Vec::with_capacity(rule.query_parameters.len());
    for (index, matcher) in rule.query_parameters.into_iter().enumerate() {
        query.push(parameter(&parameters.index(index), matcher)?);
    }
    Ok(RouteMatch { path, headers, query })
}

fn path(at: &At<'_>, path: PathSpecifier) -> Result<PathMatch, Refusal> {
    match path {
        PathSpecifier::Prefix(prefix) if matches!(prefix.as_str(), "" | "/") => Ok(PathMatch::Any),
        PathSpecifier::Prefix(prefix) => absolute(&at.field("prefix"), prefix).map(PathMatch::Prefix),
        PathSpecifier::Path(path) => absolute(&at.field("path"), path).map(PathMatch::Exact),
        PathSpecifier::PathSeparatedPrefix(prefix) => {
            let at = &at.field("path_separated_prefix");
            let prefix = absolute(at, prefix)?;
            if prefix.ends_with('/') || prefix.contains(['?', '#']) {
                return Err(at.invalid("must not end in \"/\" nor hold \"?\" or \"#\""));
            }
            Ok(PathMatch::SegmentPrefix(prefix))
        }
        PathSpecifier::SafeRegex(regex) => pattern(&at.field("safe_regex"), &regex.regex).map(PathMatch::Regex),
        PathSpecifier::ConnectMatcher(_) => Err(at.field("connect_matcher").refuse(Reason::Unsupported)),
        PathSpecifier::PathMatchPolicy(_) => Err(at.field("path_match_policy").refuse(Reason::Unsupported)),
    }
}

fn absolute(at: &At<'_>, path: String) -> Result<String, Refusal> {
    if path.starts_with('/') { Ok(path) } else { Err(at.invalid("has to begin with \"/\"")) }
}

fn pattern(at: &At<'_>, regex: &str) -> Result<Pattern, Refusal> {
    Pattern::new(regex).map_err(|error| at.field("regex").refuse(error))
}

pub(super) fn header(at: &At<'_>, matcher: pb::HeaderMatcher) -> Result<HeaderMatch, Refusal> {
    refuse!(at, matcher; treat_missing_header_as_empty);
    let name = header_name(&at.field("name"), &matcher.name)?;
    // Nothing said means: present (Envoy `HeaderMatcher`).
    let specifier = matcher.header_match_specifier.unwrap_or(HeaderMatchSpecifier::PresentMatch(true));
    Ok(HeaderMatch { name, value: header_value(at, specifier)?, invert: matcher.invert_match })
}

pub(super) fn header_name(at: &At<'_>, name: &str) -> Result<HeaderName, Refusal> {
    match name {
        ":method" => Ok(HeaderName::Method),
        ":authority" => Ok(HeaderName::Authority),
        ":path" => Ok(HeaderName::Path),
        ":scheme" => Ok(HeaderName::Scheme),
        field => field.parse().map(HeaderName::Field).map_err(|_cause| at.invalid("is no field name")),
    }
}

#[expect(deprecated, reason = "gRPC's control planes still send the older spellings")]
fn header_value(at: &At<'_>, specifier: HeaderMatchSpecifier) -> Result<ValueMatch, Refusal> {
    use HeaderMatchSpecifier as Said;
    let string = match specifier {
        Said::PresentMatch(true) => return Ok(ValueMatch::Present),
        Said::PresentMatch(false) => return Ok(ValueMatch::Absent),
        Said::RangeMatch(range) if range.start < range.end => return Ok(ValueMatch::Range(range.start..range.end)),
        Said::RangeMatch(_) => return Err(at.field("range_match").invalid("is empty")),
        Said::ExactMatch(text) => StringMatch::Exact(text, false),
        Said::PrefixMatch(text) => StringMatch::Prefix(text, false),
        Said::SuffixMatch(text) => StringMatch::Suffix(text, false),
        Said::ContainsMatch(text) => StringMatch::Contains(text, false),
        Said::SafeRegexMatch(regex) => StringMatch::Regex(pattern(&at.field("safe_regex_match"), &regex.regex)?),
        Said::StringMatch(matcher) => string(&at.field("string_match"), matcher)?,
    };
    Ok(ValueMatch::String(string))
}

fn parameter(at: &At<'_>, matcher: pb::QueryParameterMatcher) -> Result<QueryMatch, Refusal> {
    let value = match matcher.query_parameter_match_specifier {
        None | Some(QueryParameterMatchSpecifier::PresentMatch(true)) => None,
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            return Err(at.field("present_match").refuse(Reason::Unsupported));
        }
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => Some(string(&at.field("string_match"), matcher)?),
    };
    Ok(QueryMatch { name: at.field("name").filled(matcher.name)?, value })
}

pub(super) fn string(at: &At<'_>, matcher: StringMatcher) -> Result<StringMatch, Refusal> {
    let fold = matcher.ignore_case;
    Ok(match at.field("match_pattern").required(matcher.match_pattern)? {
        MatchPattern::Exact(text) => StringMatch::Exact(text, fold),
        MatchPattern::Prefix(text) => StringMatch::Prefix(at.field("prefix").filled(text)?, fold),
        MatchPattern::Suffix(text) => StringMatch::Suffix(at.field("suffix").filled(text)?, fold),
        MatchPattern::Contains(text) => StringMatch::Contains(at.field("contains").filled(text)?, fold),
        // `ignore_case` has no effect on regular expressions (Envoy `StringMatcher`).
        MatchPattern::SafeRegex(regex) => StringMatch::Regex(pattern(&at.field("safe_regex"), &regex.regex)?),
        MatchPattern::Custom(_) => return Err(at.field("custom").refuse(Reason::Unsupported)),
    })
}
