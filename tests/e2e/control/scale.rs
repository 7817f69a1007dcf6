//! A service of ten thousand endpoints.

use std::fmt::Write as _;

use serde_json::Value;
use tokio::time::Instant;

use super::{SOON, sent, soon};
use crate::support::{Mesh, Workload, curl};

const ENDPOINTS: u32 = 10_000;
const KINDS: [&str; 4] = ["listener", "route", "cluster", "endpoints"];

#[test]
fn ten_thousand_endpoints_are_served_and_applied_and_one_change_pushes_one_resource() {
    let mesh = Mesh::start();
    let client = mesh.workload(Workload::new("client"));
    mesh.service("big", &[("http", 80, "http")]);
    let mut documents = String::new();
    for number in 1..ENDPOINTS {
        writeln!(documents, "{}---", endpoint(number, 8080)).unwrap();
    }
    mesh.write("last.yaml", &endpoint(ENDPOINTS, 8080));
    let start = Instant::now();
    mesh.write("endpoints.yaml", &documents);
    let objects = || mesh.metrics().sum("pillion_control_plane_config_objects", &[]);
    crate::support::eventually("the control plane has read them", SOON * 2, || {
        (objects() >= f64::from(ENDPOINTS)).then_some(())
    });
    let read = start.elapsed();
    // Nobody listens there: what counts is that the sidecar asks, and has an answer.
    let refused = curl(&[&format!("http://{}/", client.outbound()), "-H", "Host: big.shop"]);
    assert_eq!((refused.status, refused.reason()), (503, "connect_failure"), "{refused:?}");
    assert_eq!(hosts(&client.admin_page("/clusters")).len(), 10_000);
    let applied = start.elapsed() - read;

    let before = KINDS.map(|kind| sent(&mesh, kind));
    mesh.write("last.yaml", &endpoint(ENDPOINTS, 9090));
    soon("the sidecar has the change", || {
        hosts(&client.admin_page("/clusters")).iter().any(|address| address.ends_with(":9090"))
    });
    let after = KINDS.map(|kind| sent(&mesh, kind));
    let pushed: Vec<f64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
    assert_eq!(pushed, [0.0, 0.0, 0.0, 1.0]);
    let memory = [mesh.with_control_plane(|process| process.peak_kib()), client.process.peak_kib()];
    assert!(memory[0] < 600 << 10 && memory[1] < 200 << 10, "{memory:?} KiB, read in {read:?}, applied in {applied:?}");
}

fn endpoint(number: u32, port: u16) -> String {
    let (high, low) = (number / 250, number % 250);
    format!(
        "apiVersion: pillion.dev/v1alpha1\nkind: Workload\n\
         metadata: {{ name: big-{number}, namespace: shop, labels: {{ app: big }} }}\n\
         spec: {{ address: 127.199.{high}.{}, ports: [ {{ name: http, port: {port} }} ] }}\n",
        low + 1
    )
}

fn hosts(page: &str) -> Vec<String> {
    let page: Value = serde_json::from_str(page).unwrap();
    let hosts = page["big.shop:80"]["hosts"].as_array().unwrap();
    hosts.iter().map(|host| host["address"].as_str().unwrap().to_owned()).collect()
}
