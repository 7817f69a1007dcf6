use std::sync::Arc;

use crate::{
    core::route::{PathMatch, Route},
    document::{Document, Object, read},
};

fn document(kind: &str, spec: &str) -> Document {
    let version = if matches!(kind, "TCPRoute" | "TLSRoute") { "v1alpha2" } else { "v1" };
    read(
        &format!(
            "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\n\
             metadata: {{name: r, namespace: shop}}\nspec: {spec}\n"
        ),
        1,
    )
}

fn route(kind: &str, rules: &str) -> Result<Arc<Route>, Vec<String>> {
    let spec = format!("{{parentRefs: [{{group: '', kind: Service, name: a}}], rules: {rules}}}");
    match document(kind, &spec).outcome {
        Ok(Some(Object::Route(route))) => Ok(route),
        Ok(other) => panic!("{other:?}"),
        Err(errors) => Err(errors.iter().map(|placed| placed.issue.path.to_string()).collect()),
    }
}

#[test]
fn refusals_name_the_field() {
    for (kind, rules, path) in [
        ("HTTPRoute", "[]", "spec.rules"),
        ("HTTPRoute", "[{timeouts: {request: 1.5s}}]", "spec.rules[0].timeouts.request"),
        ("HTTPRoute", "[{timeouts: {request: 1s, backendRequest: 2s}}]", "spec.rules[0].timeouts.backendRequest"),
        ("HTTPRoute", "[{timeouts: {response: 1s}}]", "spec.rules[0].timeouts.response"),
        ("HTTPRoute", "[{retry: {codes: [503, 200]}}]", "spec.rules[0].retry.codes[1]"),
        ("HTTPRoute", "[{retry: {backoff: 0s}}]", "spec.rules[0].retry.backoff"),
        ("HTTPRoute", "[{sessionPersistence: {strict: true}}]", "spec.rules[0].sessionPersistence.strict"),
        ("GRPCRoute", "[{sessionPersistence: {type: X}}]", "spec.rules[0].sessionPersistence.type"),
        ("GRPCRoute", "[{timeouts: {request: 1s}}]", "spec.rules[0].timeouts"),
        ("GRPCRoute", "[{retry: {attempts: 2}}]", "spec.rules[0].retry"),
        (
            "HTTPRoute",
            "[{backendRefs: [{name: a, port: 80, filters: [{type: X}]}]}]",
            "spec.rules[0].backendRefs[0].filters[0].type",
        ),
        ("HTTPRoute", "[{backendRefs: [{name: a}]}]", "spec.rules[0].backendRefs[0].port"),
        ("HTTPRoute", "[{backendRefs: [{name: a, port: 1, weight: -1}]}]", "spec.rules[0].backendRefs[0].weight"),
        (
            "HTTPRoute",
            "[{backendRefs: [{name: a, port: 1, kind: Subset, group: pillion.dev}]}]",
            "spec.rules[0].backendRefs[0].name",
        ),
        (
            "HTTPRoute",
            "[{backendRefs: [{name: a, port: 1, kind: Bucket, group: x}]}]",
            "spec.rules[0].backendRefs[0].kind",
        ),
        (
            "HTTPRoute",
            "[{matches: [{path: {type: RegularExpression, value: '('}}]}]",
            "spec.rules[0].matches[0].path.value",
        ),
        ("HTTPRoute", "[{matches: [{path: {type: Glob, value: '/x'}}]}]", "spec.rules[0].matches[0].path.type"),
        ("HTTPRoute", "[{matches: [{path: {value: x}}]}]", "spec.rules[0].matches[0].path.value"),
        ("HTTPRoute", "[{matches: [{method: get}]}]", "spec.rules[0].matches[0].method"),
        (
            "HTTPRoute",
            "[{matches: [{headers: [{name: 'a b', value: x}]}]}]",
            "spec.rules[0].matches[0].headers[0].name",
        ),
        ("HTTPRoute", "[{matches: [{cookies: []}]}]", "spec.rules[0].matches[0].cookies"),
        ("GRPCRoute", "[{matches: [{method: {}}]}]", "spec.rules[0].matches[0].method"),
        ("TCPRoute", "[{}, {}]", "spec.rules[1]"),
        ("TLSRoute", "[{}, {}]", "spec.rules[1]"),
        ("TLSRoute", "[{backendRefs: [{name: a, port: 0}]}]", "spec.rules[0].backendRefs[0].port"),
        ("TLSRoute", "[{filters: []}]", "spec.rules[0].filters"),
    ] {
        let errors = route(kind, rules).unwrap_err();
        assert!(errors.iter().any(|found| found == path), "{kind} {rules}: {errors:?}");
    }
}

