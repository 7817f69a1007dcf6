//! What `/metrics` says: to a real Prometheus, to promtool, to a real OpenTelemetry collector, and when there is much.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    App, Mesh, Process, Sidecar, Workload, curl, eventually, in_workspace, nginx, python, python_app, run, tool, until,
};

const SITE: &str = "location /ok { return 200 'fine'; }\nlocation /bad { return 500 'broken'; }\n";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A caller and a site with their sidecars; settings are those of both.
fn pair(mesh: &Mesh, settings: &[(&str, Value)]) -> (Sidecar, Sidecar, App) {
    let app = nginx(mesh, SITE);
    mesh.service("site", &[("http", 80, "http")]);
    let set = |workload: Workload| settings.iter().fold(workload, |all, (key, value)| all.setting(key, value.clone()));
    let server = mesh.workload(set(Workload::new("site").port("http", app.address)));
    let client = mesh.workload(set(Workload::new("caller")));
    (client, server, app)
}

/// Requests these paths (curl's ranges: `/ok?[1-9]`) of `host` over one connection; the statuses that came.
fn statuses(client: &Sidecar, host: &str, paths: &[&str]) -> Vec<u16> {
    let mut command = Command::new(tool("curl", "curl"));
    command.args(["-s", "--max-time", "500", "-w", "%{stderr}%{http_code}\n", "-H", &format!("Host: {host}")]);
    for path in paths {
        command.args(["-o", "/dev/null"]).arg(format!("http://{}{path}", client.outbound()));
    }
    let output = command.stdout(Stdio::null()).output().expect("curl runs");
    String::from_utf8_lossy(&output.stderr).lines().filter_map(|line| line.parse().ok()).collect()
}

/// Prometheus, which scrapes these targets every second, its rules loaded.
fn prometheus(mesh: &Mesh, jobs: &[(&str, &[SocketAddr])]) -> (Process, SocketAddr) {
    let folder = mesh.scratch().join("prometheus");
    fs::create_dir_all(&folder).expect("a folder");
    let job = |(name, targets): &(&str, &[SocketAddr])| {
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        json!({ "job_name": name, "static_configs": [{ "targets": targets }] })
    };
    let config = json!({
        "global": { "scrape_interval": "1s", "scrape_timeout": "1s" },
        "rule_files": [in_workspace("telemetry/prometheus/alerts.yml")],
        "scrape_configs": jobs.iter().map(job).collect::<Vec<_>>(),
    });
    fs::write(folder.join("prometheus.yml"), config.to_string()).expect("a file");
    let address = mesh.free_address();
    let mut command = Command::new(tool("prometheus", "prometheus"));
    command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address={address}")).arg("--enable-feature=exemplar-storage");
    (Process::spawn("prometheus", &mut command), address)
}

