//! Why requests went as they went, and `pillion explain`, which says it without them.

use std::fs;
use std::net::TcpListener;

use serde_json::Value;

use crate::support::{App, Curl, Mesh, Sidecar, Workload, curl, nginx, output, pillion, until};

const ROUTES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: orders, namespace: shop }
spec:
  parentRefs: [ { group: \"\", kind: Service, name: orders } ]
  rules:
  - name: old
    matches: [ { path: { type: PathPrefix, value: /old } } ]
    filters: [ { type: RequestRedirect, requestRedirect: { hostname: new.example } } ]
  - name: flaky
    matches: [ { path: { type: PathPrefix, value: /flaky } } ]
    backendRefs: [ { name: orders, port: 80 } ]
  - name: gone
    matches: [ { path: { type: PathPrefix, value: /gone } } ]
    backendRefs: [ { name: nowhere, port: 80 } ]
  - name: main
    matches: [ { path: { type: PathPrefix, value: /o } } ]
    backendRefs: [ { name: orders, port: 80 } ]
";
const POLICY: &str = "\
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: orders, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: orders } ]
  retries:
    on: [ 5xx ]
    attempts: 1
";

struct Stage {
    mesh: Mesh,
    server: Sidecar,
    client: Sidecar,
    _app: App,
}

fn stage() -> Stage {
    let mesh = Mesh::start();
    let app = nginx(&mesh, "location / { return 200 ok; } location /flaky { return 503; }");
    mesh.service("orders", &[("http", 80, "http")]);
    mesh.write("routes.yaml", ROUTES);
    mesh.write("policy.yaml", POLICY);
    let server = mesh.workload(Workload::new("orders").port("http", app.address));
    let client = mesh.workload(Workload::new("client"));
    Stage { mesh, server, client, _app: app }
}

fn ask(stage: &Stage, host: &str, path: &str, more: &[&str]) -> Curl {
    let (url, host) = (format!("http://{}{path}", stage.client.outbound()), format!("Host: {host}"));
    curl(&[&[url.as_str(), "-H", &host], more].concat())
}

/// The story of the request with this `x-request-id`, once it is there.
fn story(sidecar: &Sidecar, id: &str) -> Value {
    let mut found = Value::Null;
    until("the story is there", || {
        let told: Option<Value> = serde_json::from_str(&sidecar.admin_page(&format!("/explain?request={id}"))).ok();
        found = told.map(|told| told["requests"][0].clone()).unwrap_or_default();
        !found.is_null()
    });
    found
}

/// The first decision of a kind in a story.
fn decision<'a>(story: &'a Value, kind: &str) -> &'a Value {
    let all = story["decisions"].as_array().expect("decisions");
    all.iter().find(|told| told["decision"] == kind).unwrap_or_else(|| panic!("no {kind} in {story:#}"))
}

/// `FILE:LINE` of the first line of a document of the mesh that contains `words`.
fn line_of(mesh: &Mesh, file: &str, words: &str) -> String {
    let text = fs::read_to_string(mesh.config().join(file)).expect("a document");
    let at = text.lines().position(|line| line.contains(words)).unwrap_or_else(|| panic!("{words} in {text}"));
    format!("{file}:{}", at + 1)
}

