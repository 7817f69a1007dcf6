//! The control plane goes away: sidecars serve on with what they know, and come back without a fuss.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use pillion_cli::metrics::Samples;
use serde_json::Value;
use tokio::time::Instant;

use super::{Load, Shop, sent, soon, split};
use crate::support::{Mesh, Process, Sidecar, curl, pillion};

/// The answer when it lives on what it found.
const ON_DISK: &str = "ready, with the configuration found on disk";

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
    for (key, address) in
        [("admin", admin), ("health", health), ("metrics", mesh.free_address()), ("outbound_http", mesh.free_address())]
    {
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

#[test]
fn sidecars_that_start_while_the_control_plane_is_away_serve_with_what_they_kept() {
    let mesh = Mesh::start();
    let state = mesh.scratch().join("kept");
    let shop = Shop::open(&mesh, &[("state", state.to_str().unwrap())]);
    assert_eq!(shop.answer(), "v1");
    soon("all is kept", || files(&state).iter().filter(|name| name.contains("/client/")).count() == 6);
    for file in files(&state) {
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    mesh.kill_control_plane();

    let Shop { versions, client, _applications } = shop;
    let shop = Shop { versions: versions.map(|it| it.restart(&mesh)), client: client.restart(&mesh), _applications };
    for sidecar in shop.sidecars() {
        let ready = curl(&[&format!("http://{}/ready", sidecar.health())]);
        assert_eq!(ready.status, 200);
        assert!(ready.text().starts_with(ON_DISK), "{}", ready.text());
        assert_eq!(sidecar.metric("pillion_configuration_recalled", &[]), 1.0);
    }
    assert_eq!(shop.answer(), "v1", "over mutual TLS, with the certificates that were kept");

    mesh.start_control_plane();
    for sidecar in shop.sidecars() {
        soon("it is connected again", || sidecar.metric("pillion_configuration_recalled", &[]) == 0.0);
        assert_eq!(curl(&[&format!("http://{}/ready", sidecar.health())]).text(), "ready\n");
    }
    let pushed = ["listener", "route", "cluster", "endpoints"].map(|kind| sent(&mesh, kind));
    assert_eq!(pushed, [0.0; 4], "what was kept is not sent again");
    mesh.write("route.yaml", &split(0, 1));
    shop.all_go_to("v2");
}

#[test]
fn what_is_damaged_or_expired_on_disk_is_refused() {
    let mesh = Mesh::start();
    let state = mesh.scratch().join("kept");
    let settings = [("state", state.to_str().unwrap()), ("certificate_lifetime", "3s")];
    let shop = Shop::open(&mesh, &settings);
    assert_eq!(shop.answer(), "v1");
    soon("all is kept", || files(&state).iter().filter(|name| name.contains("/client/")).count() == 6);
    mesh.kill_control_plane();
    drop(shop);
    for file in files(&state).iter().filter(|name| name.contains("/client/cluster-")) {
        fs::write(file, "rubbish").unwrap();
    }
    let expired = SystemTime::now() + Duration::from_secs(4);
    soon("the certificates have expired", || SystemTime::now() > expired);

    let (admin, health) = (mesh.free_address(), mesh.free_address());
    let mut bootstrap = mesh.membership("shop", "client");
    for (key, value) in [("workload", "client"), ("namespace", "shop"), ("service_account", "client")] {
        bootstrap[key] = value.into();
    }
    for (key, address) in
        [("admin", admin), ("health", health), ("metrics", mesh.free_address()), ("outbound_http", mesh.free_address())]
    {
        bootstrap[key] = address.to_string().into();
    }
    for (key, value) in settings {
        bootstrap[key] = value.into();
    }
    let file = mesh.secret_file("client.json", &bootstrap.to_string());
    let mut sidecar = Process::spawn("sidecar client", pillion().arg("proxy").arg("--bootstrap").arg(file));
    let metrics = || Samples::parse(&curl(&[&format!("http://{admin}/metrics")]).text());
    soon("it refuses its certificate", || {
        metrics().sum("pillion_certificates_total", &[("result", "recall_refused")]) == 1.0
    });
    soon("its log says why", || sidecar.log().contains("the certificate on disk is not used"));
    soon("it says what is damaged", || sidecar.log().contains("cannot use what was kept"));
    let ready = curl(&[&format!("http://{health}/ready")]);
    assert!(ready.text().contains("waiting for the first certificate"), "{}", ready.text());
    mesh.start_control_plane();
    sidecar.ready();
}

/// Every file below `folder`.
fn files(folder: &std::path::Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let below = |path: std::path::PathBuf| match path.is_dir() {
        true => files(&path),
        false => vec![path.display().to_string()],
    };
    entries.flat_map(|entry| below(entry.unwrap().path())).collect()
}

fn failures(sidecar: &Sidecar) -> f64 {
    sidecar.metric("pillion_xds_connects_total", &[("result", "unreachable")])
}

#[test]
fn a_destination_that_nobody_calls_is_given_up_and_found_again() {
    let mesh = Mesh::start();
    let shop = Shop::open(&mesh, &[("destination_idle_timeout", "500ms")]);
    assert_eq!(shop.answer(), "v1");
    soon("it is given up", || {
        let dump: Value = serde_json::from_str(&shop.client.admin_page("/config_dump")).unwrap();
        !dump.to_string().contains("web.shop:80")
    });
    assert_eq!(shop.answer(), "v1");
}
