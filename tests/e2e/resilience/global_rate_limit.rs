//! `globalRateLimit`: a rate-limit service that counts for several sidecars, and what becomes of requests without it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{logged, says};
use crate::support::{App, Curl, Mesh, Sidecar, Workload, curl, in_workspace, nginx, python, python_app, run, until};

/// A service `api` of two workloads, sidecars of two callers, and a rate-limit service `limits` in the mesh.
struct Stage {
    mesh: Mesh,
    api: [Sidecar; 2],
    callers: [Sidecar; 2],
    limits: App,
    at: SocketAddr,
    limits_sidecar: Sidecar,
    _application: App,
}

impl Stage {
    /// The service lets so many requests of each descriptor pass in an hour.
    fn open(limit: u32) -> Self {
        let mesh = Mesh::start();
        mesh.service("api", &[("web", 80, "")]);
        mesh.service("limits", &[("grpc", 8081, "grpc")]);
        let at = mesh.free_address();
        let limits = service(&mesh, limit, at);
        let limits_sidecar = mesh.workload(Workload::new("limits").port("grpc", at));
        let application = nginx(&mesh, "    location / { return 200 \"$http_x_counted\\n\"; }");
        let kept = mesh.scratch().join("kept").display().to_string();
        let api = ["api-1", "api-2"].map(|name| {
            let workload = Workload::new(name).app("api").port("web", application.address);
            mesh.workload(workload.setting("state", kept.clone()))
        });
        let callers = ["red", "blue"].map(|name| mesh.workload(Workload::new(name)));
        Self { mesh, api, callers, limits, at, limits_sidecar, _application: application }
    }

    /// Limits `target` by `rest` of the section, and waits until these sidecars do.
    fn limit_at(&self, target: &str, rest: &str, sidecars: &[&Sidecar]) {
        self.mesh.write(
            &format!("policy-{target}.yaml"),
            &format!(
                "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: {target}, namespace: shop }}\n\
                 spec:\n  targetRefs: [ {{ kind: Service, name: {target} }} ]\n  \
                 globalRateLimit: {{ service: {{ name: limits, port: 8081 }}, {rest} }}\n"
            ),
        );
        let domain = rest.split("domain: ").nth(1).and_then(|rest| rest.split([',', ' ']).next()).expect("a domain");
        until("the limit is in force", || sidecars.iter().all(|sidecar| in_force(sidecar)["domain"] == domain));
    }

    fn limit(&self, rest: &str) {
        self.limit_at("api", rest, &[&self.api[0], &self.api[1]]);
    }

    fn call(&self, caller: usize, arguments: &[&str]) -> Curl {
        self.call_at(caller, "/", arguments)
    }

    fn call_at(&self, caller: usize, path: &str, arguments: &[&str]) -> Curl {
        let url = format!("http://{}{path}", self.callers[caller].outbound());
        curl(&[&[&url, "-H", "Host: api.shop"], arguments].concat())
    }

    /// Questions of both sidecars that ended so.
    fn asked(&self, result: &str, reason: &str) -> f64 {
        let labels = [("cluster", "limits.shop:8081"), ("result", result), ("reason", reason)];
        self.api.iter().map(|sidecar| sidecar.metric("pillion_global_rate_limit_total", &labels)).sum()
    }

    /// What the service was asked.
    fn questions(&self) -> Vec<Value> {
        let all = self.limits.process.stdout();
        let said = all.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        said.filter(|said| said["event"] == "asked").collect()
    }
}

fn service(mesh: &Mesh, limit: u32, at: SocketAddr) -> App {
    python_app(mesh, "rate_limit_service.py", &[&limit.to_string(), &at.port().to_string()])
}

/// What a sidecar asks about requests to its first port.
fn in_force(sidecar: &Sidecar) -> Value {
    let dump: Value = serde_json::from_str(&sidecar.admin_page("/config_dump")).expect("JSON");
    dump["inbound"][0]["global_rate_limit"].clone()
}

const GRPC: [&str; 6] = ["-H", "content-type: application/grpc", "-X", "POST", "-d", ""];