#[test]
fn a_routed_request_names_its_rule_and_the_next_also_after_lines_have_moved() {
    let stage = stage();
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let trace = format!("traceparent: 00-{TRACE}-b7ad6b7169203331-01");
    assert_eq!(ask(&stage, "orders.shop", "/o/7?secret=1", &["-H", &trace, "-H", "X-Request-Id: one"]).status, 200);
    let of_trace: Value = serde_json::from_str(&stage.client.admin_page(&format!("/explain?trace={TRACE}"))).unwrap();
    let told = story(&stage.client, "one");
    assert_eq!(of_trace["requests"][0]["request_id"], "one");
    let route = decision(&told, "route");
    assert_eq!((&route["code"], &route["object"]), (&"route_matched".into(), &"HTTPRoute shop/orders".into()));
    assert_eq!(route["line"], line_of(&stage.mesh, "routes.yaml", "- name: main"));
    assert_eq!((&told["path"], &told["response_code"]), (&"/o/7".into(), &200.into()), "no query");
    assert_eq!(decision(&told, "endpoint")["code"], "endpoint_picked");
    assert_eq!(decision(&told, "outcome")["code"], "answered");
    let inbound = story(&stage.server, "one");
    assert_eq!(decision(&inbound, "route")["object"], "Workload shop/orders");
    assert_eq!(inbound["trace_id"], TRACE);

    // Lines move, and nothing else: the next story has the new ones, and no cluster was sent for it.
    let clusters = || stage.client.metric("pillion_xds_resources_total", &[("type", "cluster")]);
    let before = clusters();
    assert!(before > 0.0);
    stage.mesh.edit("routes.yaml", "spec:\n", "# Moved.\n# Twice.\nspec:\n");
    let moved = line_of(&stage.mesh, "routes.yaml", "- name: main");
    let mut number = 0;
    until("the new line is told", || {
        number += 1;
        let id = format!("moved-{number}");
        ask(&stage, "orders.shop", "/o/8", &["-H", &format!("X-Request-Id: {id}")]);
        decision(&story(&stage.client, &id), "route")["line"] == moved
    });
    assert_eq!(clusters(), before);

    // What would have matched next.
    let shadow = "  - name: shadow\n    matches: [ { path: { type: PathPrefix, value: / } } ]\n    \
                  backendRefs: [ { name: orders, port: 80 } ]\n";
    stage.mesh.write("routes.yaml", &format!("{ROUTES}{shadow}"));
    until("the runner-up is told", || {
        number += 1;
        let id = format!("next-{number}");
        ask(&stage, "orders.shop", "/o/9", &["-H", &format!("X-Request-Id: {id}")]);
        let told = story(&stage.client, &id);
        let next = &decision(&told, "route")["runner_up"];
        next["route"] == "HTTPRoute/shop/orders/shadow"
            && next["line"] == line_of(&stage.mesh, "routes.yaml", "- name: shadow")
    });
}

#[test]
fn a_retried_request_and_one_that_is_refused_name_their_policies() {
    let stage = stage();
    assert_eq!(ask(&stage, "orders.shop", "/flaky", &["-H", "X-Request-Id: flaky"]).status, 503);
    let told = story(&stage.client, "flaky");
    let (retried, outcome) = (decision(&told, "retried"), decision(&told, "outcome"));
    let line = line_of(&stage.mesh, "policy.yaml", "retries:");
    assert_eq!((&retried["object"], &retried["line"]), (&"TrafficPolicy shop/orders".into(), &line.as_str().into()));
    assert_eq!((&outcome["code"], &outcome["line"]), (&"retries_exhausted".into(), &line.as_str().into()));
    assert_eq!((&told["attempts"], &told["response_flags"]), (&2.into(), &"URX".into()));

    stage.mesh.edit(
        "policy.yaml",
        "  retries:",
        "  # One an hour.\n  rateLimits:\n  - { name: few, requests: 1, per: 1h }\n  retries:",
    );
    until("the limit is used up", || ask(&stage, "orders.shop", "/o", &["-H", "X-Request-Id: limited"]).status == 429);
    let caller = story(&stage.client, "limited");
    assert_eq!(caller["reason"], "peer_sidecar", "failures come first");
    let server = story(&stage.server, "limited");
    let outcome = decision(&server, "outcome");
    assert_eq!(outcome["code"], "rate_limited");
    assert_eq!(outcome["object"], "TrafficPolicy shop/orders");
    assert_eq!(outcome["line"], line_of(&stage.mesh, "policy.yaml", "rateLimits:"));
    assert_eq!(outcome["runner_up"], "without that it had gone to the application");
    assert_eq!(outcome["page"], "docs/reasons.md#rate_limited");

    // Plaintext from outside at a strict port.
    let url = format!("http://{}/", stage.server.front("http"));
    assert_eq!(curl(&[&url, "-H", "X-Request-Id: outside"]).reason(), "plaintext_refused");
    let denied = story(&stage.server, "outside");
    let outcome = decision(&denied, "outcome");
    assert_eq!((&outcome["code"], &outcome["object"]), (&"plaintext_refused".into(), &"Workload shop/orders".into()));
    assert_eq!(outcome["line"], line_of(&stage.mesh, "workload-orders.yaml", "- { name: http"));

    let page = |query: &str| stage.server.admin_page(&format!("/explain?{query}"));
    let all: Value = serde_json::from_str(&page("limit=2")).unwrap();
    assert_eq!(all["requests"].as_array().map(Vec::len), Some(2));
    assert_eq!(all["requests"][0]["reason"], "plaintext_refused");
    assert!(page("trace=nonsense").contains("is no trace id") && page("request=none").contains("no such request"));
}

