use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry::{InstrumentationScope, SpanId, TraceId};
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio::time::Instant;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::context::{B3Form, Context};
use super::receive::Received;
use super::story::{Attempt, Finished, Story};
use super::*;
use crate::bootstrap;
use crate::telemetry::{AccessLog, Metrics, Record, Recorder, Telemetry};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

pub(super) fn finished(trace: u128, span: u64) -> Box<Finished> {
    let context = Context {
        trace_id: TraceId::from(trace),
        span_id: SpanId::from(span),
        parent: SpanId::from(99),
        sampled: false,
        random: true,
        b3: B3Form::None,
        is_ours: true,
    };
    let nothing: Arc<str> = Arc::from("");
    Box::new(Finished {
        context,
        story: Box::default(),
        started: Instant::now(),
        took: Duration::from_millis(5),
        ended: SystemTime::now(),
        is_inbound: false,
        is_tcp: false,
        is_grpc: false,
        method: "GET".to_owned(),
        authority: "orders.shop:80".to_owned(),
        path: "/a".to_owned(),
        protocol: "HTTP/1.1",
        destination: Arc::from("orders.shop:80"),
        route: Arc::clone(&nothing),
        cluster: Arc::clone(&nothing),
        peer: nothing,
        tls: "none",
        upstream: None,
        downstream: ([127, 0, 0, 1], 1).into(),
        status: 200,
        grpc_status: None,
        reason: "",
        flag: "",
        detail: String::new(),
        tries: 1,
        bytes_sent: 0,
        bytes_received: 0,
        queue: None,
    })
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map_or_else(String::new, |value| value.to_str().expect("text").to_owned())
}

fn tracer(share: f64, is_exported: bool, starts: bool) -> (Tracer, mpsc::Receiver<Box<Finished>>) {
    let (queue, received) = mpsc::channel(8);
    let sampling = Sampling { share: Share::new(share), slow: None, errors: true };
    (Tracer::new(sampling, starts, is_exported.then_some(queue), SpanCounts::default()), received)
}

fn tracer_of(is_exported: bool) -> Tracer {
    tracer(1.0, is_exported, true).0
}

/// What goes on of these fields, with our hop's span as `b"a.."`.
fn passed(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = headers(fields);
    let (context, unwanted) = tracer(1.0, true, true).0.begin(&headers);
    unwanted.remove(&mut headers);
    let context = context.expect("always one");
    Onward { context, span_id: SpanId::from(0xaaaa_aaaa_aaaa_aaaa) }.write(&mut headers);
    headers
}