/// The only value that a PromQL expression has now.
fn query(prometheus: SocketAddr, expression: &str) -> Option<f64> {
    let expression = format!("query={expression}");
    let answer = curl(&["-G", &format!("http://{prometheus}/api/v1/query"), "--data-urlencode", &expression]);
    let answer: Value = serde_json::from_slice(&answer.body).ok()?;
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

/// What promtool has to say against a page.
fn lint(page: &[u8]) -> String {
    let mut command = Command::new(tool("promtool", "prometheus"));
    let command =
        command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().expect("promtool runs");
    promtool.stdin.take().expect("piped").write_all(page).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { said } else { format!("{}: {said}", output.status) }
}

fn page(address: SocketAddr) -> Vec<u8> {
    let page = curl(&[&format!("http://{address}/metrics")]);
    assert_eq!(page.status, 200, "{page:?}");
    page.body
}

#[test]
fn a_prometheus_sees_the_success_rate_that_the_client_saw() {
    let mesh = Mesh::start();
    let (client, server, _app) = pair(&mesh, &[]);
    let (prometheus, address) = prometheus(
        &mesh,
        &[
            ("pillion-sidecars", &[client.metrics_address(), server.metrics_address()]),
            ("pillion-control-plane", &[mesh.admin_address()]),
        ],
    );
    let seen = statuses(&client, "site.shop", &["/ok?[1-45]", "/bad?[1-15]"]);
    let good = seen.iter().filter(|status| **status == 200).count();
    assert_eq!((good, seen.len()), (45, 60), "{seen:?}");
    for (direction, destination) in [("outbound", "site.shop:80"), ("inbound", "inbound:")] {
        let of = |more: &str| {
            format!("sum(pillion_requests_total{{direction=\"{direction}\",destination=~\"{destination}.*\"{more}}})")
        };
        until("Prometheus counts what the client counted", || query(address, &of("")) == Some(60.0));
        assert_eq!(query(address, &format!("{} / {}", of(",status!~\"5..\""), of(""))), Some(0.75), "{direction}");
    }
    let named = "sum(http_server_request_duration_seconds_count{http_response_status_code=\"500\",error_type=\"500\"})";
    assert_eq!(query(address, named), Some(15.0));
    until("all three are scraped", || query(address, "sum(up)") == Some(3.0));
    until("the rules are read", || query(address, "count(pillion_build_info)") == Some(2.0));
    assert_eq!(query(address, "min(pillion_xds_connected)"), Some(1.0));
    for address in [client.metrics_address(), server.metrics_address(), client.admin(), mesh.admin_address()] {
        assert_eq!(lint(&page(address)), "", "promtool check metrics of {address}");
    }
    drop(prometheus);
}

#[test]
fn the_metrics_port_says_nothing_else_and_speaks_both_formats() {
    let mesh = Mesh::start();
    let (client, _server, _app) = pair(&mesh, &[]);
    let base = format!("http://{}", client.metrics_address());
    for (path, method, status) in
        [("/config_dump", "GET", 404), ("/ready", "GET", 404), ("/drain", "POST", 404), ("/metrics", "POST", 405)]
    {
        assert_eq!(curl(&["-X", method, &format!("{base}{path}")]).status, status, "{method} {path}");
    }
    let traced = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01");
    let url = format!("http://{}/ok", client.outbound());
    assert_eq!(curl(&[&url, "-H", "Host: site.shop", "-H", &traced]).status, 200);
    let other = format!("traceparent: 00-{}-00f067aa0ba902b7-00", TRACE.replace('4', "5"));
    assert_eq!(curl(&[&url, "-H", "Host: site.shop", "-H", &other]).status, 200);
    for address in [client.metrics_address(), client.admin(), mesh.admin_address()] {
        let url = format!("http://{address}/metrics");
        let plain = curl(&[&url]);
        assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        assert!(!plain.text().contains("# EOF") && !plain.text().contains("trace_id"), "{}", plain.text());
        let open = curl(&[&url, "-H", "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5"]);
        assert!(open.header("content-type").expect("one").starts_with("application/openmetrics-text; version=1.0.0"));
        assert!(open.text().ends_with("# EOF\n"), "{}", open.text());
        if address != mesh.admin_address() {
            assert!(open.text().contains(&format!("# {{trace_id=\"{TRACE}\"}}")), "{}", open.text());
            assert!(!open.text().contains(&TRACE.replace('4', "5")), "an unsampled trace is no example");
        }
    }
}

#[test]
fn where_the_time_of_a_request_goes_is_counted_by_route() {
    let mesh = Mesh::start();
    let (client, server, _app) = pair(&mesh, &[]);
    assert_eq!(statuses(&client, "site.shop", &["/ok?[1-20]"]), [200; 20]);
    let upload = ["-d", "0123456789", "-H", "Host: site.shop"];
    let url = format!("http://{}/ok", client.outbound());
    assert_eq!(curl(&[&[url.as_str()], &upload[..]].concat()).status, 200);
    assert_eq!(curl(&[&[url.as_str(), "-H", "Transfer-Encoding: chunked"], &upload[..]].concat()).status, 200);
    for (sidecar, direction, side) in [(&client, "outbound", "client"), (&server, "inbound", "server")] {
        let of = |part| sidecar.metric("pillion_overhead_seconds_count", &[("direction", direction), ("part", part)]);
        let counted = || sidecar.metric("pillion_requests_total", &[("direction", direction)]);
        until("all requests are there", || counted() == 22.0);
        // Of one in sixteen, and the first of each worker.
        assert!((1.0..22.0).contains(&of("total")), "{direction}: {}", of("total"));
        assert!(["policy", "queue", "upstream_wait"].iter().all(|part| of(part) == of("total")));
        assert!(of("detect") >= 1.0, "{direction}");
        let sum = |part| sidecar.metric("pillion_overhead_seconds_sum", &[("direction", direction), ("part", part)]);
        let whole = sidecar.metric("pillion_request_duration_seconds_sum", &[("direction", direction)]);
        assert!(sum("total") + sum("upstream_wait") <= whole, "the parts are within the whole");
        assert!((sum("policy") + sum("queue") - sum("total")).abs() < 1e-6);
        let tries = [("direction", direction), ("result", "2xx")];
        assert_eq!(sidecar.metric("pillion_upstream_attempt_duration_seconds_count", &tries), 22.0);
        // What passes is counted, and the application answers without waiting for all of it.
        let uploaded = sidecar.metric(&format!("http_{side}_request_body_size_bytes_sum"), &[]);
        assert!((10.0..=20.0).contains(&uploaded), "{side}: {uploaded}");
        assert_eq!(sidecar.metric(&format!("http_{side}_response_body_size_bytes_sum"), &[]), 22.0 * 4.0);
        let posted = [("http_request_method", "POST"), ("http_response_status_code", "200")];
        assert_eq!(sidecar.metric(&format!("http_{side}_request_duration_seconds_count"), &posted), 2.0);
    }
    assert!(server.metric("pillion_overhead_seconds_count", &[("part", "tls")]) >= 1.0);
    let off = mesh.workload(Workload::new("hasty").setting("metrics_overhead", "off").setting("metrics", "off"));
    assert_eq!(statuses(&off, "site.shop", &["/ok?[1-5]"]), [200; 5]);
    until("it is counted all the same", || off.metric("pillion_requests_total", &[]) == 5.0);
    assert_eq!(off.metric("pillion_overhead_seconds_count", &[]), 0.0);
}

#[test]
fn a_hundred_thousand_paths_and_many_destinations_take_no_more_memory() {
    const PATHS: usize = 100_000;
    let mesh = Mesh::start();
    let app = nginx(&mesh, SITE);
    for number in 0..30 {
        mesh.service_for(&format!("site-{number}"), "site", &[("http", 80, "http")]);
    }
    let _server = mesh.workload(Workload::new("site").port("http", app.address));
    mesh.write(
        "route.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: away, namespace: shop }\n\
         spec:\n  parentRefs: [{ kind: Service, group: '', name: site-0 }]\n  rules:\n  \
         - filters: [{ type: RequestRedirect, requestRedirect: { statusCode: 302, hostname: elsewhere.example } }]\n",
    );
    let workload = Workload::new("caller").setting("metrics_max_series", 10).setting("access_log", "off");
    let client = mesh.workload(workload.setting("metrics_istio", "on"));
    let mut answered = 0;
    let mut go = |host: &str, paths: &str, status: u16| {
        let seen = statuses(&client, host, &[paths]);
        assert!(seen.iter().all(|seen| *seen == status), "{host}{paths}: {seen:?}");
        answered += seen.len();
    };
    until("the route is there", || {
        let url = format!("http://{}/", client.outbound());
        curl(&[&url, "-H", "Host: site-0.shop"]).status == 302
    });
    let before_paths = client.metric("pillion_requests_total", &[]);
    go("site-0.shop", "/a/[1-10000]", 302);
    let before = client.process.resident_kib();
    go("site-0.shop", &format!("/b/[{}-{PATHS}]", 10_001), 302);
    let mid = client.process.resident_kib();
    assert!(mid < before + 16 * 1024, "{before} KiB, then {mid} KiB");
    for number in 1..30 {
        go(&format!("site-{number}.shop"), "/ok?[1-10]", 200);
    }
    for number in 0..50 {
        statuses(&client, &format!("nobody-{number}.shop"), &["/"]);
    }
    let all = before_paths + (answered + 50) as f64;
    until("each request is counted, somewhere", || client.metric("pillion_requests_total", &[]) == all);
    let page = client.metrics();
    let sets: BTreeSet<String> =
        page.select("pillion_requests_total", &[]).map(|sample| format!("{:?}", sample.labels)).collect();
    assert!(sets.len() <= 15, "{sets:#?}");
    assert!(client.metric("pillion_requests_total", &[("destination", "other"), ("status", "200")]) > 100.0);
    assert!(client.metric("pillion_metrics_overflows_total", &[("table", "requests")]) > 0.0);
    assert!(client.metric("pillion_metrics_label_sets", &[("table", "requests")]) <= 15.0);
}

#[test]
fn what_is_idle_is_forgotten_and_begins_anew() {
    let mesh = Mesh::start();
    let (client, _server, _app) = pair(&mesh, &[("metrics_idle", json!("2s"))]);
    assert_eq!(statuses(&client, "site.shop", &["/ok?[1-5]"]), [200; 5]);
    until("it is forgotten", || client.metric("pillion_requests_total", &[]) == 0.0);
    assert!(client.metric("pillion_metrics_expired_total", &[("table", "requests")]) >= 1.0);
    assert_eq!(statuses(&client, "site.shop", &["/ok?[1-3]"]), [200; 3]);
    assert!(client.metric("pillion_requests_total", &[]) <= 3.0);
}

#[test]
fn dashboards_of_istio_find_its_families() {
    let mesh = Mesh::start();
    let (client, server, _app) = pair(&mesh, &[("metrics_istio", json!("on"))]);
    assert_eq!(statuses(&client, "site.shop", &["/ok?[1-4]", "/bad"]).len(), 5);
    let labels = [
        ("reporter", "source"),
        ("source_workload", "caller"),
        ("source_principal", "spiffe://cluster.local/ns/shop/sa/caller"),
        ("destination_service", "site.shop.svc.cluster.local"),
        ("destination_service_name", "site"),
        ("destination_service_namespace", "shop"),
        ("destination_principal", "spiffe://cluster.local/ns/shop/sa/site"),
        ("destination_workload", "unknown"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("response_flags", "-"),
        ("connection_security_policy", "unknown"),
    ];
    until("the source reports", || client.metric("istio_requests_total", &labels) == 4.0);
    let labels = [
        ("reporter", "destination"),
        ("source_principal", "spiffe://cluster.local/ns/shop/sa/caller"),
        ("destination_workload", "site"),
        ("destination_workload_namespace", "shop"),
        ("connection_security_policy", "mutual_tls"),
    ];
    until("the destination reports", || server.metric("istio_requests_total", &labels) == 5.0);
    let failed = [("response_code", "500")];
    assert_eq!(server.metric("istio_requests_total", &failed), 1.0);
    assert_eq!(server.metric("istio_request_duration_milliseconds_count", &labels), 5.0);
    assert_eq!(server.metric("istio_response_bytes_sum", &labels), 22.0);
    let seconds = server.metric("pillion_request_duration_seconds_sum", &[]);
    let milliseconds = server.metric("istio_request_duration_milliseconds_sum", &[]);
    assert!((seconds * 1000.0 - milliseconds).abs() < 1e-6);
}

/// A collector that prints what it gets, on these ports.
fn collector(grpc: SocketAddr, http: SocketAddr) -> Process {
    let folder = in_workspace(".test-tools/venv/lib");
    let python = fs::read_dir(folder).expect("run tests/run").flatten().next().expect("a Python").path();
    let mut command = Command::new(python.join("site-packages/rotel/rotel-agent"));
    command.args(["start", "--otlp-grpc-endpoint", &grpc.to_string(), "--otlp-http-endpoint", &http.to_string()]);
    command.args(["--exporter", "blackhole", "--debug-log", "metrics", "--debug-log-verbosity", "detailed"]);
    let mut process = Process::spawn("collector", &mut command);
    eventually("the collector listens", Duration::from_secs(30), || {
        assert!(process.exited().is_none(), "it ended: {}", process.log());
        [grpc, http].iter().all(|address| std::net::TcpStream::connect(address).is_ok()).then_some(())
    });
    process
}

#[test]
fn a_collector_gets_metrics_by_either_protocol_and_a_dead_one_costs_nothing() {
    let mesh = Mesh::start();
    let (grpc, http) = (mesh.free_address(), mesh.free_address());
    let app = nginx(&mesh, SITE);
    mesh.service("site", &[("http", 80, "http")]);
    let _server = mesh.workload(Workload::new("site").port("http", app.address));
    let pushing = |name: &str, to: SocketAddr, protocol: &str| {
        let workload = Workload::new(name).setting("otlp_endpoint", format!("http://{to}"));
        let workload = workload.setting("otlp_protocol", protocol).setting("otlp_signals", json!(["metrics"]));
        mesh.workload(workload.setting("metrics_export_interval", "200ms"))
    };
    let senders = [pushing("first", grpc, "grpc"), pushing("second", http, "http/protobuf")];
    let pushed = |sender: &Sidecar, result| {
        sender.metric("pillion_otlp_items_total", &[("signal", "metrics"), ("result", result)])
    };
    for sender in &senders {
        until("a collector that is not there is counted", || pushed(sender, "failed") > 0.0);
        assert_eq!(statuses(sender, "site.shop", &["/ok?[1-7]"]), [200; 7]);
    }
    let listening = collector(grpc, http);
    for (sender, name) in senders.iter().zip(["first", "second"]) {
        until("it takes what is pushed", || pushed(sender, "exported") > 0.0);
        until("it has understood what came", || {
            let said = listening.stdout() + &listening.log();
            ["pillion_requests", "http_client_request_duration_seconds", "pillion_overhead_seconds", name]
                .iter()
                .all(|wanted| said.contains(wanted))
        });
    }
    let workload = Workload::new("late").setting("otlp_endpoint", format!("http://{grpc}"));
    let workload = workload.setting("otlp_signals", json!(["metrics"])).setting("metrics_export_interval", "1h");
    let mut late = mesh.workload(workload);
    assert!(late.process.terminate().success());
    let said = listening.stdout() + &listening.log();
    assert!(said.contains("late"), "it pushes once more when it stops");
    drop(listening);
    for sender in &senders {
        let before = pushed(sender, "failed");
        until("it is gone again", || pushed(sender, "failed") > before);
        assert_eq!(statuses(sender, "site.shop", &["/ok?[1-7]"]), [200; 7]);
    }
}

#[test]
fn tcp_connections_are_counted_with_their_bytes() {
    let mesh = Mesh::start();
    let app = nginx(&mesh, SITE);
    mesh.service("raw", &[("tcp", 7000, "")]);
    let server = mesh.workload(Workload::new("raw").port_with("tcp", app.address, "protocol: tcp"));
    let client = mesh.workload(Workload::new("caller").tcp("raw.shop:7000").setting("metrics_istio", "on"));
    let url = format!("http://{}/ok", client.tcp("raw.shop:7000"));
    assert_eq!(curl(&[&url]).status, 200);
    for (sidecar, direction) in [(&client, "outbound"), (&server, "inbound")] {
        let labels = [("direction", direction)];
        until("the connection ended", || sidecar.metric("pillion_tcp_connections_total", &labels) == 1.0);
        assert_eq!(sidecar.metric("pillion_tcp_connections_opened_total", &labels), 1.0);
        assert_eq!(sidecar.metric("pillion_tcp_connection_duration_seconds_count", &labels), 1.0);
        assert!(sidecar.metric("pillion_tcp_bytes_total", &[("direction", direction), ("flow", "sent")]) > 100.0);
    }
    let labels = [("reporter", "source"), ("request_protocol", "tcp"), ("destination_service_name", "raw")];
    for name in ["istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total"] {
        assert_eq!(client.metric(name, &labels), 1.0, "{name}");
    }
    assert!(client.metric("istio_tcp_sent_bytes_total", &labels) > 100.0);
}

#[test]
fn calls_of_grpc_are_counted_with_their_status_and_messages() {
    let mesh = Mesh::start();
    let server = python_app(&mesh, "grpc_flaky.py", &[]);
    mesh.service("flaky", &[("grpc", 80, "grpc")]);
    let behind = mesh.workload(Workload::new("flaky").port("grpc", server.address));
    let client = mesh.workload(Workload::new("caller"));
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/grpc_call.py")).arg(client.outbound().to_string());
    command.args([
        "flaky.shop",
        "/flaky.Flaky/UNAVAILABLE-1",
        "/flaky.Flaky/UNAVAILABLE-1",
        "/flaky.Flaky/UNAVAILABLE-1",
    ]);
    run(&mut command);
    for (sidecar, direction) in [(&client, "outbound"), (&behind, "inbound")] {
        let count = |status| {
            sidecar.metric("pillion_grpc_requests_total", &[("direction", direction), ("grpc_status", status)])
        };
        until("calls are counted by their status", || (count("14"), count("0")) == (1.0, 2.0));
        let messages =
            |flow| sidecar.metric("pillion_grpc_messages_total", &[("direction", direction), ("flow", flow)]);
        assert_eq!((messages("request"), messages("response")), (3.0, 2.0), "{direction}");
    }
}
