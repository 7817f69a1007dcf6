use std::sync::Arc;

use crate::{
    core::{
        filter::{Filters, PathChange},
        route::Route,
    },
    document::{Object, read},
};

fn route(kind: &str, rules: &str) -> Result<Arc<Route>, Vec<String>> {
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: r, namespace: shop}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: a}}], rules: {rules}}}\n"
    );
    match read(&text, 1).outcome {
        Ok(Some(Object::Route(route))) => Ok(route),
        Ok(other) => panic!("{other:?}"),
        Err(errors) => Err(errors.iter().map(|placed| placed.issue.path.to_string()).collect()),
    }
}

fn filters(filters: &str) -> Filters {
    let route = route("HTTPRoute", &format!("[{{filters: {filters}, backendRefs: [{{name: a, port: 80}}]}}]")).unwrap();
    route.rules[0].filters.clone()
}

#[test]
fn refusals_name_the_field() {
    for (filter, path) in [
        ("{type: X}", "type"),
        ("{}", "type"),
        ("{type: ExtensionRef, extensionRef: {}}", "extensionRef"),
        ("{type: URLRewrite}", "urlRewrite"),
        ("{type: URLRewrite, urlRewrite: {}}", "urlRewrite"),
        ("{type: URLRewrite, urlRewrite: {hostname: a}, cors: {allowOrigins: ['*']}}", "cors"),
        ("{type: URLRewrite, urlRewrite: {hostname: 'a:80'}}", "urlRewrite.hostname"),
        ("{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}}", "urlRewrite.path"),
        ("{type: URLRewrite, urlRewrite: {path: {type: Glob}}}", "urlRewrite.path.type"),
        (
            "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: x}}}",
            "urlRewrite.path.replaceFullPath",
        ),
        (
            "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: '/a?b'}}}",
            "urlRewrite.path.replacePrefixMatch",
        ),
        ("{type: RequestRedirect, requestRedirect: {}}", "requestRedirect"),
        ("{type: RequestRedirect, requestRedirect: {scheme: ftp}}", "requestRedirect.scheme"),
        ("{type: RequestRedirect, requestRedirect: {port: 1, statusCode: 304}}", "requestRedirect.statusCode"),
        ("{type: RequestRedirect, requestRedirect: {port: 0}}", "requestRedirect.port"),
        ("{type: RequestHeaderModifier, requestHeaderModifier: {}}", "requestHeaderModifier"),
        ("{type: RequestHeaderModifier, requestHeaderModifier: {remove: [Host]}}", "requestHeaderModifier.remove[0]"),
        (
            "{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: Connection, value: x}]}}",
            "responseHeaderModifier.set[0].name",
        ),
        (
            "{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: 'a b', value: x}]}}",
            "responseHeaderModifier.add[0].name",
        ),
        (
            "{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: ':path', value: x}]}}",
            "requestHeaderModifier.add[0].name",
        ),
        (
            "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-pillion-port, value: '1'}]}}",
            "requestHeaderModifier.set[0].name",
        ),
        (
            "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: \"b\\nc\"}]}}",
            "requestHeaderModifier.set[0].value",
        ),
        ("{type: RequestMirror, requestMirror: {backendRef: {name: a}}}", "requestMirror.backendRef.port"),
        (
            "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1, kind: X}}}",
            "requestMirror.backendRef.kind",
        ),
        (
            "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 101}}",
            "requestMirror.percent",
        ),
        (
            "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, fraction: {numerator: 101}}}",
            "requestMirror.fraction",
        ),
        (
            "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 1, fraction: {numerator: 1}}}",
            "requestMirror.fraction",
        ),
        ("{type: CORS, cors: {}}", "cors.allowOrigins"),
        ("{type: CORS, cors: {allowOrigins: [a.example]}}", "cors.allowOrigins[0]"),
        ("{type: CORS, cors: {allowOrigins: ['*', 'https://a']}}", "cors.allowOrigins"),
        ("{type: CORS, cors: {allowOrigins: ['*'], allowMethods: [get]}}", "cors.allowMethods[0]"),
        ("{type: CORS, cors: {allowOrigins: ['*'], exposeHeaders: ['a b']}}", "cors.exposeHeaders[0]"),
    ] {
        let errors = route("HTTPRoute", &format!("[{{filters: [{filter}]}}]")).unwrap_err();
        let path = format!("spec.rules[0].filters[0].{path}");
        assert!(errors.contains(&path), "{filter}: {errors:?}");
    }
}

