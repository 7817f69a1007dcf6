//! Calls that belong to an inbound request, by the trace id that the application passes on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::actor::{Act, Actor, Request};
use super::{ask, logged, policy, treated};
use crate::support::{Mesh, Sidecar, Workload, exchange, until};

const TRACE: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What a middle application needs to call the next one.
#[derive(Clone, Default)]
pub(super) struct Onward {
    sidecar: Arc<OnceLock<SocketAddr>>,
    statuses: Arc<Mutex<Vec<u16>>>,
}

impl Onward {
    /// From now on calls go through this sidecar.
    pub(super) fn through(&self, sidecar: &Sidecar) {
        self.sidecar.set(sidecar.outbound()).expect("set once");
    }

    /// What its calls were answered so far; 0 for no answer.
    pub(super) fn statuses(&self) -> Vec<u16> {
        self.statuses.lock().expect("no thread panicked").clone()
    }

    /// Calls `http://HOST/deep`, passes the trace on as libraries do, and answers what it was answered.
    pub(super) fn call(&self, host: &str, request: &Request) -> Act {
        let Some(sidecar) = self.sidecar.get().filter(|_| request.path() != "/priming") else {
            return Act::Answer(200, String::new());
        };
        let names = ["x-request-id", "traceparent"].into_iter().take(if request.path() == "/id" { 1 } else { 2 });
        let passed = names.filter_map(|name| {
            // Of another span, but the same trace.
            let value = request.field(name)?.replace("b7ad6b7169203331", "00f067aa0ba902b7");
            Some(format!("{name}: {value}\r\n"))
        });
        let passed: String = passed.collect();
        let text = format!("GET /deep HTTP/1.1\r\nhost: {host}\r\n{passed}connection: close\r\n\r\n");
        let answer = exchange(*sidecar, text.as_bytes(), false, std::time::Duration::from_secs(60));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        self.statuses.lock().expect("no thread panicked").push(status);
        if status == 0 { Act::Cut } else { Act::Answer(status, String::new()) }
    }
}

struct Chain {
    deep: Actor,
    middle: Sidecar,
    onward: Onward,
    client: Sidecar,
    middle_actor: Actor,
    _deep_sidecar: Sidecar,
    _mesh: Mesh,
}

/// client -> middle -> deep, under a policy for each of the two.
fn chain(of_middle: &str, of_deep: &str, act: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Chain {
    chain_with(|_mesh, workload| workload, of_middle, of_deep, act)
}

/// The same with more settings of their sidecars.
fn chain_with(
    set: impl Fn(&Mesh, Workload) -> Workload,
    of_middle: &str,
    of_deep: &str,
    act: impl Fn(&Request) -> Act + Send + Sync + 'static,
) -> Chain {
    let mesh = Mesh::start();
    let deep = Actor::start(mesh.ip(), act);
    let onward = Onward::default();
    let calling = onward.clone();
    let middle_actor = Actor::start(mesh.ip(), move |request| calling.call("deep.shop", request));
    for name in ["middle", "deep"] {
        mesh.service(name, &[("web", 80, "http")]);
    }
    policy(&mesh, "middle", of_middle);
    if !of_deep.is_empty() {
        policy(&mesh, "deep", of_deep);
    }
    let deep_sidecar = mesh.workload(Workload::new("deep").port("web", deep.address));
    let middle = mesh.workload(set(&mesh, Workload::new("middle").port("web", middle_actor.address)));
    let client = mesh.workload(set(&mesh, Workload::new("client")));
    treated(&client, "middle.shop:80", |told| !told.is_null());
    treated(&middle, "deep.shop:80", |told| told.is_null() == of_deep.is_empty());
    onward.through(&middle);
    Chain { deep, middle, onward, client, middle_actor, _deep_sidecar: deep_sidecar, _mesh: mesh }
}

fn hang(request: &Request) -> Act {
    if request.path() == "/deep" { Act::Hang } else { Act::Answer(200, String::new()) }
}

#[test]
fn a_call_gets_no_more_time_than_its_request_has_left() {
    let chain = chain("timeouts: { request: 500ms }", "", hang);
    let response = ask(&chain.client, "http://middle.shop/x", &["-H", TRACE]);
    assert_eq!(response.status, 504, "{response:?}");
    until("nobody waits for the answer of the last any longer", || chain.deep.gone() == ["/deep"]);
    // Both happen at once: the time is over, and the client leaves.
    let (reason, _) = logged(&chain.middle, "/deep");
    assert!(["caller_deadline", "caller_gone"].contains(&reason.as_str()), "{reason}");
}

#[test]
fn with_a_collector_an_application_may_still_pass_on_the_id_of_the_request_alone() {
    let traced =
        |mesh: &Mesh, workload: Workload| workload.setting("otlp_endpoint", format!("http://{}", mesh.free_address()));
    let chain = chain_with(traced, "timeouts: { request: 500ms }", "", hang);
    let response = ask(&chain.client, "http://middle.shop/id", &["-H", "X-Request-Id: r-1"]);
    assert_eq!(response.status, 504, "{response:?}");
    until("nobody waits for the answer of the last any longer", || chain.deep.gone() == ["/deep"]);
}

#[test]
fn a_call_is_cancelled_when_the_client_of_its_request_leaves() {
    let chain = chain("timeouts: { request: 1h }", "", hang);
    let response = ask(&chain.client, "http://middle.shop/x", &["-H", TRACE, "--max-time", "1"]);
    assert_eq!(response.exit, 28, "{response:?}");
    until("nobody waits for the answer of the last any longer", || chain.deep.gone() == ["/deep"]);
    assert_eq!(logged(&chain.middle, "/deep").0, "caller_gone");
}

#[test]
fn a_call_that_says_so_goes_on_without_its_client() {
    let released: &'static AtomicBool = Box::leak(Box::default());
    let wait = |request: &Request| {
        if request.path() == "/deep" {
            until("the test lets it go", || released.load(Ordering::SeqCst));
        }
        Act::Answer(200, String::new())
    };
    let chain = chain("timeouts: { request: 1h }", "timeouts: { joinTrace: false }", wait);
    let response = ask(&chain.client, "http://middle.shop/x", &["-H", TRACE, "--max-time", "1"]);
    assert_eq!(response.exit, 28, "{response:?}");
    until("its sidecar knows that the client left", || logged(&chain.middle, "/x").0 == "client_gone");
    released.store(true, Ordering::SeqCst);
    until("the call is answered", || chain.onward.statuses() == [200]);
}

#[test]
fn a_retry_is_not_retried_again_behind_it() {
    let often = "retries: { on: [ 5xx ], attempts: 3, backoff: { base: 1ms } }";
    let fail = |request: &Request| Act::Answer(if request.path() == "/deep" { 503 } else { 200 }, String::new());
    let chain = chain("retries: { on: [ 5xx ], attempts: 1 }", often, fail);
    let response = ask(&chain.client, "http://middle.shop/x", &["-H", TRACE]);
    assert_eq!(response.status, 503, "{response:?}");
    assert_eq!(chain.middle_actor.seen("/x").len(), 2);
    assert_eq!(chain.deep.seen("/deep").len(), 4 + 1, "the second try of the first call is not multiplied");
    assert_eq!(chain.middle.metric("pillion_retries_total", &[("result", "retry_nested")]), 1.0);
}
