//! A story as JSON: each decision with its code, the sentence for people, the object and line behind it, and what would
//! have been otherwise.

use std::time::SystemTime;

use pillion_wire::origin::{Origin, Origins};
use serde_json::{Value, json};

use super::{Chosen, Step, Story, page, reason_link};

/// A rule of a route object matched.
const ROUTE_MATCHED: &str = "route_matched";
/// No route is attached to the Service: everything goes to it.
const SERVICE_DEFAULT: &str = "service_default";
/// Inbound: a port of the workload.
const PORT_SERVED: &str = "port_served";
/// The balancer picked a host.
const ENDPOINT_PICKED: &str = "endpoint_picked";
/// The host, or our application, answered, whatever it said.
const ANSWERED: &str = "answered";

/// What of the configuration a reason code is about: a section of a policy, as documents name it, and whether it is that of
/// the cluster rather than that of the route. Else the route's rule, or what it belongs to.
pub fn section_of(code: &str) -> Option<(&'static str, bool)> {
    Some(match code {
        "request_timeout" | "try_timeout" | "max_duration" | "stream_idle" | "retry_no_time" => ("timeouts", false),
        "connect_timeout" => ("timeouts", true),
        "retried" | "retries_exhausted" | "retry_nested" | "retry_body_too_large" => ("retries", false),
        "retry_budget_exhausted" => ("retries", true),
        "overflow" | "pending_timeout" | "retry_overflow" => ("limits", true),
        "breaker_open" => ("breaker", true),
        "no_healthy_upstream" => ("healthChecks", true),
        "session_lost" => ("sessionPersistence", false),
        "endpoint_picked" => ("loadBalancing", true),
        "fault" => ("faults", false),
        "direct_response" => ("directResponse", false),
        "fell_back" => ("fallback", false),
        "rate_limited" => ("rateLimits", false),
        "over_limit" | "rate_limit_service" => ("globalRateLimit", false),
        "shed" => ("loadShedding", false),
        _ => return None,
    })
}

/// Why it failed has nothing to do with what is configured, but with the network, the host or the client.
fn is_unconfigured(code: &str) -> bool {
    matches!(
        code,
        "client_gone"
            | "caller_gone"
            | "io_error"
            | "upstream_reset"
            | "idle_race"
            | "upstream_protocol"
            | "stream_reset"
            | "upstream_refused"
            | "bad_request"
            | "bad_authority"
            | "draining"
            | "no_identity"
            | "caller_deadline"
            | "discovery_timeout"
            | "discovery_overloaded"
            | "unknown_destination"
            | "own_port"
            | "another_host"
            | "peer_sidecar"
            | "tunnel_refused"
            | "answered"
    )
}

/// The object and line that decided `code`.
fn origin_of<'a>(code: &str, origins: &'a Origins, cluster: &str) -> Option<&'a Origin> {
    let general = || origins.rule.as_ref().or(origins.owner.as_ref());
    match section_of(code) {
        _ if is_unconfigured(code) => None,
        Some((name, true)) => origins.section(name, cluster).or(match code {
            "endpoint_picked" | "no_healthy_upstream" => origins.owner.as_ref(),
            _ => None,
        }),
        Some((name, false)) => origins.sections.get(name).or_else(general),
        None if matches!(code, "plaintext_refused" | "wrong_protocol" | "no_route") => origins.owner.as_ref(),
        None => general(),
    }
}

