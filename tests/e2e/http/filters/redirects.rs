//! `RequestRedirect`.

use super::{Shop, rule};

#[test]
fn clients_are_sent_where_the_route_says() {
    let shop = Shop::open();
    let redirect =
        |path: &str, what: &str| rule(path, &format!("{{ type: RequestRedirect, requestRedirect: {{ {what} }} }}"), "");
    let changed = |path: &str, kind: &str, field: &str, with: &str| {
        redirect(path, &format!("path: {{ type: {kind}, {field}: {with} }}"))
    };
    let rules = [
        redirect("/host", "hostname: other.example, statusCode: 301"),
        redirect("/scheme", "scheme: https"),
        redirect("/port", "port: 8083, statusCode: 303"),
        redirect("/all", "scheme: https, hostname: other.example, port: 8443, statusCode: 307"),
        redirect("/well-known", "scheme: https, hostname: other.example, port: 443, statusCode: 308"),
        changed("/full", "ReplaceFullPath", "replaceFullPath", "/new/path"),
        changed("/prefix", "ReplacePrefixMatch", "replacePrefixMatch", "/xyz"),
        changed("/gone", "ReplacePrefixMatch", "replacePrefixMatch", "/"),
    ];
    shop.http(&rules.concat());
    for (path, status, location) in [
        ("/host/x?q=1", 301, "http://other.example/host/x?q=1"),
        ("/scheme", 302, "https://shop.shop/scheme"),
        ("/port", 303, "http://shop.shop:8083/port"),
        ("/all", 307, "https://other.example:8443/all"),
        ("/well-known", 308, "https://other.example/well-known"),
        ("/full/x?q=1", 302, "http://shop.shop/new/path?q=1"),
        ("/prefix/x", 302, "http://shop.shop/xyz/x"),
        ("/prefix", 302, "http://shop.shop/xyz"),
        ("/gone/x?q", 302, "http://shop.shop/x?q"),
        ("/gone", 302, "http://shop.shop/"),
    ] {
        for client in ["--http1.1", "--http2-prior-knowledge"] {
            let answer = shop.get(path, &[client]);
            assert_eq!((answer.status, answer.header("location")), (status, Some(location)), "{path}: {answer:?}");
            assert_eq!((answer.reason(), answer.body.len()), ("redirect", 0), "{answer:?}");
        }
    }
    let named =
        crate::support::curl(&[&format!("http://{}/scheme", shop.client.outbound()), "-H", "Host: shop.shop:80"]);
    assert_eq!(named.header("location"), Some("https://shop.shop/scheme"), "the port of the old scheme goes");
    let posted = shop.get("/host", &["-d", "body"]);
    assert_eq!(posted.status, 301, "{posted:?}");
}
