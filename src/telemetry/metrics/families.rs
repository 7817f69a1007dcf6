//! What workers have counted, as families: each shows some of the labels, and is the sum over the others.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pillion_wire::exposition::{Family, Histogram, Kind, Labels, Point, Text, Value};

use super::count::{AttemptKey, BYTES, Part, RequestKey, Requests};
use super::table::{Bounded, Table, Tally};
use super::traffic::Tables;

/// All families of traffic.
pub(super) fn of(tables: &Tables) -> Vec<Family> {
    let mut all = http(tables);
    all.extend(grpc(tables));
    all.extend(tcp(tables));
    all.extend(steps(tables));
    all.extend(series(tables));
    all
}

/// One family.
pub(super) fn family(name: &'static str, help: &'static str, kind: Kind, points: Vec<Point>) -> Family {
    Family { name: Cow::Borrowed(name), help: Cow::Borrowed(help), kind, points }
}

/// Labels, those without a value too.
pub(super) fn labels<const N: usize>(pairs: [(&'static str, Text); N]) -> Labels {
    pairs.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect()
}

/// Labels, but those without a value: to Prometheus that is the same.
fn given<const N: usize>(pairs: [(&'static str, Text); N]) -> Labels {
    pairs.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (Cow::Borrowed(name), value)).collect()
}

/// The sum over all that have the same labels; without labels it is left out.
pub(super) fn sum<'a, K: 'a, V: 'a>(
    all: impl IntoIterator<Item = (&'a K, &'a V)>,
    labels: impl Fn(&K) -> Option<Labels>,
    value: impl Fn(&V) -> Value,
) -> Vec<Point> {
    let mut points: BTreeMap<Labels, Value> = BTreeMap::new();
    for (key, counted) in all {
        let Some(labels) = labels(key) else { continue };
        match (points.entry(labels), value(counted)) {
            (std::collections::btree_map::Entry::Vacant(place), value) => drop(place.insert(value)),
            (std::collections::btree_map::Entry::Occupied(mut total), more) => match (total.get_mut(), more) {
                (Value::Number(total), Value::Number(more)) => *total += more,
                (Value::Histogram(total), Value::Histogram(more)) => total.add(&more),
                _ => {} // A family is of one kind.
            },
        }
    }
    points.into_iter().map(|(labels, value)| Point { labels, value }).collect()
}

/// A count as a value.
#[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 are not seen")]
pub(super) fn number(count: u64) -> Value {
    Value::Number(count as f64)
}

fn histogram(histogram: Histogram) -> Value {
    Value::Histogram(histogram)
}

fn requests(tables: &Tables) -> impl Iterator<Item = (&RequestKey, &Requests)> {
    tables.requests.iter().filter(|(key, _)| !key.is_tcp)
}

fn http(tables: &Tables) -> Vec<Family> {
    let all = |key: &RequestKey| {
        Some(labels([
            ("direction", key.direction.into()),
            ("destination", (&key.destination).into()),
            ("cluster", (&key.cluster).into()),
            ("route", (&key.route).into()),
            ("peer", (&key.peer).into()),
            ("tls", key.tls.into()),
            ("status", key.status.to_string().into()),
            ("reason", key.reason.into()),
        ]))
    };
    let edge = |key: &RequestKey| {
        Some(labels([
            ("direction", key.direction.into()),
            ("destination", (&key.destination).into()),
            ("cluster", (&key.cluster).into()),
        ]))
    };
    let durations = |counted: &Requests| histogram(counted.durations());
    let mut families = vec![
        family(
            "pillion_requests",
            "HTTP requests that ended.",
            Kind::Counter,
            sum(requests(tables), all, |counted| number(counted.count)),
        ),
        family(
            "pillion_request_duration_seconds",
            "From the request head to the last byte of the response.",
            Kind::Histogram,
            sum(requests(tables), edge, durations),
        ),
    ];
    let sides: [(&str, [&'static str; 3]); 2] = [
        (
            "inbound",
            [
                "http_server_request_duration_seconds",
                "http_server_request_body_size_bytes",
                "http_server_response_body_size_bytes",
            ],
        ),
        (
            "outbound",
            [
                "http_client_request_duration_seconds",
                "http_client_request_body_size_bytes",
                "http_client_response_body_size_bytes",
            ],
        ),
    ];
    for (direction, [duration, received, sent]) in sides {
        let of = || requests(tables).filter(|(key, _)| key.direction == direction);
        let convention = |key: &RequestKey| Some(convention(key));
        families.push(family(
            duration,
            "Duration of HTTP requests to (server) and of (client) our application (OpenTelemetry: http.*.request.duration).",
            Kind::Histogram,
            sum(of(), convention, durations),
        ));
        families.push(family(
            received,
            "Content of requests (OpenTelemetry: http.*.request.body.size).",
            Kind::Histogram,
            sum(of(), convention, |counted| histogram(counted.received.histogram(&BYTES))),
        ));
        families.push(family(
            sent,
            "Content of responses, as far as it was sent (OpenTelemetry: http.*.response.body.size).",
            Kind::Histogram,
            sum(of(), convention, |counted| histogram(counted.sent.histogram(&BYTES))),
        ));
    }
    families
}

/// Attributes of OpenTelemetry's semantic conventions for HTTP, as Prometheus writes them.
fn convention(key: &RequestKey) -> Labels {
    let protocol = key.protocol.strip_prefix("HTTP/").unwrap_or_default();
    let status = if key.status == 0 { String::new() } else { key.status.to_string() };
    let error: Text = match (key.reason, key.status) {
        ("", 500..) => key.status.to_string().into(),
        (reason, _) => reason.into(),
    };
    given([
        ("http_request_method", key.method.into()),
        ("http_response_status_code", status.into()),
        ("http_route", (&key.route).into()),
        ("error_type", error),
        ("network_protocol_version", protocol.into()),
        ("server_address", (&key.destination).into()),
    ])
}

fn grpc(tables: &Tables) -> Vec<Family> {
    let calls = || requests(tables).filter(|(key, _)| key.grpc_status.is_some());
    let status = |key: &RequestKey| {
        let status = key.grpc_status.filter(|status| *status != u8::MAX);
        Some(labels([
            ("direction", key.direction.into()),
            ("destination", (&key.destination).into()),
            ("cluster", (&key.cluster).into()),
            ("route", (&key.route).into()),
            ("grpc_status", status.map_or_else(|| Text::from("none"), |status| status.to_string().into())),
        ]))
    };
    let mut messages = Vec::new();
    for flow in ["request", "response"] {
        let each = |key: &RequestKey| {
            Some(labels([
                ("direction", key.direction.into()),
                ("destination", (&key.destination).into()),
                ("cluster", (&key.cluster).into()),
                ("flow", flow.into()),
            ]))
        };
        messages.extend(sum(calls(), each, |counted| {
            number(if flow == "request" { counted.request_messages } else { counted.response_messages })
        }));
    }
    vec![
        family(
            "pillion_grpc_requests",
            "gRPC calls that ended, by their status; none: it did not come.",
            Kind::Counter,
            sum(calls(), status, |counted| number(counted.count)),
        ),
        family("pillion_grpc_messages", "Messages of gRPC calls that ended.", Kind::Counter, messages),
    ]
}

fn tcp(tables: &Tables) -> Vec<Family> {
    let all = || tables.requests.iter().filter(|(key, _)| key.is_tcp);
    let ended = |key: &RequestKey| {
        Some(labels([
            ("direction", key.direction.into()),
            ("destination", (&key.destination).into()),
            ("cluster", (&key.cluster).into()),
            ("peer", (&key.peer).into()),
            ("tls", key.tls.into()),
            ("result", if key.reason.is_empty() { "ok" } else { key.reason }.into()),
        ]))
    };
    let edge = |key: &RequestKey| {
        Some(labels([("direction", key.direction.into()), ("destination", (&key.destination).into())]))
    };
    let mut bytes = Vec::new();
    for flow in ["received", "sent"] {
        let each = |key: &RequestKey| {
            let mut labels = edge(key)?;
            labels.push((Cow::Borrowed("flow"), flow.into()));
            Some(labels)
        };
        bytes.extend(sum(all(), each, |counted| {
            Value::Number(if flow == "received" { counted.received.sum } else { counted.sent.sum })
        }));
    }
    let is_ended = || all().filter(|(_, counted)| counted.count > 0);
    vec![
        family(
            "pillion_tcp_connections",
            "TCP connections and tunnels that ended.",
            Kind::Counter,
            sum(is_ended(), ended, |counted| number(counted.count)),
        ),
        family(
            "pillion_tcp_connections_opened",
            "TCP connections and tunnels of which both ends opened.",
            Kind::Counter,
            sum(all(), edge, |counted| number(counted.opened)),
        ),
        family(
            "pillion_tcp_connection_duration_seconds",
            "How long TCP connections and tunnels lasted.",
            Kind::Histogram,
            sum(is_ended(), edge, |counted| histogram(counted.durations())),
        ),
        family("pillion_tcp_bytes", "Bytes of TCP connections and tunnels that ended.", Kind::Counter, bytes),
    ]
}

fn steps(tables: &Tables) -> Vec<Family> {
    let mut parts = Vec::new();
    for part in Part::ALL {
        parts.extend(tables.steps.iter().filter_map(|(key, steps)| {
            let labels = given([
                ("direction", key.direction.into()),
                ("route", (&key.route).into()),
                ("part", part.name().into()),
            ]);
            Some(Point { labels, value: histogram(steps.times(part)?) })
        }));
    }
    let attempt = |key: &AttemptKey| {
        Some(labels([
            ("direction", key.direction.into()),
            ("cluster", (&key.cluster).into()),
            ("result", key.result.into()),
        ]))
    };
    vec![
        family(
            "pillion_overhead_seconds",
            "Where the time of a request goes, up to the head of its response; upstream_wait is not ours.",
            Kind::Histogram,
            parts,
        ),
        family(
            "pillion_upstream_attempt_duration_seconds",
            "From sending a request to a host to the head of its response, each try by itself.",
            Kind::Histogram,
            sum(tables.attempts.iter(), attempt, |counted| histogram(counted.times())),
        ),
    ]
}

fn series(tables: &Tables) -> Vec<Family> {
    fn of<K: Bounded + Eq + std::hash::Hash, V: Tally>(table: &Table<K, V>) -> [u64; 3] {
        [table.len() as u64, table.overflowed, table.expired]
    }
    let all = [("requests", of(&tables.requests)), ("overhead", of(&tables.steps)), ("attempts", of(&tables.attempts))];
    let points = |which: fn([u64; 3]) -> u64| {
        all.iter()
            .map(|(name, counts)| Point { labels: labels([("table", (*name).into())]), value: number(which(*counts)) })
            .collect::<Vec<_>>()
    };
    vec![
        family(
            "pillion_metrics_label_sets",
            "Label sets that are kept, of --metrics-max-series.",
            Kind::Gauge,
            points(|[kept, _, _]| kept),
        ),
        family(
            "pillion_metrics_overflows",
            "Times that something was counted under the labels called other, since there was no room for its own.",
            Kind::Counter,
            points(|[_, overflowed, _]| overflowed),
        ),
        family(
            "pillion_metrics_expired",
            "Label sets that were forgotten, since nothing was counted under them for --metrics-idle.",
            Kind::Counter,
            points(|[_, _, expired]| expired),
        ),
    ]
}
