//! Traces: one over all hops, kept when they should be, at a real collector.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::collector::{Collector, Span};
use crate::support::{
    App, Curl, Mesh, Process, Recorder, Sidecar, Workload, curl, eventually, in_workspace, nginx_command, pillion,
    python, python_app, run, until,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
/// More than one batch is late.
const ARRIVAL: Duration = Duration::from_secs(30);

/// client -> web -> orders -> ledger, each an application with OpenTelemetry's SDK.
struct Shop {
    _mesh: Mesh,
    collector: Collector,
    client: Sidecar,
    _sidecars: Vec<Sidecar>,
    _apps: Vec<App>,
}

struct Wanted {
    protocol: &'static str,
    sampling: &'static str,
    propagators: &'static str,
    applications_report: bool,
    slow: &'static str,
}

const QUIET: Wanted =
    Wanted { protocol: "grpc", sampling: "0%", propagators: "w3c", applications_report: false, slow: "off" };

fn shop(wanted: &Wanted) -> Shop {
    let mesh = Mesh::start();
    let collector = Collector::start(&mesh);
    let (mut apps, mut sidecars) = (Vec::new(), Vec::new());
    for (name, next) in [("ledger", ""), ("orders", "ledger"), ("web", "orders")] {
        let call = |path: &str| if next.is_empty() { vec![] } else { vec![format!("http://{next}.shop{path}")] };
        let last = next.is_empty();
        let routes = json!({
            "/": { "call": call("/") },
            "/bad": { "call": call("/bad"), "status": if last { 500 } else { 200 } },
            "/slow": { "call": call("/slow"), "seconds": if last { 0.6 } else { 0.0 } },
        });
        let reports = if wanted.applications_report { format!("http://{}", collector.http) } else { String::new() };
        let settings =
            json!({ "name": name, "collector": reports, "propagators": wanted.propagators, "routes": routes });
        let app = python_app(&mesh, "traced.py", &[&settings.to_string()]);
        mesh.service(name, &[("web", 80, "http")]);
        let workload = traced(Workload::new(name).port("web", app.address), &collector, wanted);
        let sidecar = mesh.workload(workload);
        let url = format!("http://{}/proxy", app.address);
        assert_eq!(curl(&[&url, "--data", &sidecar.outbound().to_string()]).status, 200);
        apps.push(app);
        sidecars.push(sidecar);
    }
    let client = mesh.workload(traced(Workload::new("client"), &collector, wanted));
    Shop { _mesh: mesh, collector, client, _sidecars: sidecars, _apps: apps }
}

fn traced(workload: Workload, collector: &Collector, wanted: &Wanted) -> Workload {
    let address = if wanted.protocol == "grpc" { collector.grpc } else { collector.http };
    workload
        .setting("otlp_endpoint", format!("http://{address}"))
        .setting("otlp_protocol", wanted.protocol)
        .setting("trace_sampling", wanted.sampling)
        .setting("trace_slow", wanted.slow)
}

fn ask(client: &Sidecar, url: &str, arguments: &[&str]) -> Curl {
    let connect_to = format!("::{}", client.outbound());
    curl(&[&["--connect-to", &connect_to, url], arguments].concat())
}

fn of_trace(collector: &Collector, trace: &str) -> Vec<Span> {
    collector.spans().into_iter().filter(|span| span.trace == trace).collect()
}

fn arrived(collector: &Collector, trace: &str, count: usize) -> Vec<Span> {
    eventually(&format!("{count} spans of {trace}"), ARRIVAL, || {
        let spans = of_trace(collector, trace);
        (spans.len() >= count).then_some(spans)
    })
}

/// From the span that `root` called, downwards, as long as each has one child: service and kind.
fn chain(spans: &[Span], root: &str) -> Vec<String> {
    let mut path = Vec::new();
    let mut parent = root.to_owned();
    loop {
        let children: Vec<&Span> = spans.iter().filter(|span| span.parent == parent).collect();
        let [child] = children.as_slice() else {
            assert!(children.is_empty(), "{parent} has several children: {children:?}");
            return path;
        };
        path.push(format!("{} {}", child.service, child.kind.trim_start_matches("SPAN_KIND_").to_lowercase()));
        parent = child.id.clone();
    }
}

/// Every hop twice: sidecar and application.
const WHOLE: [&str; 11] = [
    "client client",
    "web server",
    "web server",
    "web client",
    "web client",
    "orders server",
    "orders server",
    "orders client",
    "orders client",
    "ledger server",
    "ledger server",
];

#[test]
fn one_request_through_three_services_is_one_trace() {
    let shop = shop(&Wanted { applications_report: true, ..QUIET });
    let parent = format!("traceparent: 00-{TRACE}-{SPAN}-01");
    let fields = ["-H", &parent, "-H", "tracestate: a=b", "-H", "baggage: k=v", "-H", "x-pillion-trace: keep"];
    let answer = ask(&shop.client, "http://web.shop/?secret=1", &fields);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("x-pillion-trace"), None);
    let seen: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!((&seen["headers"]["tracestate"], &seen["headers"]["baggage"]), (&"a=b".into(), &"k=v".into()));
    let spans = arrived(&shop.collector, TRACE, WHOLE.len());
    assert_eq!(chain(&spans, SPAN), WHOLE, "{spans:#?}");
    let call = spans.iter().find(|span| span.parent == SPAN).expect("the first");
    assert_eq!(call.name, "GET web.shop:80");
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("url.path", "/"),
        ("server.address", "web.shop"),
        ("pillion.peer", "spiffe://cluster.local/ns/shop/sa/web"),
        ("pillion.cluster", "web.shop:80"),
        ("pillion.tls", "mutual"),
        ("pillion.attempts", "1"),
    ] {
        assert_eq!(call.attribute(key), value, "{key}: {call:#?}");
    }
    assert!(!shop.collector.text().contains("secret"), "queries are not told");
    // The line of the access log can be found by the trace, and the other way round.
    let line = &shop.client.access_log()[0];
    assert_eq!((&line["trace_id"], &line["span_id"]), (&TRACE.into(), &Value::from(call.id.as_str())));
}

