//! What can be read: the same pages for whoever is on this machine and for the control plane. None changes anything.

use http::StatusCode;
use pillion_wire::exposition::{Format, render};
use pillion_wire::query::pairs;
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::{Admin, certs, dump, explain, memory, state};

/// Compiled patterns are at most this large.
const REGEX_BYTES: usize = 256 << 10;

pub(super) const HELP: &str = "\
GET  /ready        200 when ready, 503 with what is missing
GET  /state        what `pillion ps` shows, as JSON
GET  /metrics      Prometheus text, or OpenMetrics for those who accept it
GET  /config_dump  configuration in force, as JSON; ?resource=outbound: that part; ?name_regex=: what is called so
GET  /clusters     hosts with their live counters, as JSON; ?format=json is all there is
GET  /explain      why recent requests went as they went, failures first, as JSON;
                   ?trace=ID, ?request=ID (x-request-id), ?reason=CODE, &limit=N [20]
GET  /certs        certificate chain and roots, with their expiry
GET  /memory       what we take, and what takes it
GET  /drain        is it stopping, and what is left
POST /drain        stop gracefully
GET  /logging      what is logged
POST /logging      ?level=debug or ?FILTER, such as ?info,pillion_proxy::discovery=debug; &for=10m: then back
GET  /help         this
gRPC envoy.service.status.v3.ClientStatusDiscoveryService (HTTP/2 in the clear)
";

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Page {
    pub(super) fn text(status: StatusCode, body: String) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body }
    }

    pub(super) fn json(value: &Value) -> Self {
        Self { status: StatusCode::OK, content_type: "application/json", body: format!("{value:#}\n") }
    }

    fn bad(body: &str) -> Self {
        Self::text(StatusCode::BAD_REQUEST, format!("{body}\n"))
    }
}

impl Admin {
    /// The page at `path`. `None`: there is none.
    pub(crate) fn page(&self, path: &str, query: &str) -> Option<Page> {
        Some(match path {
            "/" | "/help" => Page::text(StatusCode::OK, HELP.to_owned()),
            "/ready" | "/healthz/ready" => self.ready(),
            "/state" => match serde_json::to_value(state::state(self)) {
                Ok(value) => Page::json(&value),
                Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            "/metrics" => self.metrics(Format::accepted(None)),
            "/config_dump" => match picked(dump::config(&self.shared), query) {
                Ok(value) => Page::json(&value),
                Err(problem) => Page::bad(&problem),
            },
            "/clusters" => match pairs(query).iter().find(|(name, value)| name == "format" && value != "json") {
                Some(_) => Page::bad("format: only json"),
                None => Page::json(&dump::clusters(&self.shared)),
            },
            "/explain" => match explain::answer(&self.shared.telemetry.stories, query) {
                Ok(told) => Page::json(&told),
                Err((status, problem)) => Page::text(status, problem),
            },
            "/certs" => Page::json(&certs::certs(self)),
            "/memory" => Page::json(&memory::memory(self)),
            "/logging" => Page::json(&self.logging.show()),
            "/drain" => Page::json(&serde_json::json!({
                "draining": self.shared.drain.is_stopping(),
                "connections": self.shared.drain.tasks(),
                "deadline_seconds": self.shared.settings.timeouts.drain.as_secs_f64(),
            })),
            _ => return None,
        })
    }

    pub(super) fn metrics(&self, format: Format) -> Page {
        let body = render(&super::metrics(&self.shared), format);
        Page { status: StatusCode::OK, content_type: format.content_type(), body }
    }

    pub(super) fn ready(&self) -> Page {
        match self.readiness.check() {
            Ok(detail) => Page::text(StatusCode::OK, format!("ready{detail}\n")),
            Err(missing) => Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {missing}\n")),
        }
    }
}

/// The part of a dump that a query asks for (Envoy: `resource`, `name_regex`).
fn picked(mut dump: Value, query: &str) -> Result<Value, String> {
    for (name, value) in pairs(query) {
        match (name.as_str(), &mut dump) {
            ("resource", Value::Object(parts)) => {
                let Some(part) = parts.remove(&value) else {
                    let known: Vec<&str> = parts.keys().map(String::as_str).collect();
                    return Err(format!("resource `{value}`: one of {}", known.join(", ")));
                };
                *parts = serde_json::Map::from_iter([(value, part)]);
            }
            ("name_regex", Value::Object(parts)) => {
                let regex = RegexBuilder::new(&value).size_limit(REGEX_BYTES).build();
                let regex = regex.map_err(|error| format!("name_regex: {error}"))?;
                parts.values_mut().for_each(|part| keep_named(part, &regex));
            }
            _ => return Err(format!("`{name}`: there are resource and name_regex")),
        }
    }
    Ok(dump)
}

/// Entries of a map by their keys, ports by their number.
fn keep_named(part: &mut Value, regex: &Regex) {
    match part {
        // The identity is one thing.
        Value::Object(fields) if fields.contains_key("not_after") => {}
        Value::Object(fields) => fields.retain(|name, _| regex.is_match(name)),
        Value::Array(ports) => ports.retain(|port| regex.is_match(&port["port"].to_string())),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dump_is_cut_to_what_is_asked_for() {
        let dump = || {
            json!({
                "identity": { "id": "a", "not_after": 1 },
                "inbound": [{ "port": 80 }, { "port": 81 }],
                "outbound": { "a:1": {}, "b:1": {} },
            })
        };
        assert_eq!(picked(dump(), "").unwrap(), dump());
        assert_eq!(picked(dump(), "resource=outbound&name_regex=^a").unwrap(), json!({ "outbound": { "a:1": {} } }));
        assert_eq!(picked(dump(), "name_regex=81").unwrap()["inbound"], json!([{ "port": 81 }]));
        for query in ["resource=nothing", "name_regex=(", "other=1"] {
            assert!(picked(dump(), query).is_err(), "{query}");
        }
    }
}
