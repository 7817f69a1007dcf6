//! A retry storm: three tiers deep, the last one failing, each caller told to try four times.

use std::thread;

use tokio::time::Instant;

use super::actor::{Act, Actor};
use super::joined::Onward;
use super::{ask, policy, treated};
use crate::support::{Mesh, Sidecar, Workload, exchange};

const CALLERS: usize = 10;
const EACH: usize = 20;
const RETRIES: &str = "on: [ 5xx ], attempts: 3, backoff: { base: 1ms, max: 5ms }";

/// What reached the last tier, how many retries each of the three callers made, and how long it took in seconds.
struct Storm {
    reached: usize,
    retried: [f64; 3],
    seconds: f64,
}

fn storm(spec: &str) -> Storm {
    let mesh = Mesh::start();
    let hops = [Onward::default(), Onward::default()];
    let calling = hops.clone();
    let first = Actor::start(mesh.ip(), move |request| calling[0].call("b.shop", request));
    let calling = hops.clone();
    let second = Actor::start(mesh.ip(), move |request| calling[1].call("c.shop", request));
    let last = Actor::start(mesh.ip(), |request| {
        Act::Answer(if request.path() == "/priming" { 200 } else { 503 }, String::new())
    });
    let tiers = [("a", &first), ("b", &second), ("c", &last)];
    for (name, _) in tiers {
        mesh.service(name, &[("web", 80, "http")]);
        policy(&mesh, name, spec);
    }
    let sidecars = tiers.map(|(name, actor)| mesh.workload(two_threads(name).port("web", actor.address)));
    let client = mesh.workload(two_threads("client"));
    let callers: [&Sidecar; 3] = [&client, &sidecars[0], &sidecars[1]];
    for (caller, destination) in callers.into_iter().zip(["a.shop:80", "b.shop:80", "c.shop:80"]) {
        treated(caller, destination, |told| !told["retry"].is_null());
    }
    hops[0].through(&sidecars[0]);
    hops[1].through(&sidecars[1]);
    let (began, port) = (Instant::now(), client.outbound());
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            scope.spawn(move || {
                for number in 0..EACH {
                    let id = format!("x-request-id: {caller}-{number}");
                    let text = format!("GET /x HTTP/1.1\r\nhost: a.shop\r\n{id}\r\nconnection: close\r\n\r\n");
                    let answer = exchange(port, text.as_bytes(), false, std::time::Duration::from_secs(120));
                    assert!(answer.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&answer));
                }
            });
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    let retried = callers.map(|caller| caller.metric("pillion_retries_total", &[("result", "retried")]));
    let _still_there = ask(&client, "http://a.shop/priming", &[]);
    Storm { reached: last.seen("/deep").len(), retried, seconds }
}

/// They share one budget, and one table of requests.
fn two_threads(name: &str) -> Workload {
    Workload::new(name).setting("workers", 2)
}

#[test]
fn what_reaches_the_last_of_three_tiers_stays_within_the_budget() {
    let sent = CALLERS * EACH;
    let without = storm(&format!(
        "retries: {{ {RETRIES}, budget: {{ percent: 100, minPerSecond: 1000000 }} }}\n  timeouts: {{ joinTrace: false }}"
    ));
    let with = storm(&format!("retries: {{ {RETRIES} }}"));
    for (name, storm) in [("without", &without), ("with", &with)] {
        eprintln!(
            "{name} budget: {sent} requests, {} reached the last tier ({:.1} times as many), retries by hop {:?}, {:.1} s",
            storm.reached,
            storm.reached as f64 / sent as f64,
            storm.retried,
            storm.seconds
        );
    }
    assert_eq!(without.reached, sent * 4 * 4 * 4, "each tier multiplies by its four tries");
    // Of every hop: a fifth of what is under way at once (a try that fails takes as long as any), and the floor.
    let floor = 10.0 + 10.0 * with.seconds;
    let mut arriving = sent as f64;
    for retried in with.retried {
        assert!(retried <= arriving * 0.5 + floor, "{retried} retries of {arriving} requests");
        arriving += retried;
    }
    assert!(with.reached as f64 <= arriving, "{} reached it", with.reached);
    assert!(with.reached * 8 < without.reached, "{} with, {} without", with.reached, without.reached);
}
