//! What routes do to heads, paths and hosts; redirects and mirrors.

use http::{HeaderName, HeaderValue, StatusCode, uri};
use pillion_wire::expression::MOST_BYTES;
use pillion_wire::header::protected;
use pillion_wire::xds::core::HeaderValueOption;
use pillion_wire::xds::core::header_value_option::HeaderAppendAction;
use pillion_wire::xds::matcher::RegexMatchAndSubstitute;
use pillion_wire::xds::route as pb;
use pillion_wire::xds::route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
use pillion_wire::xds::route::route_action::RequestMirrorPolicy;

use super::at::{At, Reason, Refusal, pass_over, port_number, refuse};
use super::filters::share;
use crate::config::{
    HeaderChange, HeaderChanges, Mirror, PathMatch, PathRewrite, PerMillion, Redirect, RedirectPath, Substitution,
};

/// The four fields of a message that change heads.
macro_rules! header_changes {
    ($at:expr, $message:expr) => {
        $crate::discovery::xds::translate::changes::both(
            $at,
            (
                std::mem::take(&mut $message.request_headers_to_add),
                std::mem::take(&mut $message.request_headers_to_remove),
            ),
            (
                std::mem::take(&mut $message.response_headers_to_add),
                std::mem::take(&mut $message.response_headers_to_remove),
            ),
        )
    };
}

pub(super) use header_changes;

type Raw = (Vec<HeaderValueOption>, Vec<String>);

pub(super) fn both(at: &At<'_>, request: Raw, response: Raw) -> Result<HeaderChanges, Refusal> {
    Ok(HeaderChanges {
        request: changes(&at.field("request_headers_to_add"), &at.field("request_headers_to_remove"), request)?,
        response: changes(&at.field("response_headers_to_add"), &at.field("response_headers_to_remove"), response)?,
    })
}

/// Removals come first (Envoy, "Custom request/response headers").
fn changes(add_at: &At<'_>, remove_at: &At<'_>, (add, remove): Raw) -> Result<Vec<HeaderChange>, Refusal> {
    let mut changes = Vec::with_capacity(add.len() + remove.len());
    for (index, removed) in remove.into_iter().enumerate() {
        changes.push(HeaderChange::Remove(name(&remove_at.index(index), &removed)?));
    }
    for (index, option) in add.into_iter().enumerate() {
        changes.extend(added(&add_at.index(index), option)?);
    }
    Ok(changes)
}

#[expect(deprecated, reason = "the older spelling of `append_action`")]
fn added(at: &At<'_>, option: HeaderValueOption) -> Result<Option<HeaderChange>, Refusal> {
    let action = match &option.append {
        Some(append) if append.value => HeaderAppendAction::AppendIfExistsOrAdd,
        Some(_) => HeaderAppendAction::OverwriteIfExistsOrAdd,
        None => HeaderAppendAction::try_from(option.append_action)
            .map_err(|_unknown| at.field("append_action").invalid("is not known"))?,
    };
    let keep_empty = option.keep_empty_value;
    let place = &at.field("header");
    let header = place.required(option.header)?;
    refuse!(place, header; raw_value);
    let name = name(&place.field("key"), &header.key)?;
    let value = value(&place.field("value"), &header.value)?;
    if value.is_empty() && !keep_empty {
        return Ok(None); // As Envoy does.
    }
    Ok(Some(match action {
        HeaderAppendAction::AppendIfExistsOrAdd => HeaderChange::Append(name, value),
        HeaderAppendAction::AddIfAbsent => HeaderChange::AddIfAbsent(name, value),
        HeaderAppendAction::OverwriteIfExistsOrAdd => HeaderChange::Overwrite(name, value),
        HeaderAppendAction::OverwriteIfExists => HeaderChange::OverwriteIfExists(name, value),
    }))
}

fn name(at: &At<'_>, name: &str) -> Result<HeaderName, Refusal> {
    if let Some(reason) = protected(name) {
        return Err(at.invalid(reason));
    }
    name.parse().map_err(|_cause| at.invalid("is no field name"))
}

/// `%%` is a per cent sign; what a single one begins is a variable of Envoy's, and we have none.
fn value(at: &At<'_>, text: &str) -> Result<HeaderValue, Refusal> {
    let plain = text.replace("%%", "");
    if plain.contains('%') {
        return Err(at.field("%").refuse(Reason::Unsupported));
    }
    HeaderValue::try_from(text.replace("%%", "%")).map_err(|_cause| at.invalid("is no value of a field"))
}

/// First what a weighted cluster says of its own, then `levels`, which go from the most general to the most specific: of
/// those the most general one speaks last, unless `specific_wins` (Envoy `most_specific_header_mutations_wins`, which
/// says nothing of weighted clusters).
pub(super) fn joined(cluster: HeaderChanges, levels: &[&HeaderChanges], specific_wins: bool) -> HeaderChanges {
    let mut all = cluster;
    let mut add = |level: &HeaderChanges| {
        all.request.extend_from_slice(&level.request);
        all.response.extend_from_slice(&level.response);
    };
    if specific_wins {
        levels.iter().for_each(|level| add(level));
    } else {
        levels.iter().rev().for_each(|level| add(level));
    }
    all
}