#[test]
fn two_sidecars_count_as_one_and_callers_are_told() {
    let stage = Stage::open(5);
    assert_eq!((stage.call(0, &[]).status, stage.call(1, &[]).status), (200, 200));
    stage.limit("domain: shop, timeout: 10s, onFailure: deny, headers: true, descriptors: [ { entries: [ { type: caller } ] } ]");
    let answers: Vec<Curl> = (0..12).map(|_| stage.call(0, &[])).collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [&[200; 5][..], &[429; 7]].concat(), "{answers:?}");
    for (at, sidecar) in stage.api.iter().enumerate() {
        let ok = sidecar.metric("pillion_global_rate_limit_total", &[("result", "ok")]);
        assert!((1.0..5.0).contains(&ok), "sidecar {at} let {ok} pass: neither may have counted alone");
    }
    assert_eq!((stage.asked("ok", ""), stage.asked("over_limit", "")), (5.0, 7.0));

    let first = &answers[0];
    assert_eq!((first.text().trim(), first.header("x-counted-by")), ("yes", Some("the service")), "{first:?}");
    assert_eq!(first.header("x-ratelimit-limit"), Some("5, 5;w=3600;name=\"of-caller\""), "{first:?}");
    assert_eq!(first.header("x-ratelimit-remaining"), Some("4"));
    let refused = &answers[11];
    let wait: u64 = refused.header("retry-after").expect("retry-after").parse().expect("seconds");
    assert!((3000..=3600).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit"), Some(format!("\"of-caller\";r=0;t={wait}").as_str()));
    assert_eq!((refused.header("x-envoy-ratelimited"), refused.reason()), (Some("true"), "over_limit"), "{refused:?}");
    assert_eq!(
        (refused.header("x-limited-by"), refused.header("x-ratelimit-remaining")),
        (Some("the service"), Some("0"))
    );

    let refused = stage.call(0, &GRPC);
    assert_eq!((refused.status, refused.header("grpc-status")), (200, Some("8")), "{refused:?}");
    assert!(refused.header("grpc-retry-pushback-ms").is_some(), "{refused:?}");
    let others: Vec<u16> = (0..6).map(|_| stage.call(1, &[]).status).collect();
    assert_eq!(others, [200, 200, 200, 200, 200, 429], "the other caller has its own");

    let asked = stage.questions();
    let red = json!([[["caller", "spiffe://cluster.local/ns/shop/sa/red"]]]);
    assert_eq!((&asked[0]["domain"], &asked[0]["descriptors"]), (&json!("shop"), &red), "{asked:?}");
    assert!(asked[0]["left"].as_f64().is_some_and(|left| left <= 10.0), "the service knows how long it has: {asked:?}");
    let peer = asked[0]["peer"].as_str().expect("the service's sidecar says who asks");
    assert!(peer.contains("URI=spiffe://cluster.local/ns/shop/sa/api"), "with mutual TLS: {peer}");
    let _found = stage.call_at(0, "/logged", &[]);
    until("the access log says it", || {
        let mut lines = stage.api.iter().flat_map(Sidecar::access_log);
        lines.any(|line| line["path"] == "/logged" && line["reason"] == "over_limit" && line["response_flags"] == "RL")
    });
}

