//! The control plane goes away: sidecars serve on with what they know, and come back without a fuss.

use std::collections::BTreeSet;

use pillion_cli::metrics::Samples;
use serde_json::Value;
use tokio::time::Instant;

use super::{Load, Shop, sent, soon, split};
use crate::support::{Mesh, Process, Sidecar, curl, pillion};

#[test]
fn a_killed_control_plane_costs_no_request_and_what_is_held_is_not_sent_again() {
    let mesh = Mesh::start();
    let shop = Shop::open(&mesh, &[]);
    mesh.write("route.yaml", &split(1, 1));
    soon("both versions are in use", || shop.answer() == "v2");
    let load = Load::on(&mesh, &shop);

    mesh.kill_control_plane();
    let killed = Instant::now();
    for sidecar in shop.sidecars() {
        soon("it tries again", || failures(sidecar) >= 3.0);
    }
    let most: Vec<f64> = shop.sidecars().iter().map(|sidecar| failures(sidecar)).collect();
    // The first wait is 100 ms, and each is at least twice the one before.
    let bound = 2.0 + (killed.elapsed().as_secs_f64() / 0.1 + 1.0).log2();
    assert!(most.iter().all(|failures| *failures <= bound), "{most:?} attempts in {:?}", killed.elapsed());
    let answers: BTreeSet<String> = (0..40).map(|_| shop.answer()).collect(); // Chance: all alike once in 2^39.
    assert_eq!(answers.len(), 2, "what was held stays in force");

    mesh.start_control_plane();
    for sidecar in shop.sidecars() {
        soon("it is connected again", || sidecar.metric("pillion_xds_connected", &[]) == 1.0);
    }
    soon("all have subscribed again", || {
        let nodes: Value = serde_json::from_str(&mesh.admin("/debug/nodes")).unwrap();
        let nodes = nodes["nodes"].as_array().unwrap();
        nodes.len() == 3 && nodes.iter().all(|node| node["names"].as_u64() > Some(0))
    });
    mesh.write("route.yaml", &split(0, 1));
    shop.all_go_to("v2");
    load.stop();
    let pushed = ["listener", "route", "cluster", "endpoints"].map(|kind| sent(&mesh, kind));
    assert_eq!(pushed, [0.0, 1.0, 0.0, 0.0], "only the changed route was sent");
}

#[test]
fn a_sidecar_waits_for_the_control_plane_and_says_so() {
    let mesh = Mesh::start();
    mesh.kill_control_plane();
    let (admin, health) = (mesh.free_address(), mesh.free_address());
    let mut bootstrap = mesh.membership("shop", "early");
    for (key, value) in [("workload", "early"), ("namespace", "shop"), ("service_account", "early")] {
        bootstrap[key] = value.into();
    }
    for (key, address) in [("admin", admin), ("health", health), ("outbound_http", mesh.free_address())] {
        bootstrap[key] = address.to_string().into();
    }
    let file = mesh.secret_file("early.json", &bootstrap.to_string());
    let mut sidecar = Process::spawn("sidecar early", pillion().arg("proxy").arg("--bootstrap").arg(file));

    let ready = || curl(&[&format!("http://{health}/ready")]);
    soon("it says that it waits", || {
        ready().text().contains("waiting for the first certificate from the control plane")
    });
    assert_eq!(ready().status, 503);
    soon("its log says why", || sidecar.log().contains("the control plane cannot be reached"));
    let metrics = || Samples::parse(&curl(&[&format!("http://{admin}/metrics")]).text());
    soon("and it counts", || metrics().sum("pillion_xds_connects_total", &[("result", "unreachable")]) >= 2.0);
    assert_eq!(sidecar.stdout(), "", "it does not say that it is ready");
    mesh.start_control_plane();
    sidecar.ready();
    assert_eq!(ready().status, 200);
}

fn failures(sidecar: &Sidecar) -> f64 {
    sidecar.metric("pillion_xds_connects_total", &[("result", "unreachable")])
}
