//! Requests that are sent again, and those that are not.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::actor::{Act, Actor, Request};
use super::{ask, logged, policy, says, treated};
use crate::support::{Mesh, Sidecar, Workload};

/// What an application does.
type Script = Box<dyn Fn(&Request) -> Act + Send + Sync>;

struct Hosts {
    actors: Vec<Actor>,
    _sidecars: Vec<Sidecar>,
    client: Sidecar,
    _mesh: Mesh,
}

/// Applications behind `echo.shop`, under a policy of retries.
fn hosts(spec: &str, acts: Vec<Script>) -> Hosts {
    let mesh = Mesh::start();
    mesh.service("echo", &[("web", 80, "http")]);
    policy(&mesh, "echo", &format!("retries: {spec}"));
    let actors: Vec<Actor> = acts.into_iter().map(|act| Actor::start(mesh.ip(), act)).collect();
    let workload = |(number, actor): (usize, &Actor)| {
        mesh.workload(Workload::new(&format!("echo-{number}")).port("web", actor.address))
    };
    let sidecars = actors.iter().enumerate().map(workload).collect();
    let client = mesh.workload(Workload::new("client"));
    treated(&client, "echo.shop:80", |told| !told["retry"].is_null());
    Hosts { actors, _sidecars: sidecars, client, _mesh: mesh }
}

/// Always this status, and 200 while the policy is waited for.
fn always(status: u16) -> Script {
    Box::new(move |request| Act::Answer(if request.path() == "/priming" { 200 } else { status }, String::new()))
}

fn retries(hosts: &Hosts, result: &str) -> f64 {
    hosts.client.metric("pillion_retries_total", &[("result", result)])
}

#[test]
fn a_503_is_sent_again_to_another_host_with_its_body() {
    let hosts = hosts("{ on: [ 5xx ], attempts: 1 }", vec![always(503), always(200)]);
    let content = "x".repeat(30_000);
    for number in 0..6 {
        let path = format!("http://echo.shop/put/{number}");
        let response = ask(&hosts.client, &path, &["--data-binary", &content]);
        assert_eq!(response.status, 200, "{response:?}");
    }
    let (bad, good) = (hosts.actors[0].seen("/put"), hosts.actors[1].seen("/put"));
    assert_eq!(good.len(), 6);
    assert!(!bad.is_empty() && bad.len() <= 6, "round robin tries both: {}", bad.len());
    assert!(bad.iter().chain(&good).all(|request| request.body == content.as_bytes()), "each got all of it");
    let own = good.iter().find(|request| request.head.contains("x-pillion"));
    assert!(own.is_none(), "what sidecars tell each other is theirs: {own:?}");
    let count = bad.len() as f64;
    assert_eq!((retries(&hosts, "retried"), retries(&hosts, "succeeded")), (count, count));
}

#[test]
fn a_body_of_unknown_length_is_sent_again_and_one_beyond_the_limit_is_not() {
    let hosts = hosts("{ on: [ 5xx ], attempts: 1, bodyLimit: 1000 }", vec![always(503)]);
    let chunked = ["-H", "transfer-encoding: chunked", "--data-binary"];
    let response = ask(&hosts.client, "http://echo.shop/small", &[&chunked[..], &[&"x".repeat(1000)]].concat());
    assert_eq!(response.status, 503, "{response:?}");
    let seen = hosts.actors[0].seen("/small");
    assert_eq!(seen.iter().map(|request| request.body.len()).collect::<Vec<_>>(), [1000, 1000]);
    let response = ask(&hosts.client, "http://echo.shop/large", &["--data-binary", &"x".repeat(1001)]);
    assert_eq!(response.status, 503, "it is sent on all the same: {response:?}");
    let seen = hosts.actors[0].seen("/large");
    assert_eq!(seen.iter().map(|request| request.body.len()).collect::<Vec<_>>(), [1001]);
    assert_eq!(logged(&hosts.client, "/large"), says("retry_body_too_large", "-"));
    assert_eq!(retries(&hosts, "retry_body_too_large"), 1.0);
}

