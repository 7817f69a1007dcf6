//! `faults` of a `TrafficPolicy`.

use super::{Shop, rule, to};
use crate::support::until;

const SERVICE: &str = "kind: Service, name: shop";

#[test]
fn requests_that_match_are_aborted_and_others_are_not() {
    let shop = Shop::open();
    shop.policy(
        SERVICE,
        "  faults: { abort: { httpStatus: 418, percent: 100 }, headers: [ { name: x-chaos, value: 'yes' } ] }\n",
    );
    until("the policy is in force", || shop.get("/", &["-H", "X-Chaos: yes"]).status == 418);
    let answer = shop.get("/", &["-H", "X-Chaos: yes"]);
    assert_eq!(answer.reason(), "fault", "{answer:?}");
    for arguments in [&[][..], &["-H", "X-Chaos: no"]] {
        assert_eq!(shop.get("/", arguments).status, 200, "{arguments:?}");
    }
    until("the access log has it", || {
        let is_it = |line: &serde_json::Value| line["reason"] == "fault" && line["response_flags"] == "FI";
        shop.client.access_log().iter().any(is_it)
    });
    assert!(shop.client.metric("pillion_faults_total", &[("kind", "abort")]) >= 2.0);

    shop.policy(SERVICE, "  faults: { abort: { grpcStatus: UNAVAILABLE, percent: 100 } }\n");
    until("plain HTTP gets the status that is alike", || shop.get("/", &[]).status == 503);
    let call = shop.get("/", &["--http2-prior-knowledge", "-H", "Content-Type: application/grpc"]);
    assert_eq!((call.status, call.header("grpc-status")), (200, Some("14")), "{call:?}");

    shop.mesh.remove("policy.yaml");
    until("without the policy all is well", || shop.get("/", &[]).status == 200);
}

#[test]
fn a_share_of_the_requests_of_one_route_is_held_back() {
    let shop = Shop::open();
    shop.http(&[rule("/slow", "", &to("a")), rule("/", "", &to("b"))].concat());
    shop.policy(
        "group: gateway.networking.k8s.io, kind: HTTPRoute, name: filters",
        "  faults: { delay: { fixed: 300ms, percent: 50 }, headers: [ { name: x-slow, value: '1' } ] }\n",
    );
    let delays = || shop.client.metric("pillion_faults_total", &[("kind", "delay")]);
    until("the policy is in force", || {
        shop.get("/slow", &["-H", "X-Slow: 1"]);
        delays() > 0.0
    });
    let before = delays();
    let last = shop.get("/slow?[1-40]", &["-H", "X-Slow: 1", "--parallel", "--parallel-immediate"]);
    assert_eq!((last.exit, last.status), (0, 200), "{last:?}");
    let delayed = delays() - before;
    // Binomial: 40 draws at a half lie beyond 8 and 32 about once in ten thousand times.
    assert!((8.0..=32.0).contains(&delayed), "about half of 40, not {delayed}");
    until("the access log says who was held back", || {
        let log = shop.client.access_log();
        let held: Vec<_> = log.iter().filter(|line| line["response_flags"] == "DI").collect();
        !held.is_empty()
            && held.iter().all(|line| line["duration_ms"].as_f64() >= Some(300.0) && line["response_code"] == 200)
    });
}

#[test]
fn no_more_are_held_back_at_a_time_than_the_policy_says() {
    let shop = Shop::open();
    shop.policy(SERVICE, "  faults: { delay: { fixed: 1h, percent: 100 }, maxActive: 1 }\n");
    until("one request is held back", || {
        let _cut = shop.get("/", &["--max-time", "1"]);
        shop.client.metric("pillion_faults_total", &[("kind", "delay")]) > 0.0
    });
    let delays = || shop.client.metric("pillion_faults_total", &[("kind", "delay")]);
    let before = delays();
    // One that stays, in the background; those that come after it pass.
    let held = std::thread::scope(|scope| {
        let outbound = shop.client.outbound();
        let held = scope.spawn(move || super::through(outbound, "http://shop.shop/", &["--max-time", "10"]));
        until("it is held back", || delays() > before);
        let passed = shop.get("/", &[]);
        assert_eq!(passed.status, 200, "{passed:?}");
        held.join().expect("curl")
    });
    assert_eq!(held.exit, 28, "it timed out: {held:?}");
    assert!(shop.client.metric("pillion_faults_total", &[("kind", "overflow")]) >= 1.0);
}
