//! `RequestMirror`.

use std::net::TcpListener;

use super::{Shop, echoed, field, rule, to};
use crate::support::{Workload, until};

fn mirror(name: &str, share: &str) -> String {
    format!("{{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: {name}, port: 80 }} {share} }} }}")
}

#[test]
fn copies_go_to_each_mirror_with_body_and_shadow_host() {
    let shop = Shop::open();
    let rewrite = "{ type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: /rewritten } } }";
    let both = format!("{}, {}, {rewrite}", mirror("b", ""), mirror("c", ", percent: 100"));
    let rules = [
        rule("/both", &both, &to("a")),
        rule("/never", &mirror("b", ", percent: 0"), &to("a")),
        rule("/inside", &mirror("a", ""), &to("b")),
        rule("/half", &mirror("b", ", fraction: { numerator: 1, denominator: 2 }"), &to("a")),
    ];
    shop.http(&rules.concat());
    let body = "x".repeat(300_000);
    let file = shop.mesh.scratch().join("body");
    std::fs::write(&file, &body).expect("a file");
    let data = format!("@{}", file.display());
    for client in ["--http1.1", "--http2-prior-knowledge"] {
        let echo = echoed(&shop.get("/both", &[client, "--data-binary", &data]));
        assert_eq!((&echo["name"], &echo["target"]), (&"a".into(), &"/rewritten".into()));
        assert_eq!(echo["body"].as_str().map(str::len), Some(body.len()));
    }
    for name in ["b", "c"] {
        until("both copies arrive", || shop.seen(name, "/rewritten").len() == 2);
        for copy in shop.seen(name, "/rewritten") {
            assert_eq!((copy["method"].as_str(), copy["body"] == body), (Some("POST"), true));
            assert_eq!(field(&copy, "host"), ["shop.shop-shadow"]);
        }
        let labels = [("cluster", &*format!("{name}.shop:80")), ("result", "ok")];
        until("they are counted", || shop.client.metric("pillion_mirrored_requests_total", &labels) == 2.0);
    }
    assert_eq!(shop.get("/inside", &[]).header("x-app"), Some("b"));
    until("a copy goes into the mesh", || shop.seen("a", "/inside").len() == 1);
    assert_eq!(field(&shop.seen("a", "/inside")[0], "host"), ["shop.shop-shadow"]);
    for path in ["/never", "/half"] {
        let last = shop.get(&format!("{path}?[1-60]"), &[]);
        assert_eq!(last.status, 200, "{last:?}");
    }
    let copies = || shop.client.metric("pillion_mirrored_requests_total", &[("cluster", "b.shop:80")]) - 2.0;
    until("some are copied", || copies() > 5.0);
    assert!(copies() < 55.0, "about half of 60, not {}", copies());
    assert!((1..=60).all(|number| shop.seen("b", &format!("/never?{number}")).is_empty()));
}

#[test]
fn a_mirror_that_is_stuck_or_gone_harms_nobody() {
    let shop = Shop::open();
    let stuck = TcpListener::bind((shop.mesh.ip(), 0)).expect("a port"); // Accepts in the kernel, and never reads.
    shop.mesh.outsider(Workload::new("stuck").port("web", stuck.local_addr().expect("bound")));
    shop.mesh.outsider(Workload::new("gone").port("web", shop.mesh.free_address()));
    for name in ["stuck", "gone"] {
        shop.mesh.service(name, &[("web", 80, "http")]);
    }
    let filters = format!("{}, {}, {}", mirror("stuck", ""), mirror("gone", ""), mirror("nobody", ""));
    shop.http(&rule("/x", &filters, &to("b")));
    let file = shop.mesh.scratch().join("body");
    std::fs::write(&file, "x".repeat(16 << 20)).expect("a file");
    let data = format!("@{}", file.display());
    for arguments in [&[][..], &["--data-binary", &data]] {
        let answer = shop.get("/x", arguments);
        assert_eq!((answer.exit, answer.status), (0, 200), "{:?}", answer.message);
    }
    let counted = |cluster: &str, result: &str| {
        shop.client.metric("pillion_mirrored_requests_total", &[("cluster", cluster), ("result", result)])
    };
    until("the stuck mirror's copy is given up", || counted("stuck.shop:80", "overflow") == 1.0);
    until("the one that is gone is counted", || counted("gone.shop:80", "connect_failure") == 2.0);
    let nobody = |labels: &[(&str, &str)]| shop.client.metric("pillion_requests_total", labels);
    assert_eq!(nobody(&[("cluster", "stuck.shop:80")]), 0.0, "copies are no requests");
}