#[test]
fn b3_goes_through_as_it_came_and_w3c_beside_it() {
    for propagators in ["b3", "b3multi"] {
        let shop = shop(&Wanted { protocol: "http/protobuf", propagators, applications_report: true, ..QUIET });
        let ids = [format!("x-b3-traceid: {TRACE}"), format!("x-b3-spanid: {SPAN}")];
        let single = format!("b3: {TRACE}-{SPAN}-1");
        let fields = match propagators {
            "b3" => vec!["-H", &single],
            _ => vec!["-H", &ids[0], "-H", &ids[1], "-H", "x-b3-sampled: 1"],
        };
        let answer = ask(&shop.client, "http://web.shop/", &fields);
        let seen: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert!(seen["headers"]["traceparent"].as_str().is_some_and(|text| text.contains(TRACE)), "{seen}");
        assert_eq!(seen["headers"]["b3"].is_string(), propagators == "b3", "{seen}");
        let spans = arrived(&shop.collector, TRACE, WHOLE.len());
        assert_eq!(chain(&spans, SPAN), WHOLE, "{spans:#?}");
    }
}

#[test]
fn malformed_fields_are_replaced_and_a_trace_is_started() {
    let shop = shop(&Wanted { sampling: "100%", ..QUIET });
    let fields = ["-H", "traceparent: 00-nonsense-01", "-H", "tracestate: a=b", "-H", "baggage: \"", "-H", "b3: x"];
    let answer = ask(&shop.client, "http://web.shop/", &fields);
    let seen: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let begun = seen["headers"]["traceparent"].as_str().expect("one was started").to_owned();
    for name in ["tracestate", "baggage", "b3"] {
        assert!(seen["headers"][name].is_null(), "{name}: {seen}");
    }
    let trace = begun.split('-').nth(1).expect("an id");
    let spans = arrived(&shop.collector, trace, 6);
    assert!(spans.iter().any(|span| span.parent.is_empty() && span.service == "client"), "{spans:#?}");
}