#[test]
fn a_request_that_falls_back_names_the_policy_and_what_it_came_from() {
    let stage = stage();
    stage.mesh.service("main", &[("http", 80, "http")]);
    let spec = "spec:\n  targetRefs: [ { kind: Service, name: main } ]\n  fallback: { backends: [ { name: orders, port: 80 } ] }\n";
    stage.mesh.write(
        "fallback.yaml",
        &format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: main, namespace: shop }}\n{spec}"
        ),
    );
    let mut number = 0;
    until("the other backend answers", || {
        number += 1;
        ask(&stage, "main.shop", "/", &["-H", &format!("X-Request-Id: fell-{number}")]).status == 200
    });
    let told = story(&stage.client, &format!("fell-{number}"));
    let fell = decision(&told, "fell_back");
    assert_eq!(fell["line"], line_of(&stage.mesh, "fallback.yaml", "fallback:"));
    assert_eq!(
        (&fell["object"], &fell["cause"]["code"]),
        (&"TrafficPolicy shop/main".into(), &"no_healthy_upstream".into())
    );
    let sentence = told["sentence"].as_str().expect("a sentence");
    assert!(sentence.contains("orders.shop:80") && sentence.contains("answered 200"), "{sentence}");
}

#[test]
fn a_tcp_connection_has_a_story_and_a_line_too() {
    let mesh = Mesh::start();
    let echo = nginx(&mesh, "location / { return 200 bytes; }");
    mesh.service("ledger", &[("tcp", 7000, "tcp")]);
    let _server = mesh.workload(Workload::new("ledger").port("tcp", echo.address));
    let format = "%PROTOCOL%|%RESPONSE_CODE%|%UPSTREAM_CLUSTER%|%PILLION(direction)%|%DOWNSTREAM_PEER_URI_SAN%";
    let client = mesh.workload(Workload::new("client").tcp("ledger.shop:7000").setting("access_log_format", format));
    let said = curl(&[&format!("http://{}/", client.tcp("ledger.shop:7000")), "-H", "Connection: close"]);
    assert_eq!(said.text(), "bytes");
    let mut told = Value::Null;
    until("the story is there", || {
        let all: Value = serde_json::from_str(&client.admin_page("/explain")).expect("JSON");
        told = all["requests"][0].clone();
        !told.is_null()
    });
    let route = decision(&told, "route");
    assert_eq!((&told["method"], &route["object"]), (&"TCP".into(), &"Service shop/ledger".into()));
    assert_eq!(route["line"], line_of(&mesh, "service-ledger.yaml", "- { name: tcp"));
    until("the line is there", || client.process.log().lines().any(|line| line == "TCP|0|ledger.shop:7000|outbound|-"));
}

#[test]
fn who_is_named_is_who_was_picked_also_after_another_failed() {
    let mesh = Mesh::start();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let app = nginx(&mesh, "location / { return 200 ok; }");
    mesh.service("halved", &[("http", 80, "http")]);
    mesh.service("lost", &[("tcp", 7000, "tcp")]);
    let labelled = |name: &str| Workload::new(name).app("halved");
    let _servers = [
        mesh.workload(labelled("halved-1").port("http", app.address)),
        mesh.workload(labelled("halved-2").port("http", nobody)),
        mesh.workload(Workload::new("lost").port("tcp", nobody)),
    ];
    let client = mesh.workload(Workload::new("client").tcp("lost.shop:7000"));
    let mut told = Value::Null;
    let mut number = 0;
    until("a request met the one that is lost first", || {
        number += 1;
        let (url, id) = (format!("http://{}/", client.outbound()), format!("X-Request-Id: r-{number}"));
        let is_served = curl(&[&url, "-H", "Host: halved.shop", "-H", &id]).status == 200;
        told = if is_served { story(&client, &format!("r-{number}")) } else { Value::Null };
        told["attempts"] == 2
    });
    let endpoint = decision(&told, "endpoint");
    let sentence = endpoint["sentence"].as_str().expect("a sentence");
    assert!(sentence.contains("picked") && endpoint["runner_up"].is_null(), "there was no other left: {endpoint}");
    decision(&told, "another_host");

    curl(&[&format!("http://{}/", client.tcp("lost.shop:7000"))]);
    until("the story is there", || {
        let all: Value = serde_json::from_str(&client.admin_page("/explain?limit=100")).expect("JSON");
        let all = all["requests"].as_array().cloned().unwrap_or_default();
        told = all.into_iter().find(|told| told["method"] == "TCP").unwrap_or_default();
        !told.is_null()
    });
    let steps = told["decisions"].as_array().expect("decisions");
    assert!(steps.iter().all(|step| step["decision"] != "another_host"), "there is no other: {told:#}");
}

