//! The protocol itself, as gRPC clients in general see it: what is sent, when, and what is not.

use serde_json::{Value, json};

use super::client::Probe;
use super::{refusals, soon, split};
use crate::support::Mesh;

const KINDS: [&str; 4] = ["Listener", "RouteConfiguration", "Cluster", "ClusterLoadAssignment"];

#[test]
fn only_changed_resources_are_pushed() {
    let mesh = shop();
    let probe = Probe::open(&mesh, "delta");
    subscribe_to_all(&probe);
    probe.responses(4);
    mesh.write("route.yaml", &split(0, 1));
    probe.responses(5);
    mesh.write("v2.yaml", &version("v2", 2, 9));
    let responses = probe.responses(6);
    assert_eq!(responses.len(), 6);
    assert_eq!(names(&responses[4]), ("RouteConfiguration", vec!["web.shop:80"]));
    assert_eq!(names(&responses[5]), ("ClusterLoadAssignment", vec!["v2.shop:80"]));
}

#[test]
fn unrelated_edits_change_no_version() {
    let mesh = shop();
    let probe = Probe::open(&mesh, "delta");
    subscribe_to_all(&probe);
    probe.responses(4);
    let updates = || mesh.metrics().sum("pillion_control_plane_config_updates_total", &[]);
    for port in 1..=50 {
        let before = updates();
        mesh.service("other", &[("http", port, "http")]);
        soon("the edit is in force", || updates() > before);
    }
    mesh.write("v2.yaml", &version("v2", 2, 9));
    let responses = probe.responses(5);
    assert_eq!(responses.len(), 5, "nothing but the last edit was sent: {responses:?}");
    assert_eq!(names(&responses[4]), ("ClusterLoadAssignment", vec!["v2.shop:80"]));
}

#[test]
fn unknown_names_are_answered_at_once_and_pushed_when_they_appear() {
    let mesh = shop();
    let probe = Probe::open(&mesh, "delta");
    for kind in KINDS {
        probe.send(kind, json!({ "resourceNamesSubscribe": ["late.shop:80", "not a name at all"] }));
    }
    for response in probe.responses(4) {
        assert_eq!(response["removed"], json!(["late.shop:80", "not a name at all"]), "{response}");
        assert_eq!(response["resources"], json!({}));
    }
    mesh.service("late", &[("http", 80, "http")]);
    let appeared = probe.responses(8);
    assert!(appeared[4..].iter().all(|response| names(response).1 == ["late.shop:80"]), "{appeared:?}");
    mesh.remove("service-late.yaml");
    let gone = probe.responses(12);
    assert!(gone[8..].iter().all(|response| response["removed"] == json!(["late.shop:80"])), "{gone:?}");
}

#[test]
fn versions_that_a_client_holds_are_not_sent_again() {
    let mesh = shop();
    let probe = Probe::open(&mesh, "delta");
    subscribe_to_all(&probe);
    let held = probe.responses(4);
    // Over a restart of the control plane, too: versions do not depend on the process.
    mesh.kill_control_plane();
    mesh.start_control_plane();
    probe.restart();
    for response in &held {
        let mut versions = response["resources"].clone();
        versions["gone.shop:80"] = "1".into();
        let subscribe = ["web.shop:80", "v1.shop:80", "v2.shop:80", "gone.shop:80"];
        let request = json!({ "resourceNamesSubscribe": subscribe, "initialResourceVersions": versions });
        probe.send(response["kind"].as_str().unwrap(), request);
    }
    let responses = probe.responses(4);
    for response in &responses {
        assert_eq!((&response["resources"], &response["removed"]), (&json!({}), &json!(["gone.shop:80"])));
    }
    mesh.write("route.yaml", &split(0, 1));
    let responses = probe.responses(5);
    assert_eq!((responses.len(), names(&responses[4])), (5, ("RouteConfiguration", vec!["web.shop:80"])));
}

#[test]
fn a_client_that_closes_its_half_still_gets_what_it_asked_for() {
    let mesh = shop();
    let probe = Probe::open(&mesh, "delta");
    for kind in KINDS.into_iter().cycle().take(12) {
        probe.send_last(kind, json!({ "resourceNamesSubscribe": ["web.shop:80"] }));
        assert_eq!(names(&probe.responses(1)[0]), (kind, vec!["web.shop:80"]));
        probe.restart();
    }
}

