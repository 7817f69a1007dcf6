//! Routing per Gateway API: matches, precedence, weights, live edits, gRPC methods.

use super::{echoed, named, through};
use crate::support::{App, Mesh, Sidecar, Workload, in_workspace, python, python_app, run, until};

/// A service `shop.shop:80` and services of applications outside the mesh, to route between.
struct Shop {
    mesh: Mesh,
    client: Sidecar,
    _app: App,
}

impl Shop {
    fn new(app: &str, protocol: &str, names: &[&str]) -> Self {
        let mesh = Mesh::start();
        let mut app = python_app(&mesh, app, names);
        for name in names {
            mesh.service(name, &[("web", 80, protocol)]);
            mesh.outsider(Workload::new(name).port("web", named(&mut app, name)));
        }
        mesh.service_for("shop", names[0], &[("web", 80, protocol)]);
        let client = mesh.workload(Workload::new("client"));
        Self { mesh, client, _app: app }
    }

    /// Writes a route of `shop` with these rules, and waits until the sidecar follows it.
    fn route(&self, kind: &str, name: &str, metadata: &str, rules: &str) {
        self.mesh.write(
            &format!("{name}.yaml"),
            &format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
             metadata: {{ name: {name}, namespace: shop{metadata} }}\n\
             spec:\n  parentRefs: [ {{ group: \"\", kind: Service, name: shop }} ]\n  rules:\n{rules}"
            ),
        );
    }

    /// Which application answers this request; the status where none does.
    fn who(&self, path: &str, arguments: &[&str]) -> String {
        let response = through(self.client.outbound(), &format!("http://shop.shop{path}"), arguments);
        response.header("x-app").map_or_else(|| response.status.to_string(), str::to_owned)
    }

    fn until(&self, path: &str, who: &str) {
        until(&format!("{path} is answered by {who}"), || self.who(path, &[]) == who);
    }

    /// How many of `count` requests each of two applications answered, by the sidecar's own count of its clusters.
    fn share(&self, count: usize, cluster: &str) -> f64 {
        let answered = || self.client.metric("pillion_requests_total", &[("cluster", cluster), ("status", "200")]);
        let before = answered();
        let url = format!("http://shop.shop/?[1-{count}]");
        let last = through(self.client.outbound(), &url, &[]);
        assert_eq!((last.exit, last.status), (0, 200), "{last:?}");
        (answered() - before) / count as f64
    }
}

fn rule(matches: &str, backend: &str) -> String {
    format!("  - matches: [ {matches} ]\n    backendRefs: [ {{ name: {backend}, port: 80 }} ]\n")
}

#[test]
fn paths_match_exactly_by_segments_and_by_expression() {
    let shop = Shop::new("http1.py", "http", &["a", "b", "c"]);
    let rules = [
        rule("{ path: { type: Exact, value: /exact } }", "a"),
        rule("{ path: { type: PathPrefix, value: /pre/fix } }", "b"),
        rule("{ path: { type: RegularExpression, value: '/v[0-9]+/(x|y)' } }", "c"),
    ];
    shop.route("HTTPRoute", "paths", "", &rules.concat());
    shop.until("/exact", "a");
    for (path, who) in [
        ("/exact?query=1", "a"),
        ("/exact/", "404"),
        ("/exactly", "404"),
        ("/Exact", "404"),
        ("/pre/fix", "b"),
        ("/pre/fix/", "b"),
        ("/pre/fix/deeper", "b"),
        ("/pre/fixed", "404"),
        ("/pre", "404"),
        ("/v12/x", "c"),
        ("/v1/y?q", "c"),
        ("/v/x", "404"),
        ("/v1/x/more", "404"),
        ("/w/v1/x", "404"),
        ("/", "404"),
    ] {
        assert_eq!(shop.who(path, &[]), who, "{path}");
        assert_eq!(shop.who(path, &["--http2-prior-knowledge"]), who, "{path} in HTTP/2");
    }
}

#[test]
fn methods_headers_and_query_parameters_must_match_together() {
    let shop = Shop::new("http1.py", "http", &["a", "b", "c"]);
    let rules = [
        rule("{ method: POST }", "a"),
        rule(
            "{ headers: [ { name: X-Env, value: canary }, { name: x-user, type: RegularExpression, value: '[a-m].*' } ] }",
            "b",
        ),
        rule("{ queryParams: [ { name: v, value: '2' } ] }, { queryParams: [ { name: v, value: 'a b' } ] }", "c"),
    ];
    shop.route("HTTPRoute", "parts", "", &rules.concat());
    shop.until("/?v=2", "c");
    for (path, arguments, who) in [
        ("/", &["-d", "x"][..], "a"),
        ("/", &["--request", "PUT"], "404"),
        ("/", &["-H", "X-ENV: canary", "-H", "X-User: bob"], "b"),
        ("/", &["-H", "X-Env: canary", "-H", "X-User: zoe"], "404"),
        ("/", &["-H", "X-Env: canary"], "404"),
        ("/", &["-H", "X-Env: Canary", "-H", "X-User: bob"], "404"),
        ("/?a=1&v=2", &[], "c"),
        ("/?v=a+b", &[], "c"),
        ("/?v=a%20b", &[], "c"),
        ("/?v=1&v=2", &[], "404"),
        ("/?V=2", &[], "404"),
    ] {
        assert_eq!(shop.who(path, arguments), who, "{path} {arguments:?}");
    }
}

#[test]
fn the_most_specific_match_wins_whatever_the_order() {
    let names = ["root", "short", "long", "exact", "method", "headers", "header", "query"];
    let shop = Shop::new("http1.py", "http", &names);
    // Gateway API, HTTPRouteRule.matches: exact, longest prefix, method, most headers, most query parameters.
    let rules = [
        rule("{ path: { type: PathPrefix, value: / } }", "root"),
        rule("{ path: { type: PathPrefix, value: / }, queryParams: [ { name: q, value: '1' } ] }", "query"),
        rule("{ path: { type: PathPrefix, value: / }, headers: [ { name: a, value: '1' } ] }", "header"),
        rule(
            "{ path: { type: PathPrefix, value: / }, headers: [ { name: a, value: '1' }, { name: b, value: '1' } ] }",
            "headers",
        ),
        rule("{ path: { type: PathPrefix, value: / }, method: DELETE }", "method"),
        rule("{ path: { type: PathPrefix, value: /one } }", "short"),
        rule("{ path: { type: PathPrefix, value: /one/two } }", "long"),
        rule("{ path: { type: Exact, value: /one/two } }", "exact"),
    ];
    shop.route("HTTPRoute", "order", "", &rules.concat());
    shop.until("/one/two", "exact");
    let all = ["-H", "a: 1", "-H", "b: 1", "--request", "DELETE"];
    for (path, arguments, who) in [
        ("/one/two/three", &all[..], "long"),
        ("/one/three", &all, "short"),
        ("/?q=1", &all, "method"),
        ("/?q=1", &all[..4], "headers"),
        ("/?q=1", &all[..2], "header"),
        ("/?q=1", &[], "query"),
        ("/", &[], "root"),
    ] {
        assert_eq!(shop.who(path, arguments), who, "{path} {arguments:?}");
    }
}

#[test]
fn of_equal_matches_the_older_route_wins_then_the_first_by_name() {
    let shop = Shop::new("http1.py", "http", &["a", "b", "c"]);
    let any = "{ path: { type: PathPrefix, value: / } }";
    shop.route("HTTPRoute", "zz", ", creationTimestamp: \"2024-01-01T00:00:00Z\"", &rule(any, "a"));
    shop.until("/", "a");
    shop.route("HTTPRoute", "aa", ", creationTimestamp: \"2025-01-01T00:00:00Z\"", &rule(any, "b"));
    shop.route("HTTPRoute", "mm", "", &[rule(any, "c"), rule("{ path: { type: Exact, value: /seen } }", "c")].concat());
    shop.until("/seen", "c");
    assert_eq!(shop.who("/", &[]), "a");
    shop.mesh.remove("zz.yaml");
    shop.until("/", "b");
    shop.mesh.remove("aa.yaml");
    shop.until("/", "c");
}

#[test]
fn weights_share_the_traffic_and_an_edit_is_followed_while_requests_run() {
    let shop = Shop::new("http1.py", "http", &["a", "b"]);
    let split = |a: u32, b: u32| {
        let rules = format!(
            "  - backendRefs: [ {{ name: a, port: 80, weight: {a} }}, {{ name: b, port: 80, weight: {b} }} ]\n"
        );
        shop.route("HTTPRoute", "split", "", &rules);
    };
    split(0, 1);
    shop.until("/", "b");
    assert_eq!(shop.share(50, "b.shop:80"), 1.0, "a weight of zero gets nothing");
    split(9, 1);
    until("the new split is in force", || shop.who("/", &[]) == "a");
    // Binomial: 800 draws at 0.1 lie within 0.04 of it but once in ten thousand times.
    let share = shop.share(800, "b.shop:80");
    assert!((share - 0.1).abs() < 0.045, "a tenth, not {share}");
    split(1, 1);
    until("half of it goes to b", || shop.share(100, "b.shop:80") > 0.3);
    let share = shop.share(800, "b.shop:80");
    assert!((share - 0.5).abs() < 0.075, "a half, not {share}");
    shop.mesh.remove("split.yaml");
    until("without a route the service's own hosts answer", || shop.share(20, "shop.shop:80") == 1.0);
}

#[test]
fn a_share_of_the_traffic_for_a_missing_backend_fails_and_the_rest_does_not() {
    let shop = Shop::new("http1.py", "http", &["a"]);
    shop.route("HTTPRoute", "half", "", "  - backendRefs: [ { name: a, port: 80 }, { name: nobody, port: 80 } ]\n");
    until("some fail", || shop.who("/", &[]) == "500");
    until("some do not", || shop.who("/", &[]) == "a");
    let response = through(shop.client.outbound(), "http://shop.shop/?[1-20]", &[]);
    assert!([200, 500].contains(&response.status), "{response:?}");
}

#[test]
fn the_access_log_names_the_route_and_the_cluster() {
    let shop = Shop::new("http1.py", "http", &["a", "b"]);
    shop.route("HTTPRoute", "named", "", &rule("{ path: { type: Exact, value: /seen } }", "b"));
    shop.until("/seen", "b");
    until("the log has it", || {
        shop.client.access_log().iter().any(|line| {
            line["route_name"] == "HTTPRoute/shop/named/0"
                && line["upstream_cluster"] == "b.shop:80"
                && line["destination"] == "shop.shop:80"
        })
    });
    assert_eq!(echoed(&through(shop.client.outbound(), "http://shop.shop/seen", &[]))["name"], "b");
}

#[test]
fn grpc_routes_choose_by_service_method_and_metadata() {
    let shop = Shop::new("grpc_names.py", "grpc", &["a", "b", "c"]);
    let rules = [
        rule("{ method: { service: shop.Orders, method: Get } }", "a"),
        rule("{ method: { service: shop.Orders } }", "b"),
        rule("{ headers: [ { name: env, value: canary } ] }", "c"),
    ];
    shop.route("GRPCRoute", "grpc", "", &rules.concat());
    let call = |calls: &[&str]| -> Vec<String> {
        let mut command = python();
        command.arg(in_workspace("tests/e2e/apps/grpc_call.py")).arg(shop.client.outbound().to_string());
        let lines = run(command.arg("shop.shop:80").args(calls));
        let said = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        said.map(|said| format!("{} {}", said["code"].as_str().unwrap_or(""), said["reply"].as_str().unwrap_or("")))
            .collect()
    };
    until("the route is in force", || call(&["/shop.Other/Get"])[0] == "UNIMPLEMENTED ");
    let calls = ["/shop.Orders/Get", "/shop.Orders/Put", "/shop.Other/Get,env=canary", "/shop.Orders2/Get"];
    let who = ["OK a /shop.Orders/Get", "OK b /shop.Orders/Put", "OK c /shop.Other/Get", "UNIMPLEMENTED "];
    assert_eq!(call(&calls), who);
}
