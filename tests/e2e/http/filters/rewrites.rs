//! `URLRewrite`.

use super::{Shop, echoed, field, rule, to};
use crate::support::until;

#[test]
fn paths_are_rewritten_as_in_gateway_apis_table() {
    let shop = Shop::open();
    let prefix = |matched: &str, with: &str| {
        let path = format!("path: {{ type: ReplacePrefixMatch, replacePrefixMatch: '{with}' }}");
        rule(matched, &format!("{{ type: URLRewrite, urlRewrite: {{ {path} }} }}"), &to("a"))
    };
    let full = "{ type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: '/one$1\\x' } } }";
    let rules = [
        prefix("/s1", "/xyz"),
        prefix("/s2", "/xyz/"),
        prefix("/s3/", "/xyz"),
        prefix("/s4/", "/xyz/"),
        prefix("/s5", ""),
        prefix("/s6", "/"),
        prefix("/", "/root"),
        rule("/full", full, &to("b")),
    ];
    shop.http(&rules.concat());
    for (path, target) in [
        ("/s1/bar?q=/s1", "/xyz/bar?q=/s1"),
        ("/s2/bar", "/xyz/bar"),
        ("/s3/bar", "/xyz/bar"),
        ("/s4/bar", "/xyz/bar"),
        ("/s1", "/xyz"),
        ("/s1/", "/xyz/"),
        ("/s5/bar", "/bar"),
        ("/s5/", "/"),
        ("/s5", "/"),
        ("/s6/bar?q", "/bar?q"),
        ("/s6/", "/"),
        ("/s6", "/"),
        ("/else", "/root/else"),
        ("/full/x?q=1", "/one$1\\x?q=1"),
    ] {
        let echo = echoed(&shop.get(path, &[]));
        assert_eq!(echo["target"], target, "{path}");
    }
    until("the access log has the path that the client asked for", || {
        shop.client.access_log().iter().any(|line| line["path"] == "/s1/bar" && line["response_code"] == 200)
    });
}

#[test]
fn hosts_are_rewritten_for_a_rule_or_for_one_backend() {
    let shop = Shop::open();
    let host = |name: &str| format!("{{ type: URLRewrite, urlRewrite: {{ hostname: {name} }} }}");
    let own = format!("{{ name: c, port: 80, filters: [ {} ] }}", host("backend.example"));
    let rules = [
        rule("/inside", &host("rule.example"), &to("a")),
        rule("/outside", &host("rule.example"), &to("b")),
        rule("/backend", &host("rule.example"), &own),
    ];
    shop.http(&rules.concat());
    for (path, host) in [("/inside", "rule.example"), ("/outside", "rule.example"), ("/backend", "backend.example")] {
        for client in ["--http1.1", "--http2-prior-knowledge"] {
            let echo = echoed(&shop.get(path, &[client]));
            assert_eq!(field(&echo, "host"), [host], "{echo}");
        }
    }
}
