//! Direct responses, named rules, and routes for one port of a Service.

use super::{Shop, rule, to};
use crate::support::until;

#[test]
fn a_policy_answers_in_the_applications_stead() {
    let shop = Shop::open();
    shop.policy("kind: Service, name: shop", "  directResponse: { status: 503, body: closed for today }\n");
    until("the policy is in force", || shop.get("/", &[]).status == 503);
    let answer = shop.get("/x", &["--http2-prior-knowledge"]);
    assert_eq!((answer.text().as_str(), answer.reason()), ("closed for today", "direct_response"));
    assert!(shop.seen("a", "/x").is_empty());
}

#[test]
fn a_rules_name_is_in_the_name_of_its_route() {
    let shop = Shop::open();
    let named = rule("/named", "", &to("b")).replacen("  - ", "  - name: by-name\n    ", 1);
    shop.http(&[named, rule("/", "", &to("c"))].concat());
    assert_eq!(shop.get("/named", &[]).header("x-app"), Some("b"));
    assert_eq!(shop.get("/other", &[]).header("x-app"), Some("c"));
    until("the access log names both", || {
        let log = shop.client.access_log();
        let has = |path: &str, route: &str| log.iter().any(|line| line["path"] == path && line["route_name"] == route);
        has("/named", "HTTPRoute/shop/filters/by-name") && has("/other", "HTTPRoute/shop/filters/1")
    });
}

#[test]
fn a_route_for_one_port_leaves_the_others_alone() {
    let shop = Shop::open();
    shop.mesh.write(
        "service-shop.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: { name: shop, namespace: shop }\nspec:\n  selector: { app: a }\n  ports:\n\
         \x20 - { name: one, port: 80, targetPort: web, appProtocol: http }\n\
         \x20 - { name: two, port: 81, targetPort: web, appProtocol: http }\n",
    );
    shop.mesh.write(
        "port.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: port, namespace: shop }\n\
         spec:\n  parentRefs: [ { group: \"\", kind: Service, name: shop, port: 81 } ]\n\
         \x20 rules: [ { backendRefs: [ { name: b, port: 80 } ] } ]\n",
    );
    let who = |port: u16| {
        let url = format!("http://shop.shop:{port}/");
        super::through(shop.client.outbound(), &url, &[]).header("x-app").unwrap_or_default().to_owned()
    };
    until("the route is in force", || who(81) == "b");
    assert_eq!(who(80), "a");
}