#[test]
fn a_grpc_method_is_a_path() {
    let paths = |rules: &str| route("GRPCRoute", rules).unwrap().rules[0].matches[0].path.clone();
    assert_eq!(paths("[{matches: [{method: {service: p.S, method: M}}]}]"), PathMatch::Exact("/p.S/M".into()));
    assert_eq!(paths("[{matches: [{method: {service: p.S}}]}]"), PathMatch::Text("/p.S/".into()));
    assert_eq!(paths("[{matches: [{method: {method: M}}]}]"), PathMatch::Regex("/[^/]+/M".into()));
    assert_eq!(paths("[{}]"), PathMatch::Prefix("/".into()));
}

#[test]
fn defaults_and_normal_forms() {
    let route = route(
        "HTTPRoute",
        "[{matches: [{path: {value: /shop/}, headers: [{name: X-A, value: b}, {name: x-a, value: c}]}],
           backendRefs: [{name: b, port: 80}]}]",
    )
    .unwrap();
    let matched = &route.rules[0].matches[0];
    assert_eq!(matched.path, PathMatch::Prefix("/shop".into()));
    assert_eq!(matched.headers.len(), 1, "the first of one name counts");
    assert_eq!(matched.headers[0].name, "x-a");
    assert_eq!(route.rules[0].backends[0].weight, 1);
    assert_eq!(route.rules[0].backends[0].service.namespace, "shop");
}

#[test]
fn a_tls_route_is_for_names_that_clients_may_ask_for() {
    let read = |version: &str, hostnames: &str| {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/{version}\nkind: TLSRoute\nmetadata: {{name: r, namespace: shop}}\n\
             spec: {{parentRefs: [{{group: '', kind: Service, name: a}}], hostnames: {hostnames},
               rules: [{{backendRefs: [{{name: a, port: 443}}]}}]}}\n"
        );
        let document = read(&text, 1);
        assert!(document.warnings.is_empty(), "{document:?}");
        match document.outcome {
            Ok(Some(Object::Route(route))) => Ok(route.hostnames.clone()),
            Ok(other) => panic!("{other:?}"),
            Err(errors) => Err(errors.iter().map(|placed| placed.issue.path.to_string()).collect::<Vec<_>>()),
        }
    };
    for version in ["v1alpha2", "v1"] {
        let names = read(version, "[a.example, '*.b.example']").unwrap();
        assert_eq!(names, ["a.example", "*.b.example"]);
    }
    assert_eq!(read("v1", "[]"), Ok(vec![]));
    for name in ["A.example", "'*'", "'*.'", "a.*.example", "'**.example'", "10.0.0.1", "'::1'", "'a b'", "a.example."]
    {
        assert_eq!(read("v1", &format!("[ok.example, {name}]")).unwrap_err(), ["spec.hostnames[1]"], "{name}");
    }
}

#[test]
fn hostnames_and_gateways_are_warnings() {
    let document = document(
        "HTTPRoute",
        "{parentRefs: [{name: gw}], hostnames: [a.example], newThing: 1, rules: [{backendRefs: [{name: a, port: 80}]}]}",
    );
    assert!(document.outcome.is_ok());
    let mut paths: Vec<String> = document.warnings.iter().map(|placed| placed.issue.path.to_string()).collect();
    paths.sort();
    assert_eq!(paths, ["spec.hostnames", "spec.newThing", "spec.parentRefs[0].kind"]);
}
