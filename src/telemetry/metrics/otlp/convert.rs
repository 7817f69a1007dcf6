//! Families as OTLP (opentelemetry.proto.metrics.v1), with units as OpenTelemetry writes them.

use std::time::SystemTime;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, exemplar, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use pillion_wire::exposition::{Family, Kind, Labels, Point, Value};

/// Whoever sends, in the words of the protocol.
pub(super) fn resource(us: &opentelemetry_sdk::Resource) -> Resource {
    let attributes = us.iter().map(|(name, value)| attribute(name.as_str(), &value.as_str())).collect();
    Resource { attributes, ..Resource::default() }
}

/// One request.
pub(super) fn request(resource: Resource, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let scope = InstrumentationScope { name: "pillion".to_owned(), ..InstrumentationScope::default() };
    let scope = ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() };
    let resource = ResourceMetrics { resource: Some(resource), scope_metrics: vec![scope], schema_url: String::new() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }
}

/// All that was counted from `started` until `now`, in parts of at most `most` points, with how many each has.
pub(super) fn metrics(
    families: Vec<Family>,
    started: SystemTime,
    now: SystemTime,
    most: usize,
) -> Vec<(Vec<Metric>, u64)> {
    let (started, now) = (nanoseconds(started), nanoseconds(now));
    let mut parts = vec![(Vec::new(), 0)];
    let mut room = most;
    for family in families.into_iter().filter(|family| !family.points.is_empty()) {
        let mut points = family.points.as_slice();
        while !points.is_empty() {
            if room == 0 {
                parts.push((Vec::new(), 0));
                room = most;
            }
            let (taken, rest) = points.split_at(points.len().min(room));
            room -= taken.len();
            points = rest;
            if let Some((part, count)) = parts.last_mut() {
                *count += taken.len() as u64;
                part.push(metric(&family, taken, started, now));
            }
        }
    }
    parts
}

fn metric(family: &Family, points: &[Point], started: u64, now: u64) -> Metric {
    let temporality = AggregationTemporality::Cumulative.into();
    let data = match family.kind {
        Kind::Histogram => {
            let points = points.iter().filter_map(|point| histogram(point, started, now));
            Data::Histogram(Histogram { data_points: points.collect(), aggregation_temporality: temporality })
        }
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers(points, 0, now) }),
        Kind::Counter => Data::Sum(Sum {
            data_points: numbers(points, started, now),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
    };
    let unit = [("_seconds", "s"), ("_bytes", "By"), ("_milliseconds", "ms")];
    let unit = unit.into_iter().find(|(suffix, _)| family.name.ends_with(suffix)).map(|(_, unit)| unit);
    Metric {
        name: family.name.to_string(),
        description: family.help.to_string(),
        unit: unit.unwrap_or_default().to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn numbers(points: &[Point], started: u64, now: u64) -> Vec<NumberDataPoint> {
    let each = |point: &Point| {
        let Value::Number(number) = &point.value else { return None };
        Some(NumberDataPoint {
            attributes: attributes(&point.labels),
            start_time_unix_nano: started,
            time_unix_nano: now,
            value: Some(number_data_point::Value::AsDouble(*number)),
            ..NumberDataPoint::default()
        })
    };
    points.iter().filter_map(each).collect()
}

fn histogram(point: &Point, started: u64, now: u64) -> Option<HistogramDataPoint> {
    let Value::Histogram(histogram) = &point.value else { return None };
    let exemplars = histogram.exemplars.iter().flatten().map(|example| Exemplar {
        time_unix_nano: nanoseconds(example.at),
        trace_id: example.trace_id.to_vec(),
        value: Some(exemplar::Value::AsDouble(example.value)),
        ..Exemplar::default()
    });
    Some(HistogramDataPoint {
        attributes: attributes(&point.labels),
        start_time_unix_nano: started,
        time_unix_nano: now,
        count: histogram.count(),
        sum: Some(histogram.sum),
        bucket_counts: histogram.counts.clone(),
        explicit_bounds: histogram.bounds.to_vec(),
        exemplars: exemplars.collect(),
        ..HistogramDataPoint::default()
    })
}

fn attributes(labels: &Labels) -> Vec<KeyValue> {
    labels.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| attribute(name, value)).collect()
}

fn attribute(name: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Any::StringValue(value.to_owned())) };
    KeyValue { key: name.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_holds_only_so_many_points() {
        let point = |number| Point { labels: Labels::new(), value: Value::Number(f64::from(number)) };
        let family = |name: &'static str, count| Family {
            name: name.into(),
            help: "".into(),
            kind: Kind::Counter,
            points: (0..count).map(point).collect(),
        };
        let now = SystemTime::now();
        let parts = metrics(vec![family("a_seconds", 3), family("b", 5)], now, now, 4);
        assert_eq!(parts.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [4, 4]);
        let shown: Vec<Vec<(String, usize)>> = parts
            .into_iter()
            .map(|(part, _)| {
                let count = |metric: &Metric| match &metric.data {
                    Some(Data::Sum(sum)) => sum.data_points.len(),
                    _ => 0,
                };
                part.iter().map(|metric| (format!("{} {}", metric.name, metric.unit), count(metric))).collect()
            })
            .collect();
        assert_eq!(shown, [vec![("a_seconds s".to_owned(), 3), ("b ".to_owned(), 1)], vec![("b ".to_owned(), 4)]]);
    }
}