#[test]
fn an_error_at_the_last_hop_keeps_the_spans_of_all() {
    let shop = shop(&QUIET);
    let trace = |number: u32| format!("{number:032x}");
    let call = |path: &str, number: u32| {
        let parent = format!("traceparent: 00-{}-{SPAN}-00", trace(number));
        let answer = ask(&shop.client, &format!("http://web.shop{path}"), &["-H", &parent]);
        assert_eq!(answer.status, 200, "each application in between swallows it");
        assert_eq!(answer.header("x-pillion-trace"), None, "{}", answer.head);
    };
    call("/", 1);
    call("/bad", 2);
    call("/", 3);
    let bad = arrived(&shop.collector, &trace(2), 6);
    assert_eq!(hops(&bad), [("client", 1), ("web", 2), ("orders", 2), ("ledger", 1)].into(), "{bad:#?}");
    let whys: Vec<_> = bad.iter().map(|span| span.attribute("pillion.sampling")).collect();
    assert!(whys.contains(&"error") && whys.contains(&"peer"), "{whys:?}");
    let failed = bad.iter().filter(|span| span.status == "STATUS_CODE_ERROR").map(|span| span.attribute("error.type"));
    assert_eq!(failed.collect::<Vec<_>>(), ["500", "500"], "the last hop's, and its caller's");
    assert!([1, 3].iter().all(|number| of_trace(&shop.collector, &trace(*number)).is_empty()));
    assert_eq!(shop.client.metric("pillion_spans_total", &[("result", "late")]), 1.0);
}