#[test]
fn a_traceparent_is_read_as_w3c_says() {
    let valid = format!("00-{TRACE}-{SPAN}-01");
    for (value, expected) in [
        (valid.as_str(), Some(true)),
        (&format!("00-{TRACE}-{SPAN}-00"), Some(false)),
        (&format!("00-{TRACE}-{SPAN}-03"), Some(true)),
        (&format!("cc-{TRACE}-{SPAN}-01"), Some(true)),
        (&format!("cc-{TRACE}-{SPAN}-01-more"), Some(true)),
        (&format!("cc-{TRACE}-{SPAN}-01.more"), None),
        (&format!("ff-{TRACE}-{SPAN}-01"), None),
        (&format!("00-{TRACE}-{SPAN}-01-more"), None),
        (&format!("00-{TRACE}-{SPAN}-0"), None),
        (&format!("00-{TRACE}-{SPAN}-0x"), None),
        (&format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
        (&format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
        (&format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
        (&format!("00_{TRACE}-{SPAN}-01"), None),
        (&format!("00-{TRACE}_{SPAN}-01"), None),
        ("", None),
    ] {
        let received = Received::read(&headers(&[("traceparent", value), ("tracestate", "a=b")]));
        assert_eq!(received.ids.and(received.sampled), expected, "{value}");
        let is_replaced = received.unwanted.has(Unwanted::TRACEPARENT);
        assert_eq!(is_replaced, expected.is_none(), "{value}");
        assert_eq!(received.unwanted.has(Unwanted::TRACESTATE), is_replaced, "it means nothing alone: {value}");
    }
    let twice = Received::read(&headers(&[("traceparent", &valid), ("traceparent", &valid)]));
    assert_eq!((twice.ids, twice.unwanted.has(Unwanted::TRACEPARENT)), (None, true));
}

#[test]
fn what_goes_on_names_our_span_in_each_form_that_came() {
    let w3c = passed(&[("traceparent", &format!("00-{TRACE}-{SPAN}-01")), ("tracestate", "a=b"), ("baggage", "k=v")]);
    assert_eq!(text(&w3c, "traceparent"), format!("00-{TRACE}-aaaaaaaaaaaaaaaa-01"));
    assert_eq!((text(&w3c, "tracestate"), text(&w3c, "baggage")), ("a=b".to_owned(), "k=v".to_owned()));
    assert!(!w3c.contains_key("b3") && !w3c.contains_key("x-b3-traceid"));
    let single = passed(&[("b3", &format!("{TRACE}-{SPAN}-0"))]);
    assert_eq!(text(&single, "b3"), format!("{TRACE}-aaaaaaaaaaaaaaaa-0-{SPAN}"));
    assert_eq!(text(&single, "traceparent"), format!("00-{TRACE}-aaaaaaaaaaaaaaaa-00"));
    let short = passed(&[("b3", &format!("8448eb211c80319c-{SPAN}-d-{SPAN}"))]);
    assert_eq!(text(&short, "b3"), format!("8448eb211c80319c-aaaaaaaaaaaaaaaa-d-{SPAN}"));
    assert_eq!(text(&short, "traceparent"), "00-00000000000000008448eb211c80319c-aaaaaaaaaaaaaaaa-01");
    let multi = passed(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")]);
    assert_eq!(
        ["x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled"].map(|name| text(&multi, name)),
        [TRACE, "aaaaaaaaaaaaaaaa", SPAN, "1"].map(str::to_owned)
    );
    let denied = passed(&[("b3", "0")]);
    assert!(text(&denied, "traceparent").ends_with("-aaaaaaaaaaaaaaaa-02"), "{denied:?}");
    assert!(text(&denied, "b3").ends_with("-aaaaaaaaaaaaaaaa-0"), "{denied:?}");
    let both = passed(&[("traceparent", &format!("00-{TRACE}-{SPAN}-01")), ("x-b3-traceid", "nonsense")]);
    assert!(!both.contains_key("x-b3-traceid"), "{both:?}");
}

#[test]
fn what_is_malformed_does_not_go_on() {
    let large = format!("k={}", "v".repeat(8190));
    let members = (0..33).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
    let parent = format!("00-{TRACE}-{SPAN}-01");
    for (name, value, goes_on) in [
        ("baggage", "a=1,b = 2;p;q=3, c=%20", true),
        ("baggage", large.get(..8192).expect("long"), true),
        ("baggage", &large, large.len() <= 8192),
        ("baggage", &format!("{large}v"), false),
        ("baggage", "a", false),
        ("baggage", "a=b\"c", false),
        ("baggage", "=v", false),
        ("tracestate", "a=1, b@c=2,,", true),
        ("tracestate", "A=1", false),
        ("tracestate", "a", false),
        ("tracestate", &members, false),
        ("b3", "nonsense", false),
        ("b3", &format!("{TRACE}-{SPAN}-1-{SPAN}-more"), false),
        ("x-b3-sampled", "maybe", false),
    ] {
        let after = passed(&[("traceparent", &parent), (name, value)]);
        assert_eq!(after.contains_key(name), goes_on, "{name}: {value}");
        assert_eq!(text(&after, "traceparent"), format!("00-{TRACE}-aaaaaaaaaaaaaaaa-01"));
    }
}

#[test]
fn without_a_collector_nothing_is_changed_but_what_is_malformed() {
    let (tracer, _) = tracer(1.0, false, false);
    assert_eq!(tracer.begin(&HeaderMap::new()), (None, Unwanted::default()));
    let (context, _) = tracer.begin(&headers(&[("traceparent", &format!("00-{TRACE}-{SPAN}-00"))]));
    let context = context.expect("it came with one");
    assert!(!context.is_ours && context.span_id == context.parent);
    let (context, unwanted) = tracer.begin(&headers(&[("traceparent", "nonsense")]));
    assert!(context.is_none() && unwanted.has(Unwanted::TRACEPARENT));
}

#[test]
fn every_hop_chooses_the_same_share() {
    let chosen = |share: f64| {
        let ids = (0..10_000u128).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let share = Share::new(share);
        ids.filter(|id| share.includes(TraceId::from(*id))).collect::<Vec<_>>()
    };
    assert_eq!((chosen(0.0).len(), chosen(1.0).len()), (0, 10_000));
    let (some, more) = (chosen(0.01), chosen(0.1));
    assert!((50..200).contains(&some.len()) && (800..1200).contains(&more.len()), "{} {}", some.len(), more.len());
    assert!(some.iter().all(|id| more.contains(id)));
    let (tracer, _) = tracer(0.0, true, true);
    let (context, _) = tracer.begin(&headers(&[("traceparent", &format!("00-{TRACE}-{SPAN}-01"))]));
    assert!(context.is_some_and(|context| context.sampled), "its parent is");
    assert!(tracer.begin(&HeaderMap::new()).0.is_some_and(|context| !context.sampled));
}

#[test]
fn a_trace_that_fails_late_gets_what_was_held_of_it() {
    let (tracer, mut received) = tracer(0.0, true, true);
    let ring = tracer.ring().expect("errors are kept");
    let now = Instant::now();
    for trace in [7, 8] {
        tracer.end(finished(trace, 1), Some(&ring), now);
    }
    assert!(received.try_recv().is_err());
    tracer.mark(TraceId::from(7), now);
    assert_eq!(received.try_recv().expect("held").story.late, Some("trace"));
    assert!(received.try_recv().is_err());
    assert!(tracer.is_marked(TraceId::from(7), now) && !tracer.is_marked(TraceId::from(8), now));
    for span in 1..20 {
        let mut failed = finished(9, span);
        failed.story.late = Some("error");
        tracer.end(failed, Some(&ring), now);
    }
    let counts = tracer.counts();
    assert_eq!((counts.late.get(), counts.dropped.get()), (20, 11));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_content_takes_its_time_is_slow_too() {
    let metrics = Arc::new(Metrics::new());
    let access_log = AccessLog::start(bootstrap::AccessLog::Off, metrics.access_log_dropped());
    let (sender, mut received) = mpsc::channel(10);
    let slow = Some(Duration::from_secs(1));
    let sampling = Sampling { share: Share::new(0.0), slow, errors: false };
    let tracer = Arc::new(Tracer::new(sampling, true, Some(sender), metrics.spans()));
    let telemetry = Telemetry { tracer: Some(tracer), ..Telemetry::new(metrics, access_log) };
    let recorder = Arc::new(Recorder::new(telemetry));
    for seconds in [0, 2] {
        let mut record = Record::begin(&recorder, "outbound", ([127, 0, 0, 1], 1).into());
        record.begin_trace(&HeaderMap::new());
        record.status = 200;
        assert!(!record.answer_trace(&HeaderMap::new()), "its head was quick");
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }
    assert_eq!(received.try_recv().expect("the slow one").story.late, Some("slow"));
    assert!(received.try_recv().is_err());
}

#[test]
fn attempts_are_spans_below_the_request_when_there_are_several() {
    let scope = InstrumentationScope::builder("test").build();
    let attempt = |span: u64, status, reason| Attempt {
        span_id: SpanId::from(span),
        began: Instant::now(),
        ended: None,
        address: ([127, 0, 0, 1], 80).into(),
        cluster: Arc::from("c"),
        peer: Arc::from("p"),
        status,
        grpc_status: None,
        reason,
    };
    let once = Story { attempts: vec![attempt(5, 200, "")], ..Story::default() };
    let spans = Finished { story: Box::new(once), ..*finished(7, 5) }.into_spans(&scope);
    assert_eq!(spans.len(), 1);
    assert_eq!((&spans[0].span_kind, spans[0].span_context.span_id()), (&SpanKind::Client, SpanId::from(5)));
    assert_eq!((spans[0].name.as_ref(), &spans[0].status), ("GET orders.shop:80", &Status::Unset));
    let twice = Story { attempts: vec![attempt(5, 0, "connect_failure"), attempt(6, 503, "")], ..Story::default() };
    let spans = Finished { story: Box::new(twice), status: 503, ..*finished(7, 5) }.into_spans(&scope);
    let [whole, first, second] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((&whole.span_kind, whole.parent_span_id), (&SpanKind::Internal, SpanId::from(99)));
    for (span, id, why) in [(first, 5, "connect_failure"), (second, 6, "503")] {
        assert_eq!(
            (span.parent_span_id, span.span_context.span_id()),
            (whole.span_context.span_id(), SpanId::from(id))
        );
        assert!(matches!(span.status, Status::Error { .. }));
        assert!(span.attributes.iter().any(|a| a.key.as_str() == "error.type" && a.value.as_str() == why), "{span:?}");
    }
}

#[test]
fn inbound_tries_are_spans_when_there_were_several_or_one_failed() {
    let scope = InstrumentationScope::builder("test").build();
    let attempt = |status, reason| Attempt {
        span_id: SpanId::from(5),
        began: Instant::now(),
        ended: None,
        address: ([127, 0, 0, 1], 80).into(),
        cluster: Arc::from("c"),
        peer: Arc::from("p"),
        status,
        grpc_status: None,
        reason,
    };
    let spans = |attempts| {
        let story = Box::new(Story { attempts, limit_wait: Duration::from_millis(2), ..Story::default() });
        let queue = Some(Duration::from_millis(3));
        Finished { story, is_inbound: true, queue, ..*finished(7, 5) }.into_spans(&scope)
    };
    let only = spans(vec![attempt(200, "")]);
    let [server] = only.as_slice() else { panic!("{only:?}") };
    for (key, wanted) in [("pillion.queue_ms", "3"), ("pillion.limit_wait_ms", "2")] {
        assert!(server.attributes.iter().any(|a| a.key.as_str() == key && a.value.as_str() == wanted), "{server:?}");
    }
    assert_eq!(spans(vec![attempt(0, "connect_failure")]).len(), 2);
    let several = spans(vec![attempt(0, "connect_failure"), attempt(200, "")]);
    let [server, first, second] = several.as_slice() else { panic!("{several:?}") };
    assert_eq!((&server.span_kind, server.span_context.span_id()), (&SpanKind::Server, SpanId::from(5)));
    for span in [first, second] {
        assert_eq!((&span.span_kind, span.parent_span_id), (&SpanKind::Client, SpanId::from(5)));
    }
    assert_ne!(first.span_context.span_id(), second.span_context.span_id());
}

#[test]
fn a_connection_is_one_span_without_words_of_http() {
    let scope = InstrumentationScope::builder("test").build();
    for (is_inbound, kind) in [(false, SpanKind::Client), (true, SpanKind::Server)] {
        let mut tcp = Finished { is_tcp: true, is_inbound, status: 0, ..*finished(7, 5) };
        (tcp.bytes_sent, tcp.bytes_received) = (10, 20);
        let spans = tcp.into_spans(&scope);
        let [span] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!((span.name.as_ref(), &span.span_kind), ("TCP orders.shop:80", &kind));
        assert!(!span.attributes.iter().any(|a| a.key.as_str().starts_with("http.")), "{span:?}");
        assert!(span.attributes.iter().any(|a| a.key.as_str() == "pillion.bytes_received"), "{span:?}");
    }
    let (tracer, _) = tracer(1.0, true, true);
    assert!(tracer.begin_alone().is_some_and(|context| context.sampled && context.parent == SpanId::INVALID));
    assert!(tracer_of(false).begin_alone().is_none(), "nobody would see it");
}

proptest! {
    #[test]
    fn no_fields_panic_and_what_goes_on_can_be_read(
        traceparent in "(00|01|ff)?-?[0-9a-fA-F]{0,33}-?[0-9a-f]{0,17}-[0-9a-f]{0,3}.{0,3}",
        b3 in "[0-9a-f]{0,33}(-[0-9a-f]{0,17}){0,3}",
        ids in ("[0-9a-f]{0,33}", "[0-9a-f]{0,17}", "[01d]?"),
        other in "[ -~]{0,40}",
    ) {
        let mut came = HeaderMap::new();
        for (name, value) in [
            ("traceparent", &traceparent), ("b3", &b3), ("x-b3-traceid", &ids.0), ("x-b3-spanid", &ids.1),
            ("x-b3-sampled", &ids.2), ("tracestate", &other), ("baggage", &other),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                came.insert(HeaderName::from_static(name), value);
            }
        }
        let (context, unwanted) = tracer(0.5, true, true).0.begin(&came);
        unwanted.remove(&mut came);
        let context = context.expect("always one");
        Onward { context, span_id: context.span_id }.write(&mut came);
        let again = Received::read(&came);
        prop_assert_eq!(again.ids, Some((context.trace_id, context.span_id)));
        prop_assert_eq!(again.sampled, Some(context.sampled));
        prop_assert_eq!(again.unwanted, Unwanted::default());
    }
}
