use super::*;
use crate::bootstrap;
use crate::telemetry::{AccessLog, Metrics, Recorder, Telemetry};

fn recorder() -> Arc<Recorder> {
    let metrics = Arc::new(Metrics::new());
    let access_log = AccessLog::start(bootstrap::AccessLog::Off, metrics.access_log_dropped());
    let us = Us { namespace: "shop".into(), workload: "orders-1".into(), service_account: "orders".into() };
    Arc::new(Recorder::new(Telemetry { taps: Arc::new(Taps::new(us)), ..Telemetry::new(metrics, access_log) }))
}

fn request(recorder: &Arc<Recorder>, direction: &'static str, path: &str, status: u16) {
    let mut record = Record::begin(recorder, direction, ([127, 0, 0, 1], 1).into());
    record.path = path.to_owned();
    record.authority = "user:secret@payment.shop".to_owned();
    record.method = "GET".to_owned();
    record.destination = Arc::from("payment.shop:80");
    record.peer = Arc::from("spiffe://cluster.local/ns/shop/sa/payment");
    record.status = status;
    if recorder.telemetry.taps.wants_fields() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", http::HeaderValue::from_static("7"));
        headers.insert("authorization", http::HeaderValue::from_static("Bearer secret"));
        record.request_headers = Some(recorder.telemetry.taps.fields(&headers));
    }
}

fn parsed(conditions: &[(&str, &str)]) -> TapRequest {
    TapRequest::parse(conditions.iter().copied()).unwrap()
}

#[tokio::test]
async fn a_tap_sees_what_matches_and_nothing_else() {
    let recorder = recorder();
    for (conditions, seen) in [
        (vec![], vec!["/a", "/b/c", "/a"]),
        (vec![("status", "5xx")], vec!["/b/c"]),
        (vec![("path", "/b")], vec!["/b/c"]),
        (vec![("to", "payment"), ("from", "orders")], vec!["/a", "/b/c"]),
        (vec![("from", "payment.shop")], vec!["/a"]),
        (vec![("to", "orders-1")], vec!["/a"]),
        (vec![("direction", "inbound")], vec!["/a"]),
        (vec![("slower", "1m")], vec![]),
        (vec![("method", "post")], vec![]),
        (vec![("reason", "*")], vec![]),
    ] {
        let mut reader = recorder.telemetry.taps.open(&parsed(&conditions)).unwrap();
        request(&recorder, "outbound", "/a", 200);
        request(&recorder, "outbound", "/b/c", 503);
        request(&recorder, "inbound", "/a", 200);
        Record::begin(&recorder, "outbound", ([127, 0, 0, 1], 1).into()).forget();
        let mut events = Vec::new();
        if !seen.is_empty() {
            reader.read(&mut events, 100).await;
        }
        let paths: Vec<&str> = events.iter().map(|event| event.path.as_str()).collect();
        assert_eq!(paths, seen, "{conditions:?}");
        assert!(events.iter().all(|event| event.authority == "payment.shop"), "{events:?}");
    }
    assert!(!recorder.telemetry.taps.any());
}

#[tokio::test]
async fn values_of_fields_come_only_to_whom_asked_for_them() {
    let recorder = recorder();
    let mut all = ["x-request-id", ""].map(|name| {
        let conditions = if name.is_empty() { vec![("headers", "")] } else { vec![("header", name)] };
        recorder.telemetry.taps.open(&parsed(&conditions)).unwrap()
    });
    request(&recorder, "outbound", "/", 200);
    let mut seen = Vec::new();
    for reader in &mut all {
        reader.read(&mut seen, 1).await;
    }
    let shown = |at: usize| -> Vec<(String, Option<String>)> {
        seen[at].request_headers.iter().map(|field| (field.name.clone(), field.value.clone())).collect()
    };
    let (id, secret) = ("x-request-id".to_owned(), ("authorization".to_owned(), None));
    assert_eq!(shown(0), [(id.clone(), Some("7".to_owned())), secret.clone()]);
    assert_eq!(shown(1), [(id, None), secret]);
}

#[tokio::test]
async fn a_reader_that_stalls_loses_events_and_is_told() {
    let recorder = recorder();
    let mut reader = recorder.telemetry.taps.open(&TapRequest::default()).unwrap();
    for _ in 0..QUEUE + 10 {
        request(&recorder, "outbound", "/", 200);
    }
    assert_eq!((reader.take_lost(), reader.take_lost()), (10, 0));
    let mut events = Vec::new();
    reader.read(&mut events, QUEUE * 2).await;
    assert_eq!(events.len(), QUEUE);
}

#[tokio::test]
async fn content_without_a_length_and_the_trace_are_told() {
    let us = Us { namespace: "shop".into(), workload: "orders-1".into(), service_account: "orders".into() };
    let metrics = Arc::new(Metrics::new());
    let access_log = AccessLog::start(bootstrap::AccessLog::Off, metrics.access_log_dropped());
    let counts = metrics.spans();
    let share = crate::telemetry::trace::Share::new(0.0);
    let sampling = crate::telemetry::trace::Sampling { share, slow: None, errors: false };
    let tracer = crate::telemetry::trace::Tracer::new(sampling, false, None, counts);
    let telemetry = Telemetry {
        taps: Arc::new(Taps::new(us)),
        tracer: Some(Arc::new(tracer)),
        ..Telemetry::new(metrics, access_log)
    };
    let recorder = Arc::new(Recorder::new(telemetry));
    let mut reader = recorder.telemetry.taps.open(&TapRequest::default()).unwrap();
    let mut record = Record::begin(&recorder, "outbound", ([127, 0, 0, 1], 1).into());
    let mut headers = HeaderMap::new();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    headers.insert("traceparent", http::HeaderValue::from_static(parent));
    record.begin_trace(&headers);
    record.flow.insert(crate::telemetry::Flow::default()).add(12, 0);
    drop(record);
    let mut seen = Vec::new();
    reader.read(&mut seen, 1).await;
    assert_eq!((seen[0].bytes_received, seen[0].trace_id.as_str()), (12, "4bf92f3577b34da6a3ce929d0e0e4736"));
}

#[tokio::test]
async fn taps_are_bounded_in_number() {
    let taps = Arc::new(Taps::default());
    let open: Vec<Reader> = (0..MOST_TAPS).map(|_| taps.open(&TapRequest::default()).unwrap()).collect();
    assert!(taps.open(&TapRequest::default()).is_err());
    drop(open);
    assert!(taps.open(&TapRequest::default()).is_ok());
}
