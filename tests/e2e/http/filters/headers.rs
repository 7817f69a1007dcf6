//! `RequestHeaderModifier` and `ResponseHeaderModifier`, of rules and of backends.

use serde_json::{Value, json};

use super::super::Pair;
use super::{Shop, echoed, field, rule, to};
use crate::support::{Workload, curl, in_workspace, python, python_app, run, until};

const CLIENTS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

#[test]
fn fields_are_set_added_and_removed_both_ways() {
    let shop = Shop::open();
    let request = "{ type: RequestHeaderModifier, requestHeaderModifier: { set: [ { name: X-Set, value: new } ], \
                   add: [ { name: x-added, value: '100%' } ], remove: [ X-Removed, User-Agent ] } }";
    let response = "{ type: ResponseHeaderModifier, responseHeaderModifier: { set: [ { name: Content-Type, value: text/x } ], \
                    add: [ { name: set-cookie, value: c=3 } ], remove: [ x-app ] } }";
    let filters = format!("{request}, {response}");
    shop.http(&[rule("/outside", &filters, &to("b")), rule("/inside", &filters, &to("a"))].concat());
    for (client, path) in CLIENTS.into_iter().flat_map(|client| ["/outside", "/inside"].map(|path| (client, path))) {
        let fields = ["-H", "X-Set: old", "-H", "X-Set: older", "-H", "X-Added: there", "-H", "X-Removed: 1"];
        let answer = shop.get(path, &[&[client], &fields[..]].concat());
        let echo = echoed(&answer);
        assert_eq!(field(&echo, "x-set"), ["new"], "{echo}");
        assert_eq!(field(&echo, "x-added"), ["there", "100%"], "{echo}");
        assert!(field(&echo, "x-removed").is_empty() && field(&echo, "user-agent").is_empty(), "{echo}");
        assert_eq!(answer.header("content-type"), Some("text/x"), "{answer:?}");
        assert_eq!((answer.header("x-app"), answer.header("set-cookie")), (None, Some("c=3")), "{answer:?}");
    }
    let dump = shop.client.admin_page("/config_dump");
    assert!(dump.contains("x-removed") && dump.contains("100%"), "{dump}");
}

#[test]
fn a_backends_own_changes_come_last_and_concern_its_share_only() {
    let shop = Shop::open();
    let set = |kind: &str, value: &str| {
        let (upper, lower) = (format!("{kind}HeaderModifier"), format!("{}HeaderModifier", kind.to_lowercase()));
        format!(
            "{{ type: {upper}, {lower}: {{ set: [ {{ name: x-by, value: {value} }} ], add: [ {{ name: x-all, value: {value} }} ] }} }}"
        )
    };
    let of_rule = format!("{}, {}", set("Request", "rule"), set("Response", "rule"));
    let of_backend = format!("filters: [ {}, {} ]", set("Request", "backend"), set("Response", "backend"));
    let backends = format!("{{ name: b, port: 80, {of_backend} }}, {}", to("c"));
    shop.http(&rule("/split", &of_rule, &backends));
    let asked = |app: &str| {
        let mut found = None;
        until("the split leads there", || {
            let answer = shop.get("/split", &[]);
            found = (answer.header("x-app") == Some(app)).then_some(answer);
            found.is_some()
        });
        found.expect("found")
    };
    for (app, by, all) in [("b", "backend", &["rule", "backend"][..]), ("c", "rule", &["rule"])] {
        let answer = asked(app);
        let echo = echoed(&answer);
        assert_eq!((field(&echo, "x-by"), field(&echo, "x-all")), (vec![by], all.to_vec()), "{echo}");
        assert_eq!(answer.header("x-by"), Some(by), "{answer:?}");
        assert_eq!(answer.head.matches("x-all: ").count(), all.len(), "{answer:?}");
    }
}

#[test]
fn a_websocket_passes_a_route_with_filters_and_is_never_copied() {
    let pair = Pair::new("http", |mesh| python_app(mesh, "websocket_echo.py", &[]));
    let mirror = python_app(&pair.mesh, "http1.py", &["mirror"]);
    pair.mesh.outsider(Workload::new("mirror").port("web", mirror.address));
    pair.mesh.service("mirror", &[("web", 80, "http")]);
    pair.mesh.write(
        "route.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: ws, namespace: shop }\n\
         spec:\n  parentRefs: [ { group: \"\", kind: Service, name: echo } ]\n  rules:\n\
         \x20 - matches: [ { path: { value: /ws } } ]\n    filters:\n\
         \x20   - { type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: / } } }\n\
         \x20   - { type: ResponseHeaderModifier, responseHeaderModifier: { set: [ { name: x-set, value: '1' } ] } }\n\
         \x20   - { type: RequestMirror, requestMirror: { backendRef: { name: mirror, port: 80 } } }\n\
         \x20   backendRefs: [ { name: echo, port: 80 } ]\n",
    );
    until("the route is in force", || pair.get("/other", &[]).status == 404);
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/websocket_client.py")).arg(pair.client.outbound().to_string());
    let talked: Value = serde_json::from_str(&run(command.arg("ws://echo.shop/ws"))).expect("one JSON value");
    assert_eq!(talked, json!({ "echoed": true, "code": 4001 }));
    let copies = curl(&[&format!("http://{}/requests/mirror", mirror.address)]);
    assert_eq!(copies.text(), "[]");
}

#[test]
fn a_grpc_route_changes_metadata() {
    let shop = Shop::open();
    let rules = "  - matches: [ { method: { service: shop.Orders } } ]\n    filters:\n    - { type: RequestHeaderModifier, \
                 requestHeaderModifier: { set: [ { name: env, value: canary } ] } }\n    backendRefs: [ { name: b, port: 80 } ]\n";
    shop.route("GRPCRoute", "grpc", rules);
    until("the route is in force", || shop.get("/other", &[]).status == 404);
    let echo = echoed(&shop.get("/shop.Orders/Get", &["--http2-prior-knowledge", "-d", "x"]));
    assert_eq!(field(&echo, "env"), ["canary"], "{echo}");
}
