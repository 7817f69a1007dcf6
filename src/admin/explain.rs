//! `/explain`: why recent requests went as they went.

use http::StatusCode;
use pillion_wire::query::pairs;
use serde_json::{Value, json};

use crate::telemetry::explain::{Filter, Stories, tell};
use opentelemetry::TraceId;

/// Stories that one answer has, if nobody says.
const USUAL: usize = 20;
/// And at most.
const MOST: usize = 1000;

/// `trace=ID`, `request=ID`, `reason=CODE`, `limit=N`: failures before others, later ones before earlier.
pub(super) fn answer(stories: &Stories, query: &str) -> Result<Value, (StatusCode, String)> {
    let wrong = |what: String| (StatusCode::BAD_REQUEST, what);
    let (mut filter, mut most) = (Filter::default(), USUAL);
    for (name, value) in pairs(query) {
        match name.as_str() {
            "trace" => {
                let is_id = matches!(value.len(), 16 | 32) && value.bytes().all(|digit| digit.is_ascii_hexdigit());
                let trace = is_id.then(|| TraceId::from_hex(&value).ok()).flatten();
                let none = || wrong(format!("{value:?} is no trace id: 32 hex digits\n"));
                filter.trace = Some(trace.ok_or_else(none)?);
            }
            "request" => filter.request_id = Some(value),
            "reason" => filter.reason = Some(value),
            "limit" => {
                most = value.parse().map_err(|_cause| wrong(format!("{value:?} is no number\n")))?;
            }
            _ => return Err(wrong(format!("{name:?} is none of trace, request, reason, limit\n"))),
        }
    }
    let is_asked_for_one = filter.trace.is_some() || filter.request_id.is_some();
    let found = stories.each(&filter, most.min(MOST), tell);
    if found.is_empty() && is_asked_for_one {
        return Err((StatusCode::NOT_FOUND, "no such request is kept here any more\n".to_owned()));
    }
    Ok(json!({ "requests": found }))
}