#[test]
fn a_refusal_is_counted_and_shown_with_its_reason() {
    let mesh = shop();
    let probe = Probe::open(&mesh, "delta");
    probe.refuse("routes[0].match: I do not like it");
    probe.send("RouteConfiguration", json!({ "resourceNamesSubscribe": ["web.shop:80"] }));
    soon("it is counted", || refusals(&mesh) == 1.0);
    let page = || serde_json::from_str::<Value>(&mesh.admin("/debug/nodes")).unwrap();
    let route = page()["nodes"][0]["kinds"]["route"].clone();
    assert_eq!((&route["nacks"], &route["acks"]), (&json!(1), &json!(0)));
    assert!(route["last_error"].as_str().unwrap().ends_with("routes[0].match: I do not like it"), "{route}");
    let log = mesh.with_control_plane(|process| process.log());
    assert!(log.contains("configuration refused by its client") && log.contains("I do not like it"), "{log}");

    mesh.write("route.yaml", &split(0, 1));
    soon("the next version is accepted", || page()["nodes"][0]["kinds"]["route"]["acks"] == 1);
    assert_eq!(probe.responses(2).len(), 2, "what was refused is not sent again by itself");
}

#[test]
fn the_state_of_the_world_holds_what_is_subscribed_and_no_more() {
    let mesh = shop();
    let probe = Probe::open(&mesh, "sotw");
    for (count, kind) in KINDS.iter().enumerate() {
        probe.send(kind, json!({ "resourceNames": ["v1.shop:80", "v2.shop:80", "none.shop:80"] }));
        let responses = probe.responses(count + 1);
        assert_eq!(responses[count]["names"], json!(["v1.shop:80", "v2.shop:80"]), "{kind}");
    }
    // Routes and endpoints: what changed. Clusters: all of them, or one would be taken for removed.
    mesh.write("v2.yaml", &version("v2", 2, 9));
    let endpoints = &probe.responses(5)[4];
    assert_eq!((&endpoints["kind"], &endpoints["names"]), (&json!("ClusterLoadAssignment"), &json!(["v2.shop:80"])));
    mesh.service("v2", &[("http", 80, "h2c")]);
    let responses = soon_of(&probe, "Cluster", 2);
    assert_eq!(responses[1]["names"], json!(["v1.shop:80", "v2.shop:80"]));
    mesh.remove("service-v2.yaml");
    assert_eq!(soon_of(&probe, "Cluster", 3)[2]["names"], json!(["v1.shop:80"]));
    assert_eq!(refusals(&mesh), 0.0);
}

/// All responses of a kind, as soon as there are `count`.
fn soon_of(probe: &Probe, kind: &str, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    soon(&format!("{count} responses of {kind}"), || {
        found = probe.responses(0).into_iter().filter(|response| response["kind"] == kind).collect();
        found.len() >= count
    });
    found
}

/// A mesh of documents alone: nobody serves them.
fn shop() -> Mesh {
    let mesh = Mesh::start();
    mesh.service_for("web", "v1", &[("http", 80, "http")]);
    for (number, name) in [(1, "v1"), (2, "v2")] {
        mesh.service(name, &[("http", 80, "http")]);
        mesh.write(&format!("{name}.yaml"), &version(name, number, number));
    }
    mesh.write("route.yaml", &split(1, 0));
    soon("all is in force", || mesh.metrics().sum("pillion_control_plane_config_objects", &[]) == 6.0);
    mesh
}

fn version(name: &str, number: u32, address: u32) -> String {
    format!(
        "apiVersion: pillion.dev/v1alpha1\nkind: Workload\n\
         metadata: {{ name: web-{number}, namespace: shop, labels: {{ app: {name} }} }}\n\
         spec: {{ address: 127.1.1.{address}, serviceAccount: web, mesh: {{ port: 15008 }}, \
         ports: [ {{ name: http, port: 8080 }} ] }}\n"
    )
}

fn subscribe_to_all(probe: &Probe) {
    for (count, kind) in KINDS.iter().enumerate() {
        probe.send(kind, json!({ "resourceNamesSubscribe": ["web.shop:80", "v1.shop:80", "v2.shop:80"] }));
        let responses = probe.responses(count + 1);
        assert_eq!(names(&responses[count]), (*kind, vec!["v1.shop:80", "v2.shop:80", "web.shop:80"]));
    }
}

/// The kind of a response and the names in it.
fn names(response: &Value) -> (&str, Vec<&str>) {
    let resources = response["resources"].as_object().unwrap();
    let mut names: Vec<&str> = resources.keys().map(String::as_str).collect();
    names.sort_unstable();
    (response["kind"].as_str().unwrap(), names)
}