/// The whole story.
pub fn tell(story: &Story) -> Value {
    let heard = &story.heard;
    let start = SystemTime::now().checked_sub(story.started.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
    json!({
        "sentence": sentence(story),
        "trace_id": story.trace.map(|trace| trace.to_string()),
        "request_id": some(&heard.request_id.text()),
        "start_time": crate::telemetry::rfc3339(start),
        "duration_ms": story.duration.as_secs_f64() * 1000.0,
        "direction": story.direction,
        "method": method(story),
        "authority": some(&heard.authority.text()),
        "path": some(&heard.path.text()),
        "destination": some(&story.destination),
        "downstream_remote_address": story.downstream,
        "peer": some(&story.peer),
        "response_code": story.status,
        "response_flags": if story.flag.is_empty() { "-" } else { story.flag },
        "reason": verdict(story),
        "detail": some(&story.detail),
        "attempts": story.attempts,
        "decisions": decisions(story),
    })
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn method(story: &Story) -> &str {
    match &story.heard.method {
        Some(method) => method.as_str(),
        None if story.is_tcp => "TCP",
        None => "HTTP",
    }
}

fn verdict(story: &Story) -> &'static str {
    if story.reason.is_empty() { ANSWERED } else { story.reason }
}

fn origins(story: &Story) -> Option<&Origins> {
    story.decisions.chosen.as_ref().map(|chosen| &*chosen.origins)
}

fn decisions(story: &Story) -> Vec<Value> {
    let mut all = Vec::new();
    all.extend(story.decisions.chosen.as_ref().map(|chosen| route(story, chosen)));
    if story.direction == "outbound" && (story.upstream.is_some() || story.decisions.other_host.is_some()) {
        all.push(endpoint(story));
    }
    all.extend(story.decisions.steps.iter().map(|happened| step(story, happened)));
    all.push(outcome(story));
    all
}

/// One decision. `alternative` is the runner-up, in words.
fn decision(what: &str, code: &str, sentence: String, origin: Option<&Origin>, runner_up: Value) -> Value {
    json!({
        "decision": what,
        "code": code,
        "sentence": sentence,
        "object": origin.map(|origin| &*origin.object),
        "field": origin.map(|origin| &*origin.field),
        "line": origin.and_then(Origin::place),
        "runner_up": runner_up,
        "page": reason_link(code),
    })
}

fn route(story: &Story, chosen: &Chosen) -> Value {
    let origins = &*chosen.origins;
    let (code, said) = match (story.direction, &origins.rule) {
        ("inbound", _) => (PORT_SERVED, format!("it is for {} of this workload", chosen.name)),
        (_, Some(rule)) => (ROUTE_MATCHED, format!("the first rule that matches is {rule}")),
        (_, None) if verdict(story) == "no_route" => ("no_route", format!("no rule of {} matches", story.destination)),
        (_, None) => (SERVICE_DEFAULT, format!("{} has no route: everything goes to it", story.destination)),
    };
    let next = story.decisions.next.as_ref().map(|next| {
        let origin = next.origins.rule.as_ref();
        let line = origin.and_then(Origin::place);
        json!({ "route": &*next.name, "object": origin.map(|origin| &*origin.object), "line": line })
    });
    let origin = origins.rule.as_ref().or(origins.owner.as_ref());
    decision("route", code, said, origin, next.unwrap_or_default())
}

fn endpoint(story: &Story) -> Value {
    let origin = origins(story).and_then(|origins| origin_of(ENDPOINT_PICKED, origins, &story.cluster));
    let host = story.upstream.map_or_else(|| "no host".to_owned(), |host| host.to_string());
    let said = match story.decisions.other_host {
        Some(other) => format!("the balancer of {} preferred {host} to {other}", story.cluster),
        None => format!("the balancer of {} picked {host}", story.cluster),
    };
    decision("endpoint", ENDPOINT_PICKED, said, origin, json!(story.decisions.other_host))
}

fn step(story: &Story, step: &Step) -> Value {
    let host = step.host.map_or_else(|| step.cluster.to_string(), |host| host.to_string());
    let (said, otherwise) = match step.code {
        "retried" => (
            format!("it was sent again after {host} failed ({})", step.cause),
            format!("without retries the caller had got {}", step.cause),
        ),
        "fell_back" => (
            format!("it went to another backend, since {} could not take it ({})", step.cluster, step.cause),
            format!("without a fallback the caller had got {}", step.cause),
        ),
        "passed_over" => {
            (format!("{host} was passed over ({})", step.cause), format!("without that it had gone to {host}"))
        }
        _ => (
            format!(
                "{host} could not be used ({}), and nothing of the request had reached it: another was asked",
                step.cause
            ),
            format!("{host}, had it been there"),
        ),
    };
    let code = if step.code == "passed_over" { step.cause } else { step.code };
    let origin = origins(story).and_then(|origins| origin_of(code, origins, &step.cluster));
    let mut told = decision(step.code, step.code, said, origin, otherwise.into());
    if let Some(fields) = told.as_object_mut() {
        fields.insert("cause".to_owned(), json!({ "code": step.cause, "page": reason_link(step.cause) }));
        fields.insert("after_ms".to_owned(), (step.after.as_secs_f64() * 1000.0).into());
    }
    told
}

fn outcome(story: &Story) -> Value {
    let code = verdict(story);
    let origin = origins(story).and_then(|origins| origin_of(code, origins, &story.cluster));
    let said = match origin {
        Some(origin) => format!("{}, by {origin}", ending(story)),
        None => ending(story),
    };
    decision("outcome", code, said, origin, otherwise(story, code).into())
}

/// What would have been without what decided it.
fn otherwise(story: &Story, code: &str) -> Option<String> {
    let there = match (story.upstream, story.cluster.is_empty()) {
        _ if story.direction == "inbound" => "the application".to_owned(),
        (Some(host), _) => format!("{host} of {}", story.cluster),
        (None, false) => format!("an endpoint of {}", story.cluster),
        (None, true) => format!("{}", story.destination),
    };
    Some(match code {
        "request_timeout" | "try_timeout" | "max_duration" | "stream_idle" => {
            format!("without the limit it had gone on waiting for {there}")
        }
        "rate_limited" | "over_limit" | "rate_limit_service" | "shed" | "plaintext_refused" | "overflow"
        | "pending_timeout" | "breaker_open" | "fault" | "direct_response" | "redirect" => {
            format!("without that it had gone to {there}")
        }
        "retries_exhausted"
        | "retry_budget_exhausted"
        | "retry_overflow"
        | "retry_no_time"
        | "retry_nested"
        | "retry_body_too_large" => "it had been sent again".to_owned(),
        _ => return None,
    })
}

fn ending(story: &Story) -> String {
    let who = match (story.direction, story.upstream) {
        ("inbound", _) => "the application".to_owned(),
        (_, Some(host)) => host.to_string(),
        (_, None) => "it".to_owned(),
    };
    match (story.reason, story.status) {
        ("", 0) => format!("it went through {who} to its end"),
        ("", status) => format!("{who} answered {status}"),
        (reason, 0) => format!("it ended: {reason}: {}", story.detail),
        (reason, status) => format!("the caller got {status} ({reason}): {}", story.detail),
    }
}

/// One sentence of all.
fn sentence(story: &Story) -> String {
    let heard = &story.heard;
    let mut text = format!("{} {} {}{}", story.direction, method(story), heard.authority.text(), heard.path.text());
    let origins = origins(story);
    let rule = origins.and_then(|origins| origins.rule.as_ref().or(origins.owner.as_ref()));
    if let Some(rule) = rule {
        text.push_str(&format!(" by {rule}"));
    }
    if !story.cluster.is_empty() && story.direction == "outbound" {
        text.push_str(&format!(" to {}", story.cluster));
    }
    if story.attempts > 1 {
        text.push_str(&format!(" in {} attempts", story.attempts));
    }
    text.push_str(&format!(": {} in {:.1} ms", ending(story), story.duration.as_secs_f64() * 1000.0));
    let code = verdict(story);
    if let Some(origin) = origins.and_then(|origins| origin_of(code, origins, &story.cluster)) {
        text.push_str(&format!("; what decided is {origin}"));
    }
    debug_assert!(page(code).is_some(), "{code} has a page");
    text
}