/// `prefix_rewrite` and `regex_rewrite` of requests that match `matched`.
pub(super) fn path_rewrite(
    at: &At<'_>,
    prefix: String,
    regex: Option<RegexMatchAndSubstitute>,
    matched: &PathMatch,
) -> Result<Option<PathRewrite>, Refusal> {
    match (prefix.is_empty(), regex) {
        (true, None) => Ok(None),
        (false, None) => prefix_rewrite(&at.field("prefix_rewrite"), prefix, matched).map(Some),
        (true, Some(regex)) => substitution(&at.field("regex_rewrite"), regex).map(PathRewrite::Regex).map(Some),
        (false, Some(_)) => Err(at.field("regex_rewrite").invalid("excludes prefix_rewrite")),
    }
}

fn prefix_rewrite(at: &At<'_>, with: String, matched: &PathMatch) -> Result<PathRewrite, Refusal> {
    if !with.starts_with('/') || with.parse::<uri::PathAndQuery>().is_err() {
        return Err(at.invalid("is no path"));
    }
    let matched = match matched {
        PathMatch::Any => Some(0),
        PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::SegmentPrefix(path) => Some(path.len()),
        PathMatch::Regex(_) => None,
    };
    Ok(PathRewrite::Prefix { matched, with })
}

/// RE2 writes groups as `\1`, the crate `regex` as `${1}`.
fn substitution(at: &At<'_>, said: RegexMatchAndSubstitute) -> Result<Substitution, Refusal> {
    let pattern = at.field("pattern");
    let text = pattern.required(said.pattern)?.regex;
    let regex = regex::RegexBuilder::new(&text).size_limit(MOST_BYTES).build();
    let regex = regex.map_err(|error| pattern.field("regex").refuse(error))?;
    let mut with = String::with_capacity(said.substitution.len());
    let mut rest = said.substitution.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '$' => with.push_str("$$"),
            '\\' => match rest.next() {
                Some('\\') => with.push('\\'),
                Some(digit) if digit.to_digit(10).is_some_and(|group| (group as usize) < regex.captures_len()) => {
                    with.extend(["${", &digit.to_string(), "}"]);
                }
                _ => return Err(at.field("substitution").invalid("refers to a group that is not there")),
            },
            other => with.push(other),
        }
    }
    Ok(Substitution { regex, with })
}

/// `host_rewrite_literal`.
pub(super) fn authority(at: &At<'_>, host: &str) -> Result<HeaderValue, Refusal> {
    let is_authority = host.parse::<uri::Authority>().is_ok() && !host.contains('@');
    let value = HeaderValue::try_from(host).ok().filter(|_| is_authority);
    value.ok_or_else(|| at.invalid("is no host or host:port"))
}

pub(super) fn redirect(at: &At<'_>, action: pb::RedirectAction, matched: &PathMatch) -> Result<Redirect, Refusal> {
    let status = match action.response_code() {
        RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
        RedirectResponseCode::Found => StatusCode::FOUND,
        RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
        RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
        RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
    };
    if RedirectResponseCode::try_from(action.response_code).is_err() {
        return Err(at.field("response_code").invalid("is not known"));
    }
    let scheme = match action.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".to_owned()),
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            let valid = scheme.parse::<uri::Scheme>();
            valid.map_err(|_cause| at.field("scheme_redirect").invalid("is no scheme"))?;
            Some(scheme).filter(|scheme| !scheme.is_empty())
        }
    };
    let host = Some(action.host_redirect).filter(|host| !host.is_empty());
    let port = Some(action.port_redirect).filter(|port| *port != 0);
    let path = match action.path_rewrite_specifier {
        None => None,
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            if !path.starts_with('/') || path.parse::<uri::PathAndQuery>().is_err() {
                return Err(at.field("path_redirect").invalid("is no path"));
            }
            Some(RedirectPath::Full(path))
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            prefix_rewrite(&at.field("prefix_rewrite"), prefix, matched).map(RedirectPath::Rewrite).map(Some)?
        }
        Some(PathRewriteSpecifier::RegexRewrite(regex)) => substitution(&at.field("regex_rewrite"), regex)
            .map(|regex| Some(RedirectPath::Rewrite(PathRewrite::Regex(regex))))?,
        Some(_) => return Err(at.field("path_rewrite").refuse(Reason::Unsupported)),
    };
    if let Some(host) = &host {
        authority(&at.field("host_redirect"), host)?;
    }
    Ok(Redirect {
        status,
        scheme,
        host,
        port: port.map(|port| port_number(&at.field("port_redirect"), port)).transpose()?,
        path,
        strip_query: action.strip_query,
    })
}

pub(super) fn mirrors(at: &At<'_>, policies: Vec<RequestMirrorPolicy>) -> Result<Vec<Mirror>, Refusal> {
    let mut mirrors = Vec::with_capacity(policies.len());
    for (index, policy) in policies.into_iter().enumerate() {
        let at = &at.index(index);
        refuse!(at, policy; cluster_header, request_headers_mutations, host_rewrite_literal);
        pass_over!(at, policy; trace_sampled);
        let fraction = &at.field("runtime_fraction");
        let percent = policy.runtime_fraction.and_then(|fraction| fraction.default_value);
        mirrors.push(Mirror {
            share: share(&fraction.field("default_value"), percent)?.unwrap_or(PerMillion::ALL),
            cluster: at.field("cluster").filled(policy.cluster)?,
            suffix: !policy.disable_shadow_host_suffix_append,
        });
    }
    Ok(mirrors)
}
