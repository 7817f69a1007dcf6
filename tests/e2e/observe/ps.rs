//! `pillion ps`: what each sidecar runs.

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Pair, json};
use crate::support::{Process, output, pillion, run, until};

/// What it says of one sidecar, as JSON.
fn of(pair: &Pair, name: &str) -> Value {
    let admin = pair.mesh.admin_address().to_string();
    let all = json(&run(pillion().args(["ps", "--output", "json", "--control-plane-admin", &admin])));
    let all = all["sidecars"].as_array().cloned().unwrap();
    all.into_iter().find(|one| one["name"] == name).unwrap_or_default()
}

fn text(pair: &Pair) -> String {
    run(pillion().args(["ps", "--control-plane-admin", &pair.mesh.admin_address().to_string()]))
}

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: orders, namespace: shop }
spec:
  parentRefs: [{ group: '', kind: Service, name: orders }]
  rules:
  - matches: [{ path: { type: RegularExpression, value: \"EXPRESSION\" } }]
    backendRefs: [{ name: orders, port: 80 }]
";

const REWRITE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: orders, namespace: shop }
spec:
  parentRefs: [{ group: '', kind: Service, name: orders }]
  rules:
  - matches: [{ path: { type: PathPrefix, value: /old } }]
    filters: [{ type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: '/a<b' } } }]
    backendRefs: [{ name: orders, port: 80 }]
";

#[test]
fn ps_shows_what_each_sidecar_runs() {
    let mut pair = Pair::start();
    pair.wait_until_observed();
    assert_eq!(pair.get("/", &[]), 200);
    until("the client is in sync with something", || {
        let client = of(&pair, "shop/client");
        client["configuration"]["state"] == "in sync" && client["configuration"]["resources"].as_u64() > Some(3)
    });
    let client = of(&pair, "shop/client");
    assert_eq!(client["identity"], "spiffe://cluster.local/ns/shop/sa/client");
    assert_eq!((&client["state"]["ready"], &client["state"]["endpoints"]), (&true.into(), &1.into()), "{client}");
    assert_eq!(client["configuration"]["version"], client["configuration"]["newest"]);
    let valid =
        client["state"]["certificate"]["not_after"].as_u64().unwrap() - client["state"]["started"].as_u64().unwrap();
    assert!((80_000..90_000).contains(&valid), "{client}");
    let table = text(&pair);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("WORKLOAD ") && lines.len() == 3, "{table}");
    assert!(lines[1].starts_with("shop/client  ") && lines[2].starts_with("shop/orders-1 "), "{table}");
    assert!(
        lines[1].contains(" shop/client ") && lines[1].contains("  ready  ") && lines[1].contains("in sync ("),
        "{table}"
    );

    pair.orders.process.kill();
    until("its absence is shown", || of(&pair, "shop/orders-1")["connected"] == 0);
    let table = text(&pair);
    assert!(table.lines().any(|line| line.starts_with("shop/orders-1 ") && line.contains("  absent  ")), "{table}");
}