#[test]
fn a_slow_answer_keeps_the_spans_of_all() {
    let shop = shop(&Wanted { slow: "500ms", ..QUIET });
    let answer = ask(&shop.client, "http://web.shop/slow", &["-H", &format!("traceparent: 00-{TRACE}-{SPAN}-00")]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let spans = arrived(&shop.collector, TRACE, 6);
    assert_eq!(hops(&spans), [("client", 1), ("web", 2), ("orders", 2), ("ledger", 1)].into(), "{spans:#?}");
    assert!(spans.iter().any(|span| span.attribute("pillion.sampling") == "slow"), "{spans:#?}");
}

fn hops(spans: &[Span]) -> BTreeMap<&str, u32> {
    spans.iter().fold(BTreeMap::new(), |mut count, span| {
        *count.entry(span.service.as_str()).or_default() += 1;
        count
    })
}

#[test]
fn outside_callers_and_servers_cannot_keep_traces() {
    let mesh = Mesh::start();
    let collector = Collector::start(&mesh);
    let server =
        crate::support::nginx(&mesh, "add_header x-pillion-trace keep always; location / { return 200 hello; }");
    mesh.service("outside", &[("web", 80, "http")]);
    mesh.outsider(Workload::new("outside").port("web", server.address));
    let client = mesh.workload(traced(Workload::new("client"), &collector, &QUIET));
    let answer = ask(&client, "http://outside.shop/", &["-H", "x-pillion-trace: keep"]);
    assert_eq!((answer.status, answer.header("x-pillion-trace")), (200, None), "{answer:?}");
    until("it ended", || client.access_log().len() == 1);
    assert_eq!(client.metric("pillion_spans_total", &[("result", "late")]), 0.0);
    // A sidecar's own application is believed, and its word goes to the caller's sidecar, but not to the caller.
    mesh.service("own", &[("web", 80, "http")]);
    let own = mesh.workload(traced(Workload::new("own").port("web", server.address), &collector, &QUIET));
    let answer = ask(&client, "http://own.shop/", &[]);
    assert_eq!((answer.status, answer.header("x-pillion-trace")), (200, None), "{answer:?}");
    for sidecar in [&own, &client] {
        until("it is kept", || sidecar.metric("pillion_spans_total", &[("result", "late")]) == 1.0);
    }
    let outside = curl(&[&format!("http://{}/", own.front("web"))]);
    assert_eq!(outside.header("x-pillion-trace"), None, "{outside:?}");
}

#[test]
fn attempts_are_spans_of_their_own() {
    let mesh = Mesh::start();
    let collector = Collector::start(&mesh);
    let wanted = Wanted { sampling: "100%", ..QUIET };
    let routes = json!({ "/": { "status": [503, 503, 200] } });
    let app = python_app(&mesh, "traced.py", &[&json!({ "name": "flaky", "routes": routes }).to_string()]);
    mesh.service("flaky", &[("web", 80, "http")]);
    mesh.write(
        "policy.yaml",
        "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: { name: flaky, namespace: shop }\n\
         spec:\n  targetRefs: [ { kind: Service, name: flaky } ]\n  \
         retries: { on: [ 5xx ], attempts: 3, backoff: { base: 1ms } }\n",
    );
    let _flaky = mesh.workload(traced(Workload::new("flaky").port("web", app.address), &collector, &wanted));
    let mut client = mesh.workload(traced(Workload::new("client"), &collector, &wanted));
    let parent = format!("traceparent: 00-{TRACE}-{SPAN}-01");
    let answer = ask(&client, "http://flaky.shop/", &["-H", &parent]);
    assert_eq!(answer.status, 200, "{answer:?}");
    // What waits to be sent is sent when stopping.
    assert!(client.process.terminate().success());
    let spans = arrived(&collector, TRACE, 7);
    let whole = spans.iter().find(|span| span.parent == SPAN).expect("the request");
    assert_eq!((whole.kind.as_str(), whole.attribute("pillion.attempts")), ("SPAN_KIND_INTERNAL", "3"));
    assert_eq!(whole.events, ["retry", "answered", "retry", "answered"]);
    let attempts: Vec<&Span> = spans.iter().filter(|span| span.parent == whole.id).collect();
    let said = |key: &str| attempts.iter().map(|span| span.attribute(key).to_owned()).collect::<Vec<_>>();
    assert_eq!(said("http.response.status_code"), ["503", "503", "200"], "{attempts:#?}");
    assert_eq!(said("http.request.resend_count"), ["", "1", "2"]);
    for attempt in attempts {
        assert_eq!(spans.iter().filter(|span| span.parent == attempt.id).count(), 1, "its other end");
    }
}

#[test]
fn a_collector_that_is_not_there_costs_requests_nothing() {
    let mesh = Mesh::start();
    // One that refuses, and one that takes connections and never says a word.
    let silent = TcpListener::bind((mesh.ip(), 0)).expect("a free port");
    let gone = mesh.free_address();
    let app = crate::support::nginx(&mesh, "location / { return 200 hello; }");
    mesh.service("app", &[("web", 80, "http")]);
    let _app = mesh.workload(Workload::new("app").port("web", app.address));
    for (name, address) in [("refused", gone), ("silent", silent.local_addr().expect("bound"))] {
        let workload = Workload::new(name)
            .setting("otlp_endpoint", format!("http://{address}"))
            .setting("trace_sampling", "100%")
            .setting("access_log", "off")
            .setting("drain_deadline", "1s");
        let mut client = mesh.workload(workload);
        assert_eq!(ask(&client, "http://app.shop/", &[]).status, 200);
        let load = |requests: &str| {
            let mut command = Command::new(crate::support::tool("h2load", "nghttp2-client"));
            command.args(["--h1", "-c", "8", "-n", requests, "--connect-to", &client.outbound().to_string()]);
            command.arg("http://app.shop/");
            run(&mut command)
        };
        // The queue fills, and with it what memory it may take.
        load("6000");
        let before = client.process.resident_kib();
        let report = load("20000");
        assert!(report.contains("20000 succeeded, 0 failed, 0 errored"), "{report}");
        let after = client.process.resident_kib();
        assert!(after < before + 8 * 1024, "{name}: {before} KiB, then {after} KiB");
        let count = |result| client.metric("pillion_spans_total", &[("result", result)]);
        assert!(count("dropped") > 10_000.0, "{name}: {}", client.admin_page("/metrics"));
        assert_eq!(count("sampled"), 26_001.0);
        assert!(client.process.terminate().success(), "{name}: what cannot be sent does not hold up the end");
    }
}

#[test]
fn a_grpc_call_that_fails_at_its_end_is_kept_with_its_status() {
    let mesh = Mesh::start();
    let collector = Collector::start(&mesh);
    let server = python_app(&mesh, "grpc_flaky.py", &[]);
    mesh.service("flaky", &[("grpc", 50051, "grpc")]);
    let _flaky = mesh.workload(traced(Workload::new("flaky").port("grpc", server.address), &collector, &QUIET));
    let client = mesh.workload(traced(Workload::new("client"), &collector, &QUIET));
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/grpc_call.py")).arg(client.outbound().to_string());
    let parent = format!("traceparent=00-{TRACE}-{SPAN}-00");
    command.args(["flaky.shop:50051", &format!("/flaky.Flaky/INTERNAL-1,{parent}"), "/flaky.Flaky/INTERNAL-0"]);
    run(&mut command);
    let spans = arrived(&collector, TRACE, 2);
    let kinds: BTreeSet<_> = spans.iter().map(|span| span.kind.as_str()).collect();
    assert_eq!(kinds, ["SPAN_KIND_CLIENT", "SPAN_KIND_SERVER"].into());
    for span in &spans {
        assert_eq!((span.name.as_str(), span.status.as_str()), ("flaky.Flaky/INTERNAL-1", "STATUS_CODE_ERROR"));
        assert_eq!(span.attribute("rpc.system"), "grpc");
        assert_eq!((span.attribute("rpc.service"), span.attribute("rpc.method")), ("flaky.Flaky", "INTERNAL-1"));
        assert_eq!(span.attribute("rpc.grpc.status_code"), "13", "{span:#?}");
    }
    assert!(collector.spans().iter().all(|span| span.trace == TRACE), "the other one was fine");
}

#[test]
fn a_connection_is_a_span_of_either_sidecar_and_a_refusal_an_event() {
    let mesh = Mesh::start();
    let collector = Collector::start(&mesh);
    let app = Recorder::start(mesh.ip());
    mesh.service("raw", &[("tcp", 7000, "")]);
    mesh.service("web", &[("web", 80, "http")]);
    let all = Wanted { sampling: "100%", ..QUIET };
    let raw = Workload::new("raw").port_with("tcp", app.address, "protocol: tcp");
    let _raw = mesh.workload(traced(raw, &collector, &all));
    let nobody = mesh.free_address();
    let _web = mesh.workload(traced(Workload::new("web").port("web", nobody), &collector, &all));
    let client = mesh.workload(traced(Workload::new("client").tcp("raw.shop:7000"), &collector, &all));
    let url = format!("http://{}/", client.tcp("raw.shop:7000"));
    assert_eq!(curl(&[&url, "-H", "Connection: close"]).status, 200);
    let answer = ask(&client, "http://web.shop/", &["-H", &format!("traceparent: 00-{TRACE}-{SPAN}-01")]);
    assert_eq!(answer.status, 503, "{answer:?}");
    until("both ends of the connection are there", || {
        let spans = collector.spans();
        let of = |kind| spans.iter().filter(|span| span.name.starts_with("TCP ") && span.kind == kind).count();
        of("SPAN_KIND_CLIENT") == 1 && of("SPAN_KIND_SERVER") == 1
    });
    let is_try = |span: &Span| span.service == "web" && span.kind == "SPAN_KIND_CLIENT";
    until("the try of the application is there", || of_trace(&collector, TRACE).iter().any(is_try));
    let spans = of_trace(&collector, TRACE);
    let server = spans.iter().find(|span| span.kind == "SPAN_KIND_SERVER").expect("it came by it");
    let tried = spans.iter().find(|span| is_try(span)).expect("it was there");
    assert_eq!((&tried.parent, tried.attribute("error.type")), (&server.id, "connect_failure"), "{tried:#?}");
    assert!(!server.attribute("pillion.queue_ms").is_empty(), "{server:#?}");
}

#[test]
fn a_collector_behind_tls_is_believed_only_with_a_certificate_that_counts() {
    let mesh = Mesh::start();
    let collector = Collector::start(&mesh);
    let made = rcgen::generate_simple_self_signed(vec![mesh.ip().to_string()]).expect("a certificate");
    let (certificate, key) = (mesh.scratch().join("tls.pem"), mesh.scratch().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).expect("a file");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    let tls = format!("ssl_certificate {}; ssl_certificate_key {};", certificate.display(), key.display());
    let address = mesh.free_address();
    let server = format!("{tls} location / {{ proxy_pass http://{}; }}", collector.http);
    let listen = format!("{address} ssl");
    let _front = Process::spawn("nginx", &mut nginx_command(&mesh.scratch().join("front"), &listen, &server));
    until("nginx listens", || std::net::TcpStream::connect(address).is_ok());
    let workload = |name: &str| {
        Workload::new(name)
            .setting("otlp_endpoint", format!("https://{address}"))
            .setting("otlp_protocol", "http/protobuf")
            .setting("otlp_signals", json!(["traces", "metrics", "logs"]))
            .setting("metrics_export_interval", "200ms")
            .setting("trace_sampling", "100%")
    };
    let client = mesh.workload(workload("client").setting("otlp_ca", certificate.display().to_string()));
    let parent = format!("traceparent: 00-{TRACE}-{SPAN}-01");
    ask(&client, "http://nobody.shop/", &["-H", &parent]);
    arrived(&collector, TRACE, 1);
    for signal in ["traces", "metrics", "logs"] {
        until(&format!("{signal} were taken"), || {
            client.metric("pillion_otlp_items_total", &[("signal", signal), ("result", "exported")]) > 0.0
        });
    }
    let doubtful = mesh.workload(workload("doubtful"));
    ask(&doubtful, "http://nobody.shop/", &[]);
    until("the export failed", || {
        doubtful.metric("pillion_otlp_items_total", &[("signal", "traces"), ("result", "failed")]) == 1.0
    });
    assert_eq!(collector.spans().len(), 1);
}

#[test]
fn the_demo_hands_the_collector_on() {
    let mesh = Mesh::start();
    let collector = Collector::start(&mesh);
    let endpoint = format!("http://{}", collector.grpc);
    let arguments = ["demo", "--duration", "6s", "--rate", "10", "--json", "--trace-sampling", "100%"];
    let mut demo = Process::pillion("demo", &[&arguments[..], &["--otlp-endpoint", &endpoint]].concat());
    demo.wait();
    let services: BTreeMap<String, u32> = collector.spans().into_iter().fold(BTreeMap::new(), |mut count, span| {
        *count.entry(span.service).or_default() += 1;
        count
    });
    for name in ["web", "orders", "pillion-control-plane"] {
        assert!(services.contains_key(name), "{services:?}\n{}", demo.log());
    }
}

#[test]
fn without_a_collector_a_trace_is_begun_only_where_that_is_asked_for() {
    let mesh = Mesh::start();
    let server = Recorder::start(mesh.ip());
    mesh.service("server", &[("web", 80, "http")]);
    mesh.outsider(Workload::new("server").port("web", server.address));
    let valid = format!("traceparent: 00-{TRACE}-{SPAN}-01");
    let malformed = "traceparent: nonsense";
    for (mode, begins, cleans) in [("auto", false, true), ("on", true, true), ("off", false, false)] {
        let client = mesh.workload(Workload::new(&format!("client{mode}")).setting("trace_headers", mode));
        let sent = |field: &str| {
            assert_eq!(ask(&client, "http://server.shop/", &["-H", field]).status, 200);
            let heads = server.heads();
            let head = heads.last().expect("one").to_lowercase();
            head.lines().find(|line| line.starts_with("traceparent")).unwrap_or_default().to_owned()
        };
        assert_eq!(sent(&valid), valid, "{mode}: nobody would see a span of ours");
        assert_eq!(sent("x: y").starts_with("traceparent: 00-"), begins, "{mode}");
        assert_eq!(sent(malformed) != malformed, cleans, "{mode}");
    }
}

#[test]
fn logs_go_to_the_collector_with_their_trace() {
    let mesh = Mesh::start();
    let mut collector = Collector::start(&mesh);
    let workload = Workload::new("client")
        .setting("otlp_endpoint", format!("http://{}", collector.http))
        .setting("otlp_protocol", "http/protobuf")
        .setting("otlp_signals", json!(["traces", "logs"]))
        .setting("access_log", "off");
    let client = mesh.workload(workload);
    let parent = format!("traceparent: 00-{TRACE}-{SPAN}-01");
    let answer = ask(&client, "http://nobody.shop/late", &["-H", &parent]);
    assert_ne!(answer.status, 200, "{answer:?}");
    let span = arrived(&collector, TRACE, 1).remove(0);
    assert_eq!((span.kind.as_str(), span.status.as_str()), ("SPAN_KIND_CLIENT", "STATUS_CODE_ERROR"));
    assert_eq!(span.attribute("error.type"), answer.reason());
    until("the request is there by its attributes, and what the sidecar says of itself", || {
        let text = collector.text();
        let wanted = ["http.response.status_code", "url.path", "/late", "connected to the control plane"];
        wanted.iter().all(|wanted| text.contains(wanted))
    });
    collector.kill();
}

#[test]
fn the_control_plane_tells_what_it_pushes_and_signs() {
    let first = Mesh::start();
    let collector = Collector::start(&first);
    let mesh = Mesh::start_with(&["--otlp-endpoint", &format!("http://{}", collector.grpc)]);
    let _client = mesh.workload(Workload::new("client"));
    for name in ["configuration", "certificate", "push"] {
        until(&format!("a span {name}"), || {
            collector.spans().iter().any(|span| span.name == name && span.service == "pillion-control-plane")
        });
    }
    let refused = Process::spawn(
        "control plane",
        pillion()
            .args(["control-plane", "--config", "/nonexistent", "--state", "/nonexistent"])
            .args(["--otlp-endpoint", "https://127.0.0.1:4317"]),
    );
    let mut refused = refused;
    assert!(!refused.wait().success());
    assert!(refused.log().contains("by http:// only"), "{}", refused.log());
}
