//! CSDS by the stubs that gRPC's own tools use.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Pair;
use crate::support::{python_json, until};

/// Asks twice, by both methods, which must agree. Each node's resources by kind and name.
fn ask(admin: SocketAddr, request: Value) -> BTreeMap<String, BTreeMap<(String, String), Value>> {
    let answer = python_json("csds.py", &json!({ "address": admin.to_string(), "request": request }));
    assert_eq!(answer["error"], Value::Null, "{answer}");
    let kind = |url: &Value| url.as_str().unwrap().rsplit('.').next().unwrap().to_owned();
    let resources = |config: &Value| {
        let all = config["genericXdsConfigs"].as_array().cloned().unwrap_or_default();
        all.into_iter().map(|one| ((kind(&one["typeUrl"]), one["name"].as_str().unwrap().to_owned()), one)).collect()
    };
    let configs = answer["config"].as_array().cloned().unwrap_or_default();
    configs.iter().map(|config| (config["node"]["id"].as_str().unwrap().to_owned(), resources(config))).collect()
}

fn status<'a>(all: &'a BTreeMap<(String, String), Value>, kind: &str) -> Vec<&'a str> {
    let of_kind = all.iter().filter(|((one, _), _)| one == kind);
    of_kind.map(|(_, resource)| resource["clientStatus"].as_str().unwrap()).collect()
}

#[test]
fn control_plane_and_sidecar_agree_on_what_is_held() {
    let pair = Pair::start();
    assert_eq!(pair.get("/", &[]), 200);
    let unknown = crate::support::curl(&[&format!("http://{}/", pair.client.outbound()), "-H", "Host: nobody.shop"]);
    assert_eq!(unknown.status, 502);
    let control_plane = pair.mesh.admin_address();
    until("everything is acknowledged", || {
        let all = ask(control_plane, json!({}));
        all.values().flat_map(|node| node.values()).all(|one| one["clientStatus"] != "REQUESTED")
    });
    let all = ask(control_plane, json!({}));
    assert_eq!(all.keys().collect::<Vec<_>>(), ["shop/client", "shop/orders-1"]);
    let client = &all["shop/client"];
    for kind in ["RouteConfiguration", "Cluster", "ClusterLoadAssignment"] {
        assert_eq!(status(client, kind), ["ACKED"], "{client:?}");
    }
    assert!(status(client, "Listener").contains(&"ACKED") && status(client, "Listener").contains(&"DOES_NOT_EXIST"));
    let cluster = client.iter().find(|((kind, _), _)| kind == "Cluster").unwrap().1;
    assert_eq!((&cluster["configStatus"], &cluster["xdsConfig"]["name"]), (&"SYNCED".into(), &cluster["name"]));

    let own = ask(pair.client.admin(), json!({}));
    let own = &own["shop/client"];
    let held = |all: &BTreeMap<(String, String), Value>| -> Vec<(String, String, Value, Value)> {
        let fields = |((kind, name), one): (&(String, String), &Value)| {
            (kind.clone(), name.clone(), one["clientStatus"].clone(), one["versionInfo"].clone())
        };
        all.iter().map(fields).collect()
    };
    assert_eq!(held(own), held(client));

    let matched = |matcher: Value| {
        let request = json!({ "nodeMatchers": [{ "nodeId": matcher }], "excludeResourceContents": true });
        ask(control_plane, request)
    };
    let one = matched(json!({ "suffix": "/client" }));
    assert_eq!(one.keys().collect::<Vec<_>>(), ["shop/client"]);
    assert!(one["shop/client"].values().all(|resource| resource["xdsConfig"] == Value::Null));
    assert_eq!(matched(json!({ "safeRegex": { "regex": "shop/orders-[0-9]" } })).len(), 1);
    assert_eq!(matched(json!({ "exact": "shop" })).len(), 0);
}

#[test]
fn what_was_refused_is_nacked_with_its_reason() {
    let pair = Pair::start();
    assert_eq!(pair.get("/", &[]), 200);
    pair.mesh.write(
        "route.yaml",
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: orders, namespace: shop }
spec:
  parentRefs: [{ group: '', kind: Service, name: orders }]
  rules:
  - matches: [{ path: { type: PathPrefix, value: /old } }]
    filters: [{ type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: '/a<b' } } }]
    backendRefs: [{ name: orders, port: 80 }]
",
    );
    let route = |admin: SocketAddr| {
        let all = ask(admin, json!({}));
        all["shop/client"].iter().find(|((kind, _), _)| kind == "RouteConfiguration").map(|(_, one)| one.clone())
    };
    for admin in [pair.mesh.admin_address(), pair.client.admin()] {
        until("the route is refused", || route(admin).is_some_and(|route| route["clientStatus"] == "NACKED"));
        let route = route(admin).unwrap();
        assert!(route["errorState"]["details"].as_str().unwrap().contains("prefix_rewrite"), "{route}");
        assert_ne!(route["errorState"]["versionInfo"], route["versionInfo"], "{route}");
        assert!(!route["versionInfo"].as_str().unwrap().is_empty(), "the version before is in force: {route}");
    }
}