#[test]
fn ps_shows_who_is_behind_and_what_was_refused() {
    let pair = Pair::start();
    pair.wait_until_observed();
    pair.mesh.write("route.yaml", &ROUTE.replace("EXPRESSION", "/[a-z]*"));
    until("the route is in force", || pair.get("/abc", &[]) == 200 && pair.get("/123", &[]) == 404);
    until("in sync", || of(&pair, "shop/client")["configuration"]["state"] == "in sync");

    // A sidecar that does not get on with it.
    pair.client.process.signal(Signal::SIGSTOP);
    pair.mesh.edit("route.yaml", "/[a-z]*", "/[0-9]*");
    until("the client is behind", || of(&pair, "shop/client")["configuration"]["behind"] == 1);
    let client = of(&pair, "shop/client");
    assert_ne!(client["configuration"]["version"], client["configuration"]["newest"]);
    assert!(client["configuration"]["since"].as_u64() > Some(0));
    assert!(client["silent"].as_str().unwrap().contains("did not answer"), "{client}");
    assert!(text(&pair).contains("behind 1 for "), "{}", text(&pair));
    pair.client.process.signal(Signal::SIGCONT);
    until("it has caught up", || of(&pair, "shop/client")["configuration"]["state"] == "in sync");
    assert_eq!(pair.get("/123", &[]), 200);

    // What costs more than a sidecar spends on a request is refused before it gets there.
    pair.mesh.edit("route.yaml", "/[0-9]*", "/[0-9]{1,4000}");
    until("the control plane refuses it", || {
        let config = json(&pair.mesh.admin("/api/v1/config"));
        let problems = config["problems"].to_string();
        problems.contains("spec.rules[0].matches[0].path.value") && problems.contains("a sidecar spends")
    });
    pair.mesh.edit("route.yaml", "/[0-9]{1,4000}", "/[0-9]*");
    until("it is good again", || json(&pair.mesh.admin("/api/v1/config"))["problems"] == Value::Array(Vec::new()));

    // A path that the control plane takes, but that sidecars know for none.
    pair.mesh.write("route.yaml", REWRITE);
    until("the client refuses it", || of(&pair, "shop/client")["configuration"]["state"] == "rejected");
    let client = of(&pair, "shop/client");
    for rejected in [&client["configuration"]["rejected"][0], &client["state"]["rejected"][0]] {
        assert_eq!(rejected["kind"], "route", "{client}");
        assert!(rejected["detail"].as_str().unwrap().contains("prefix_rewrite"), "{client}");
    }
    assert_eq!(client["configuration"]["behind"], 1);
    let table = text(&pair);
    assert!(table.contains("1 refused") && table.contains("  refused route "), "{table}");
    assert_eq!(pair.get("/123", &[]), 200, "the last good version stays");
    assert!(is_marked(&pair), "the dashboard says it too");
    pair.mesh.edit("route.yaml", "/a<b", "/a-b");
    until("it is accepted", || of(&pair, "shop/client")["configuration"]["state"] == "in sync");
    assert_eq!(of(&pair, "shop/client")["state"]["rejected"], Value::Array(Vec::new()));
    until("the dashboard marks it no longer", || !is_marked(&pair));
}

/// Does the graph say that the client refuses what it was sent?
fn is_marked(pair: &Pair) -> bool {
    let graph = json(&pair.mesh.admin("/api/v1/graph"));
    let nodes = graph["nodes"].as_array().unwrap();
    let client = nodes.iter().find(|node| node["name"] == "client").unwrap();
    client["workloads"][0]["refused"] == true
}

#[test]
fn ps_watches_over_a_restart_of_the_control_plane() {
    let pair = Pair::start();
    pair.wait_until_observed();
    let admin = pair.mesh.admin_address().to_string();
    let watch = Process::pillion("ps --watch", &["ps", "--watch", "--output", "json", "--control-plane-admin", &admin]);
    let latest = || super::lines(&watch).last().cloned().unwrap_or_default();
    let is_complete = || {
        let latest = latest();
        (0..2).all(|at| latest["sidecars"][at]["state"]["ready"] == true)
    };
    until("both are shown", is_complete);
    pair.mesh.kill_control_plane();
    until("it says so", || watch.log().contains("trying again"));
    let before = super::lines(&watch).len();
    pair.mesh.start_control_plane();
    until("both are shown again", || super::lines(&watch).len() > before && is_complete());
    // What was accepted of the one before is the newest of this one: nothing is sent again.
    until("in sync", || (0..2).all(|at| latest()["sidecars"][at]["configuration"]["state"] == "in sync"));
}

#[test]
fn a_mesh_of_this_machine_is_found_without_an_address() {
    let runtime = tempfile::tempdir().unwrap();
    let mut demo = pillion();
    demo.args(["demo", "--duration", "30s", "--rate", "5"]).env("XDG_RUNTIME_DIR", runtime.path());
    let mut demo = Process::spawn("demo", &mut demo);
    let ps = || output(pillion().args(["ps", "--output", "json"]).env("XDG_RUNTIME_DIR", runtime.path()));
    until("the demo's sidecars are found", || {
        let output = ps();
        let all: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        all["sidecars"].as_array().is_some_and(|all| all.len() >= 8)
    });
    let top = output(pillion().args(["top", "--once", "--output", "json"]).env("XDG_RUNTIME_DIR", runtime.path()));
    let graph: Value = serde_json::from_slice(&top.stdout).unwrap_or_default();
    assert!(graph["nodes"].as_array().is_some_and(|nodes| nodes.len() >= 5), "{top:?}");
    let question = ["explain", "--from", "web-1", "GET", "http://orders.shop/"];
    let told = output(pillion().args(question).env("XDG_RUNTIME_DIR", runtime.path()));
    assert!(String::from_utf8_lossy(&told.stdout).starts_with("documents of the mesh at 127."), "{told:?}");
    demo.signal(Signal::SIGINT);
    demo.wait();
    let left = std::fs::read_dir(runtime.path().join("pillion/meshes")).unwrap().count();
    assert_eq!(left, 0, "the demo takes its note away");
}