/// Python's grpcio, as client, as application and as rate-limit service.
#[test]
fn grpc_calls_are_limited_by_caller_and_method() {
    let mesh = Mesh::start();
    mesh.service("greeter", &[("grpc", 50051, "grpc")]);
    mesh.service("limits", &[("grpc", 8081, "grpc")]);
    let limits = python_app(&mesh, "rate_limit_service.py", &["2"]);
    let _limits_sidecar = mesh.workload(Workload::new("limits").port("grpc", limits.address));
    let application = python_app(&mesh, "greeter.py", &["one"]);
    let server = mesh.workload(Workload::new("greeter").port("grpc", application.address));
    let client = mesh.workload(Workload::new("client"));
    super::policy(
        &mesh,
        "greeter",
        "globalRateLimit: { service: { name: limits, port: 8081 }, domain: grpc, timeout: 10s, onFailure: deny, \
         descriptors: [ { entries: [ { type: caller }, { type: path } ] } ] }",
    );
    until("the limit is in force", || in_force(&server)["domain"] == "grpc");
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/grpc_call.py")).arg(client.outbound().to_string());
    command.arg("greeter.shop:50051").args(["/shop.Greeter/Hello"; 4]).arg("/shop.Greeter/Other");
    let said: Vec<Value> = run(&mut command).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let codes: Vec<&str> = said.iter().filter_map(|said| said["code"].as_str()).collect();
    assert_eq!(codes, ["OK", "OK", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"], "{said:?}");
    assert_eq!(said[2]["fields"]["x-limited-by"], "the service", "{said:?}");
}

#[test]
fn a_request_is_asked_about_by_all_that_it_has_and_otherwise_not_at_all() {
    let stage = Stage::open(2);
    stage.limit(
        "domain: keys, timeout: 10s, onFailure: deny, descriptors: [ { entries: [ { type: header, header: X-Key }, \
         { type: path }, { type: method, key: verb } ] }, { entries: [ { type: fixed, key: allow, value: x }, \
         { type: header, header: X-Other, key: other } ] }, \
         { entries: [ { type: header, header: X-Own } ], limit: { requests: 6, per: hour }, hits: 3 } ]",
    );
    assert_eq!(stage.call(0, &[]).status, 200);
    assert_eq!(stage.questions(), [] as [Value; 0], "nothing to ask");
    let with = |path: &str, field: &str| stage.call_at(0, path, &["-H", field]).status;
    assert_eq!([with("/a?x", "x-key: 1"), with("/a?y", "x-key: 1"), with("/a", "x-key: 1")], [200, 200, 429]);
    assert_eq!([with("/b", "x-key: 1"), with("/a", "x-key: 2")], [200, 200]);
    assert_eq!(stage.questions()[0]["descriptors"], json!([[["x-key", "1"], ["path", "/a"], ["verb", "GET"]]]));
    assert_eq!([with("/a", "x-own: 1"), with("/a", "x-own: 1"), with("/a", "x-own: 1")], [200, 200, 429]);
    let both = stage.call_at(0, "/c", &["-H", "x-key: 3", "-H", "x-other: z"]);
    assert_eq!(both.status, 200, "{both:?}");
    let asked = stage.questions();
    let last = &asked.last().expect("asked")["descriptors"];
    assert_eq!(*last, json!([[["x-key", "3"], ["path", "/c"], ["verb", "GET"]], [["allow", "x"], ["other", "z"]]]));
    assert_eq!(stage.asked("ok", "") + stage.asked("over_limit", ""), asked.len() as f64);
}

#[test]
fn without_the_service_requests_pass_or_fail_as_the_policy_says() {
    let mut stage = Stage::open(1_000_000);
    let keys = "descriptors: [ { entries: [ { type: caller } ] } ]";
    stage.limit(&format!("domain: open, timeout: 5s, {keys}"));
    assert_eq!((stage.call(0, &[]).text().trim(), stage.asked("ok", "")), ("yes", 1.0));
    stage.limits.process.kill();
    for _ in 0..6 {
        let answer = stage.call(0, &[]);
        assert_eq!((answer.status, answer.text().trim()), (200, ""), "{answer:?}");
    }
    assert_eq!(stage.asked("failure_mode_allowed", ""), 6.0);

    stage.limit(&format!("domain: closed, timeout: 5s, onFailure: deny, {keys}"));
    let refused = stage.call_at(0, "/denied", &[]);
    assert_eq!((refused.status, refused.reason()), (500, "rate_limit_service"), "{refused:?}");
    let refused = stage.call(0, &GRPC);
    assert_eq!((refused.status, refused.header("grpc-status")), (200, Some("2")), "{refused:?}");
    let logs = || stage.api.iter().flat_map(Sidecar::access_log).any(|line| line["path"] == "/denied");
    until("the access log has it", logs);
    let at = stage.api.iter().find(|sidecar| sidecar.access_log().iter().any(|line| line["path"] == "/denied"));
    assert_eq!(logged(at.expect("one of them"), "/denied"), says("rate_limit_service", "RLSE"));

    stage.limits = service(&stage.mesh, 1_000_000, stage.at);
    until("the service is asked again", || stage.call(0, &[]).status == 200);
    assert_eq!(stage.call(0, &[]).text().trim(), "yes");
    stage.mesh.remove("policy-api.yaml");
    until("nobody is asked", || stage.api.iter().all(|sidecar| in_force(sidecar) == Value::Null));
    assert_eq!((stage.call(0, &[]).status, stage.call(0, &[]).text().trim()), (200, ""));
}

#[test]
fn a_service_that_hangs_costs_each_request_the_timeout_once() {
    let stage = Stage::open(3);
    stage.limit("domain: slow, timeout: 300ms, descriptors: [ { entries: [ { type: path } ] } ]");
    until("the service is asked", || stage.call_at(0, "/first", &[]).text().trim() == "yes");
    stage.limits.process.signal(Signal::SIGSTOP);
    let ways: Vec<String> = (0..40).map(|_| format!("http://{}/hung", stage.callers[0].outbound())).collect();
    let began = Instant::now();
    let calls: Vec<_> =
        ways.into_iter().map(|url| std::thread::spawn(move || curl(&[&url, "-H", "Host: api.shop"]))).collect();
    let answers: Vec<Curl> = calls.into_iter().map(|call| call.join().expect("no panic")).collect();
    let took = began.elapsed();
    assert!(answers.iter().all(|answer| (answer.status, answer.text().trim()) == (200, "")), "{answers:?}");
    assert!(took >= Duration::from_millis(290), "{took:?}");
    // One after the other, or with repetitions, it would be 12 seconds and more.
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(stage.asked("error", "timeout") >= 40.0 && stage.asked("failure_mode_allowed", "") >= 40.0);

    // A limit on what is under way at the service is kept, and who finds no place does not wait for one.
    super::policy(&stage.mesh, "limits", "limits: { requests: 1 }");
    until("the service's own limit is in force", || {
        stage.api.iter().all(|sidecar| {
            let page: Value = serde_json::from_str(&sidecar.admin_page("/clusters")).expect("JSON");
            page["limits.shop:8081"]["limits"]["requests"]["most"] == 1
        })
    });
    let calls: Vec<_> = (0..20)
        .map(|_| format!("http://{}/full", stage.callers[1].outbound()))
        .map(|url| std::thread::spawn(move || curl(&[&url, "-H", "Host: api.shop"]).status))
        .collect();
    assert!(calls.into_iter().all(|call| call.join().expect("no panic") == 200));
    assert!(stage.asked("error", "overflow") >= 1.0, "{}", stage.api[0].admin_page("/metrics"));
    stage.mesh.remove("policy-limits.yaml");
    stage.limits.process.signal(Signal::SIGCONT);
    until("the limit holds again", || stage.call_at(0, "/again", &[]).status == 429);
}

#[test]
fn limits_that_come_change_and_go_under_load_and_a_service_that_dies_fail_no_request() {
    let mut stage = Stage::open(1_000_000);
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = stage
        .callers
        .iter()
        .map(|caller| {
            let (stop, url) = (Arc::clone(&stop), format!("http://{}/", caller.outbound()));
            std::thread::spawn(move || {
                let mut statuses = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    statuses.push(curl(&[&url, "-H", "Host: api.shop"]).status);
                }
                statuses
            })
        })
        .collect();
    for round in 0..4 {
        let kind = if round % 2 == 0 { "caller" } else { "path" };
        let rest = format!(
            "domain: d{round}, timeout: 10s, onFailure: deny, descriptors: [ {{ entries: [ {{ type: {kind} }} ] }} ]"
        );
        stage.limit(&rest);
        let before = stage.asked("ok", "");
        until("it is asked", || stage.asked("ok", "") >= before + 5.0);
        if round == 2 {
            stage.mesh.remove("policy-api.yaml");
            until("nobody is asked", || stage.api.iter().all(|sidecar| in_force(sidecar) == Value::Null));
        }
    }
    stage.limit("domain: last, timeout: 5s, descriptors: [ { entries: [ { type: caller } ] } ]");
    stage.limits.process.kill();
    until("nobody answers any more", || stage.asked("failure_mode_allowed", "") >= 5.0);
    stop.store(true, Ordering::Relaxed);
    let statuses: Vec<u16> = load.into_iter().flat_map(|load| load.join().expect("no panic")).collect();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let asked = stage.questions();
    for domain in ["d0", "d1", "d2", "d3"] {
        assert!(asked.iter().any(|question| question["domain"] == domain), "{domain}");
    }
}

#[test]
fn a_sidecar_that_restarts_without_the_control_plane_still_asks() {
    let stage = Stage::open(2);
    stage.limit("domain: kept, timeout: 10s, onFailure: deny, descriptors: [ { entries: [ { type: caller } ] } ]");
    assert_eq!(stage.call(0, &[]).status, 200);
    until("what both were told is on disk", || {
        // Listener, cluster and endpoints.
        let kept = texts(&stage.mesh.scratch().join("kept"));
        kept.iter().filter(|text| text.contains("limits.shop:8081")).count() == 6
    });
    stage.mesh.kill_control_plane();
    let Stage { mesh, api, callers, limits, at, limits_sidecar, _application } = stage;
    let api = api.map(|sidecar| sidecar.restart(&mesh));
    let stage = Stage { mesh, api, callers, limits, at, limits_sidecar, _application };
    assert!(stage.api.iter().all(|sidecar| in_force(sidecar)["domain"] == "kept"));
    let statuses: Vec<u16> = (0..4).map(|_| stage.call(0, &[]).status).collect();
    assert_eq!(statuses, [200, 429, 429, 429], "the first was before the restart");
}

/// No application asks the service: only sidecars do.
#[test]
fn a_rate_limit_service_is_checked_by_those_that_ask_it() {
    let stage = Stage::open(1_000_000);
    stage.mesh.write(
        "policy-limits.yaml",
        "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: { name: limits, namespace: shop }\n\
         spec:\n  targetRefs: [ { kind: Service, name: limits } ]\n  \
         healthChecks: { tcp: {}, interval: 50ms, timeout: 10s }\n",
    );
    stage.limit("domain: shop, timeout: 10s, onFailure: deny, descriptors: [ { entries: [ { type: caller } ] } ]");
    let passed = |sidecar: &Sidecar| {
        let labels = [("cluster", "limits.shop:8081"), ("event", "success")];
        sidecar.metric("pillion_health_check_events_total", &labels)
    };
    until("both check it", || stage.api.iter().all(|sidecar| passed(sidecar) >= 1.0));
}

/// What is in the files of a folder.
fn texts(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    entries.flat_map(|path| if path.is_dir() { texts(&path) } else { vec![text(&path)] }).collect()
}

/// A rate-limit service whose own port is limited by itself, under another name, would ask itself for ever.
#[test]
fn a_rate_limit_service_is_not_limited_by_one() {
    let stage = Stage::open(1_000_000);
    stage.mesh.service_for("alias", "limits", &[("grpc", 9, "grpc")]);
    let keys = "descriptors: [ { entries: [ { type: caller } ] } ]";
    stage.limit_at("alias", &format!("domain: itself, timeout: 10s, onFailure: deny, {keys}"), &[]);
    stage.limit(&format!("domain: shop, timeout: 10s, onFailure: deny, {keys}"));
    until("the control plane says so", || {
        stage.mesh.admin("/debug/config").contains("serves a rate-limit service: globalRateLimit has no effect on it")
    });
    assert_eq!(in_force(&stage.limits_sidecar), Value::Null);
    for _ in 0..5 {
        assert_eq!(stage.call(0, &[]).text().trim(), "yes");
    }
    let asked = stage.questions();
    assert_eq!(asked.len(), 5, "{asked:?}");
    assert!(asked.iter().all(|question| question["domain"] == "shop"), "{asked:?}");
}
