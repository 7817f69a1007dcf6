//! `rateLimits`: who is let through, who is not, and what they are told.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{App, Curl, Mesh, Sidecar, Workload, curl, eventually, nginx, python_app};

/// A service `api` behind a sidecar, and sidecars of two callers.
struct Stage {
    mesh: Mesh,
    server: Sidecar,
    callers: [Sidecar; 2],
    _application: App,
}

impl Stage {
    fn open() -> Self {
        let mesh = Mesh::start();
        mesh.service("api", &[("web", 80, "")]);
        let application = nginx(&mesh, "    location / { return 200 \"here\\n\"; }");
        let server = mesh.workload(Workload::new("api").port("web", application.address));
        let callers = ["red", "blue"].map(|name| mesh.workload(Workload::new(name)));
        Self { mesh, server, callers, _application: application }
    }

    fn limit(&self, limits: &str) {
        self.mesh.write(
            "policy.yaml",
            &format!(
                "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: api, namespace: shop }}\n\
                 spec:\n  targetRefs: [ {{ kind: Service, name: api }} ]\n  rateLimits: {limits}\n"
            ),
        );
    }

    fn call(&self, caller: usize, arguments: &[&str]) -> Curl {
        let url = format!("http://{}/", self.callers[caller].outbound());
        curl(&[&[&url, "-H", "Host: api.shop"], arguments].concat())
    }

    /// Calls until the limit is in force and used up; how many passed since it was.
    fn use_up(&self, caller: usize) {
        eventually("the limit is used up", Duration::from_secs(20), || {
            (self.call(caller, &[]).status == 429).then_some(())
        });
    }
}

#[test]
fn each_caller_has_its_own_share_and_is_told_when_it_is_used_up() {
    let stage = Stage::open();
    assert_eq!(stage.call(0, &[]).status, 200);
    stage.limit("[ { name: hourly, requests: 3, per: 1h, algorithm: fixedWindow, keys: [ { type: caller } ] } ]");
    stage.use_up(0);
    let refused = stage.call(0, &[]);
    assert_eq!(refused.status, 429, "{refused:?}");
    assert_eq!(refused.header("x-pillion-reason"), Some("rate_limited"));
    let wait: u64 = refused.header("retry-after").expect("retry-after").parse().expect("seconds");
    assert!((3000..=3600).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit"), Some(format!("\"hourly\";r=0;t={wait}").as_str()));
    assert!(refused.text().contains("hourly"), "{}", refused.text());

    let answers: Vec<u16> = (0..4).map(|_| stage.call(1, &[]).status).collect();
    assert_eq!(answers, [200, 200, 200, 429], "the other caller has its own");

    let grpc = ["-H", "content-type: application/grpc", "-X", "POST", "-d", ""];
    let refused = stage.call(0, &grpc);
    assert_eq!((refused.status, refused.header("grpc-status")), (200, Some("8")), "{refused:?}");
    assert!(refused.header("grpc-retry-pushback-ms").is_some(), "{refused:?}");

    // An edit beside it gives nobody a new share.
    stage.limit(
        "[ { name: hourly, requests: 3, per: 1h, algorithm: fixedWindow, keys: [ { type: caller } ] }, \
                 { name: loose, requests: 100000, per: 1s } ]",
    );
    eventually("the edit is in force", Duration::from_secs(20), || {
        stage.server.admin_page("/config_dump").contains("loose").then_some(())
    });
    for _ in 0..20 {
        assert_eq!(stage.call(0, &[]).status, 429);
    }
    stage.mesh.remove("policy.yaml");
    eventually("the limit is gone", Duration::from_secs(20), || (stage.call(0, &[]).status == 200).then_some(()));
    assert!(
        stage.server.metric("pillion_requests_total", &[("reason", "rate_limited"), ("status", "429")]) >= 22.0,
        "{}",
        stage.server.admin_page("/metrics")
    );
}

#[test]
fn paths_headers_and_the_exempt_are_told_apart() {
    let stage = Stage::open();
    stage.limit(
        "[ { requests: 1, per: 1h, keys: [ { type: header, header: X-Key }, { type: path } ], \
         exempt: { paths: [ /health ], callers: [ \"spiffe://cluster.local/ns/shop/sa/blue\" ] } } ]",
    );
    stage.use_up(0);
    assert_eq!(stage.call(0, &["-H", "x-key: one"]).status, 200);
    assert_eq!(stage.call(0, &["-H", "x-key: one"]).status, 429);
    assert_eq!(stage.call(0, &["-H", "x-key: two"]).status, 200);
    let at = |path: &str| stage.call(0, &["--request-target", path]).status;
    assert_eq!(
        [at("/other"), at("/other"), at("/other?query"), at("/health"), at("/health")],
        [200, 429, 429, 200, 200]
    );
    assert_eq!([stage.call(1, &[]).status, stage.call(1, &[]).status], [200, 200], "blue is exempt");
}

#[test]
fn a_leaky_bucket_makes_callers_wait_instead_of_failing() {
    let stage = Stage::open();
    stage.limit("[ { requests: 10, per: 1s, algorithm: leakyBucket, longestWait: 1h } ]");
    eventually("requests are held back", Duration::from_secs(20), || {
        let began = Instant::now();
        let all_pass = (0..6).all(|_| stage.call(0, &[]).status == 200);
        assert!(all_pass);
        (began.elapsed() >= Duration::from_millis(500)).then_some(())
    });
}

/// A bulkhead of the called: a caller whose requests hang cannot take all places.
#[test]
fn one_caller_has_no_more_under_way_than_it_may() {
    let mesh = Mesh::start();
    mesh.service("api", &[("web", 80, "")]);
    let application = python_app(&mesh, "http1.py", &[]);
    let server = mesh.workload(Workload::new("api").port("web", application.address));
    let callers = ["red", "blue"].map(|name| mesh.workload(Workload::new(name)));
    let stage = Stage { mesh, server, callers, _application: application };
    stage.limit("[ { name: at-once, requests: 2, algorithm: concurrency, keys: [ { type: caller } ] } ]");
    eventually("the limit is in force", Duration::from_secs(20), || {
        stage.server.admin_page("/config_dump").contains("at-once").then_some(())
    });
    // The application answers these when three are there.
    let waiting = |caller: usize| {
        let url = format!("http://{}/gather/3", stage.callers[caller].outbound());
        // Those that only look may have taken the place.
        std::thread::spawn(move || {
            loop {
                let answer = curl(&[&url, "-H", "Host: api.shop"]);
                if answer.status != 429 {
                    return answer;
                }
            }
        })
    };
    let held = [waiting(0), waiting(0)];
    eventually("both are under way", Duration::from_secs(20), || (stage.call(0, &[]).status == 429).then_some(()));
    assert_eq!(stage.call(1, &[]).status, 200, "the other caller has places of its own");
    let last = waiting(1);
    for call in held.into_iter().chain([last]) {
        assert_eq!(call.join().unwrap().status, 200);
    }
    eventually("the places are free again", Duration::from_secs(20), || {
        (stage.call(0, &[]).status == 200).then_some(())
    });
}