#[test]
fn filters_that_do_not_go_together_or_there_are_refused() {
    let redirect = "{type: RequestRedirect, requestRedirect: {port: 1}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: b}}";
    let prefix = "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}";
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: m, port: 1}}}";
    for (kind, rules, path) in [
        ("HTTPRoute", format!("[{{filters: [{redirect}, {rewrite}]}}]"), "spec.rules[0].filters"),
        ("HTTPRoute", format!("[{{filters: [{rewrite}, {rewrite}]}}]"), "spec.rules[0].filters[1].type"),
        (
            "HTTPRoute",
            format!("[{{filters: [{redirect}], backendRefs: [{{name: a, port: 1}}]}}]"),
            "spec.rules[0].backendRefs",
        ),
        (
            "HTTPRoute",
            format!("[{{matches: [{{path: {{type: Exact, value: /x}}}}], filters: [{prefix}]}}]"),
            "spec.rules[0].filters[0].urlRewrite.path.type",
        ),
        ("GRPCRoute", format!("[{{filters: [{rewrite}]}}]"), "spec.rules[0].filters[0].type"),
        (
            "HTTPRoute",
            format!("[{{backendRefs: [{{name: a, port: 1, filters: [{mirror}]}}]}}]"),
            "spec.rules[0].backendRefs[0].filters[0].type",
        ),
        (
            "HTTPRoute",
            format!("[{{backendRefs: [{{name: a, port: 1, filters: [{prefix}]}}]}}]"),
            "spec.rules[0].backendRefs[0].filters[0].urlRewrite.path",
        ),
        ("HTTPRoute", "[{name: x}, {name: x}]".to_owned(), "spec.rules[1].name"),
        ("HTTPRoute", "[{name: X}]".to_owned(), "spec.rules[0].name"),
    ] {
        let errors = route(kind, &rules).unwrap_err();
        assert!(errors.iter().any(|found| found == path), "{kind} {rules}: {errors:?}");
    }
}

#[test]
fn what_is_written_is_read() {
    let read = filters(
        "[{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: '1'}], add: [{name: b, value: x},
            {name: B, value: y}], remove: [C]}},
          {type: URLRewrite, urlRewrite: {hostname: b.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /x/}}},
          {type: RequestMirror, requestMirror: {backendRef: {name: m, port: 1}, fraction: {numerator: 1, denominator: 3}}},
          {type: RequestMirror, requestMirror: {backendRef: {name: n, port: 1}, percent: 5}},
          {type: CORS, cors: {allowOrigins: ['https://*.example'], allowMethods: [GET], maxAge: 9}}]",
    );
    assert_eq!(read.headers.request.set, [("x-a".to_owned(), "1".to_owned())]);
    assert_eq!(read.headers.request.add, [("b".to_owned(), "x".to_owned())], "the first of one name");
    assert_eq!(read.headers.request.remove, ["c"]);
    assert_eq!(read.rewrite.path, Some(PathChange::Prefix("/x".to_owned())));
    let mirrors: Vec<_> = read.mirrors.iter().map(|mirror| (mirror.place, mirror.per_million)).collect();
    assert_eq!(mirrors, [(2, 333_333), (3, 50_000)]);
    assert_eq!(read.cors.unwrap().max_age.as_secs(), 9);
    let root = filters("[{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]");
    assert_eq!(root.rewrite.path, Some(PathChange::Prefix(String::new())));
}