#[test]
fn the_command_says_beforehand_what_traffic_then_does() {
    let stage = stage();
    stage.mesh.service("empty", &[("http", 80, "http")]);
    let explain = |from: &str, to: &str, path: &str| -> (i32, Value) {
        let mut command = pillion();
        command.args(["explain", "--from", from, "--to", to, "GET", path]).arg(stage.mesh.config());
        let said = output(command.args(["--output", "json"]));
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let told = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text} {}", String::from_utf8_lossy(&said.stderr)));
        (said.status.code().unwrap_or(-1), told)
    };
    for (number, (host, path)) in [
        ("orders.shop", "/o/1?x=y"),
        ("orders.shop", "/old"),
        ("orders.shop", "/gone/1"),
        ("orders.shop", "/nothing"),
        ("empty.shop", "/"),
        ("nobody.shop", "/"),
    ]
    .into_iter()
    .enumerate()
    {
        let (exit, told) = explain("client", host, path);
        let id = format!("said-{number}");
        let answer = ask(&stage, host, path, &["-H", &format!("X-Request-Id: {id}")]);
        let really = story(&stage.client, &id);
        assert_eq!(told["reason"], really["reason"], "{path}: {told:#} {really:#}");
        assert_eq!(exit == 0, answer.status == 200, "{path}");
        if let Some(route) = told["route"]["origin"]["line"].as_str() {
            assert_eq!(decision(&really, "route")["line"], route, "{path}");
        }
    }
    let (_, told) = explain("shop/client", "orders.shop:80", "/o");
    let other = told["others"].as_array().unwrap().iter().find(|other| other["name"] == "HTTPRoute/shop/orders/old");
    assert_eq!(other.unwrap()["mismatch"], "the path is neither /old nor below it");
    assert_eq!(told["policies"]["retries"]["line"], line_of(&stage.mesh, "policy.yaml", "retries:"));
    assert_eq!(told["policies"]["retries"]["text"], "retries: on: [ 5xx ] attempts: 1");
    assert_eq!(told["servers"][0]["workload"], "shop/orders");
    let (exit, told) = explain("outside", "orders.shop", "/o");
    assert_eq!((exit, &told["reason"]), (1, &"plaintext_refused".into()));

    let text =
        output(pillion().args(["explain", "--from", "client", "GET", "http://orders.shop/o"]).arg(stage.mesh.config()));
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("route     HTTPRoute/shop/orders/main by HTTPRoute shop/orders spec.rules[3]"), "{text}");
    assert!(text.contains("outcome   answered"), "{text}");
    let config = stage.mesh.config();
    let named = ["explain", "--from", "client", "GET", "http://orders.shop/o", "--trust-domain", "other.example"];
    let text = output(pillion().args(named).arg(&config).args(["--output", "json"]));
    let told: Value = serde_json::from_slice(&text.stdout).unwrap();
    let identity = told["backends"][0]["endpoints"][0]["identity"].as_str().unwrap();
    assert!(identity.starts_with("spiffe://other.example/"), "{told:#}");
    // Without a folder: the one that the control plane reads; without --to: the one that the URL names.
    let admin = stage.mesh.admin_address().to_string();
    let named = ["explain", "--from", "client", "GET", "http://orders.shop/o", "--control-plane-admin", &admin];
    let text = output(pillion().args(named));
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let folder = config.canonicalize().unwrap();
    let first = format!("documents of the mesh at {admin}: {}\n", folder.display());
    assert!(text.starts_with(&first) && text.contains("outcome   answered"), "{text}");
    let page = output(pillion().args(["explain", "plaintext_refused"]));
    assert!(String::from_utf8_lossy(&page.stdout).starts_with("### plaintext_refused\n"));
    assert_eq!(output(pillion().args(["explain", "no_such_code"])).status.code(), Some(2));
}