#[test]
fn a_connection_that_is_cut_is_a_reason_only_where_the_policy_says_so() {
    for (on, count) in [("reset", 3), ("retriable-4xx", 1)] {
        let cut = Box::new(|request: &Request| match request.path() {
            "/priming" => Act::Answer(200, String::new()),
            _ => Act::Cut,
        });
        let hosts = hosts(&format!("{{ on: [ {on} ], attempts: 2 }}"), vec![cut]);
        let response = ask(&hosts.client, "http://echo.shop/cut", &["--data-binary", "content"]);
        // The application's sidecar says so with a 503: that is an answer.
        assert_eq!(response.status, 503, "{response:?}");
        assert_eq!(hosts.actors[0].seen("/cut").len(), count, "{on}");
    }
}

#[test]
fn tries_end_and_the_log_says_so() {
    let hosts = hosts("{ codes: [ 429 ], attempts: 2 }", vec![always(429)]);
    assert_eq!(ask(&hosts.client, "http://echo.shop/busy", &[]).status, 429);
    assert_eq!(hosts.actors[0].seen("/busy").len(), 3);
    assert_eq!(logged(&hosts.client, "/busy"), says("retries_exhausted", "URX"));
    assert_eq!((retries(&hosts, "retried"), retries(&hosts, "retries_exhausted")), (2.0, 1.0));
}

#[test]
fn a_host_that_asks_for_a_pause_gets_it_and_for_too_long_a_one_no_other_try() {
    let times: &'static Mutex<Vec<Instant>> = Box::leak(Box::default());
    let busy = Box::new(move |request: &Request| match request.path() {
        "/pause" => {
            let mut times = times.lock().expect("no thread panicked");
            times.push(Instant::now());
            let status = if times.len() == 1 { 503 } else { 200 };
            Act::Answer(status, "retry-after: 1\r\n".to_owned())
        }
        "/later" => Act::Answer(503, "retry-after: 3600\r\n".to_owned()),
        _ => Act::Answer(200, String::new()),
    });
    let hosts = hosts("{ on: [ 5xx ], attempts: 1 }", vec![busy]);
    assert_eq!(ask(&hosts.client, "http://echo.shop/pause", &[]).status, 200);
    let times = times.lock().expect("no thread panicked").clone();
    assert!(times[1] - times[0] >= Duration::from_secs(1), "{:?}", times[1] - times[0]);
    assert_eq!(ask(&hosts.client, "http://echo.shop/later", &[]).status, 503);
    assert_eq!(hosts.actors[0].seen("/later").len(), 1);
}

#[test]
fn without_a_budget_left_nothing_is_sent_again() {
    let spec = "{ on: [ 5xx ], attempts: 3, budget: { percent: 0, minPerSecond: 0 } }";
    let hosts = hosts(spec, vec![always(503)]);
    assert_eq!(ask(&hosts.client, "http://echo.shop/no", &[]).status, 503);
    assert_eq!(hosts.actors[0].seen("/no").len(), 1);
    assert_eq!(logged(&hosts.client, "/no"), says("retry_budget_exhausted", "UO"));
    let clusters = hosts.client.admin_page("/clusters");
    assert!(clusters.contains("\"percent\":0") || clusters.contains("\"percent\": 0"), "{clusters}");
}

#[test]
fn nothing_is_sent_again_where_nobody_asked_for_it() {
    let hosts = hosts("{ on: [ connect-failure ], attempts: 3 }", vec![always(503)]);
    assert_eq!(ask(&hosts.client, "http://echo.shop/once", &[]).status, 503);
    assert_eq!(hosts.actors[0].seen("/once").len(), 1);
    assert_eq!(logged(&hosts.client, "/once"), says("", "-"));
}
