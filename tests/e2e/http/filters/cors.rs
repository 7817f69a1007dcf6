//! `CORS`.

use super::{Shop, echoed, rule, to};
use crate::support::{Workload, until};

const PREFLIGHT: [&str; 6] =
    ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: PUT", "-H", "Access-Control-Request-Headers: x-a, x-b"];

#[test]
fn preflights_are_answered_by_the_sidecar_and_responses_say_who_may_read() {
    let shop = Shop::open();
    let cors = "{ type: CORS, cors: { allowOrigins: [ 'https://a.example', 'https://*.b.example' ], allowCredentials: true, \
                allowMethods: [ GET, PUT ], allowHeaders: [ '*' ], exposeHeaders: [ x-sum ], maxAge: 600 } }";
    let any = "{ type: CORS, cors: { allowOrigins: [ '*' ] } }";
    shop.http(
        &[
            rule("/api", cors, &to("a")),
            rule("/any", any, &to("b")),
            rule("/none", "", &to("b")),
            rule("/failed", any, &to("gone")),
        ]
        .concat(),
    );
    let origin = |origin: &str| format!("Origin: {origin}");
    for (from, allowed) in
        [("https://a.example", true), ("https://x.y.b.example", true), ("https://evil.example", false)]
    {
        let from_header = origin(from);
        let answer = shop.get("/api", &[&PREFLIGHT, &["-H", &from_header][..]].concat());
        assert_eq!((answer.status, answer.reason()), (200, "cors_preflight"), "{answer:?}");
        let said = |name: &str| answer.header(name);
        assert_eq!(said("access-control-allow-origin"), allowed.then_some(from), "{answer:?}");
        assert_eq!(said("access-control-allow-methods"), allowed.then_some("GET, PUT"), "{answer:?}");
        assert_eq!(said("access-control-allow-headers"), allowed.then_some("x-a, x-b"), "{answer:?}");
        assert_eq!(said("access-control-allow-credentials"), allowed.then_some("true"), "{answer:?}");
        assert_eq!(said("access-control-max-age"), allowed.then_some("600"), "{answer:?}");

        let answer = shop.get("/api", &["-H", &from_header]);
        echoed(&answer);
        assert_eq!(answer.header("access-control-allow-origin"), allowed.then_some(from), "{answer:?}");
        assert_eq!(answer.header("access-control-expose-headers"), allowed.then_some("x-sum"), "{answer:?}");
    }
    assert!(shop.seen("a", "/api").iter().all(|said| said["method"] == "GET"), "no preflight reached it");
    let any = shop.get("/any", &["-H", "Origin: https://x.example"]);
    assert_eq!(any.header("access-control-allow-origin"), Some("https://x.example"), "{any:?}");
    shop.mesh.outsider(Workload::new("gone").port("web", shop.mesh.free_address()));
    shop.mesh.service("gone", &[("web", 80, "http")]);
    until("there is a backend that cannot be reached", || shop.get("/failed", &[]).status == 503);
    let failed = shop.get("/failed", &["-H", "Origin: https://x.example"]);
    let said = failed.header("access-control-allow-origin");
    assert_eq!((failed.status, said), (503, Some("https://x.example")), "scripts may read failures, too: {failed:?}");
    let none = shop.get("/none", &[&PREFLIGHT, &["-H", "Origin: https://a.example"][..]].concat());
    assert_eq!((none.header("x-app"), none.header("access-control-allow-origin")), (Some("b"), None), "{none:?}");
}
