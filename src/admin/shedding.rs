//! How much our own ports can do at once, and what they refused: for `/config_dump`, `/clusters` and `/metrics`.

use pillion_wire::load_shedding::{Criticality, LoadShedding, Percent};
use serde_json::{Map, Value, json};

use crate::resilience::shedding::{Shedder, Why};
use crate::snapshot::Inbound;
use crate::telemetry::Metrics;

/// What was told.
pub(super) fn settings(settings: &LoadShedding) -> Value {
    let (gradient, min_rtt) = (&settings.gradient, &settings.gradient.min_rtt);
    let percent = |percent: Percent| percent.to_double();
    json!({
        "sample_aggregate_percentile": percent(gradient.percentile),
        "concurrency_update_interval_seconds": gradient.update_interval.as_secs_f64(),
        "max_concurrency_limit": gradient.most,
        "min_concurrency_limit": gradient.floor(),
        "min_rtt": {
            "fixed_value_seconds": min_rtt.fixed.map(|fixed| fixed.as_secs_f64()),
            "interval_seconds": min_rtt.interval.as_secs_f64(),
            "request_count": min_rtt.requests,
            "jitter": percent(min_rtt.jitter),
            "min_concurrency": min_rtt.concurrency,
            "buffer": percent(min_rtt.buffer),
        },
        "criticality": settings.criticality,
    })
}

/// Ports that shed load, by what they are called.
pub(super) fn ports(inbound: &Option<Inbound>) -> Vec<(String, Value)> {
    let ports = inbound.iter().flat_map(|inbound| inbound.ports.values());
    ports.filter_map(|port| Some((port.label().to_string(), stand(port.shedder.as_deref()?)))).collect()
}

/// Tells the metrics.
pub(super) fn gauge(inbound: &Option<Inbound>, metrics: &Metrics) {
    for port in inbound.iter().flat_map(|inbound| inbound.ports.values()) {
        if let Some(shedder) = &port.shedder {
            let report = shedder.report();
            metrics.adaptive(port.label(), report.limit, report.in_flight);
        }
    }
}

fn stand(shedder: &Shedder) -> Value {
    let report = shedder.report();
    let reasons = |counts: [u64; Why::ALL.len()]| -> Map<String, Value> {
        Why::ALL.into_iter().zip(counts).map(|(why, count)| (why.name().to_owned(), json!(count))).collect()
    };
    let shed: Map<String, Value> = Criticality::ALL
        .into_iter()
        .zip(shedder.shed())
        .map(|(criticality, counts)| (criticality.name().to_owned(), reasons(counts).into()))
        .collect();
    json!({
        "load_shedding": {
            "limit": report.limit,
            "in_flight": report.in_flight,
            "held_back": report.held,
            "min_rtt_ms": report.min_rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
            "sample_rtt_ms": report.sample_rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
            "measuring_min_rtt": report.is_measuring,
            "callers": report.callers,
            "shed": shed,
        }
    })
}
