//! Configuration that is edited all the time, badly, and in every way that files can be.

use std::fs;

use super::{Load, Shop, refusals, soon, split};
use crate::support::{Mesh, curl, output, pillion};

#[test]
fn a_thousand_edits_under_load_fail_no_request_and_the_last_is_in_force() {
    let mesh = Mesh::start();
    let shop = Shop::open(&mesh, &[]);
    shop.all_go_to("v1");
    let load = Load::on(&mesh, &shop);
    let updates = || mesh.metrics().sum("pillion_control_plane_config_updates_total", &[]);
    for round in 0..25_u32 {
        let before = updates();
        for edit in 0..40 {
            mesh.write("route.yaml", &split(1 + round, 1 + edit));
        }
        soon("edits come into force while they are made", || updates() > before);
    }
    mesh.write("route.yaml", &split(0, 1));
    shop.all_go_to("v2");
    load.stop();
    assert_eq!(refusals(&mesh), 0.0);
}

#[test]
fn a_bad_edit_is_refused_and_named_and_the_last_good_version_stays() {
    let mesh = Mesh::start();
    let shop = Shop::open(&mesh, &[]);
    shop.all_go_to("v1");
    let load = Load::on(&mesh, &shop);

    let bad = split(0, 1).replace("weight: 1", "weight: heavy");
    mesh.write("route.yaml", &bad);
    soon("the page names it", || mesh.admin("/debug/config").contains("spec.rules[0].backendRefs[1].weight"));
    let page = mesh.admin("/debug/config");
    assert!(page.contains("\"file\": \"route.yaml\"") && page.contains("\"previous_in_force\": true"), "{page}");
    assert!(page.contains("\"line\": 9"), "{page}");
    let log = mesh.with_control_plane(|process| process.log());
    assert!(log.contains("route.yaml:9: error: ") && log.contains("the previous version stays in force"), "{log}");
    let check = output(pillion().arg("check").arg(mesh.config()));
    let report = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(check.status.code(), Some(1));
    assert!(report.contains("route.yaml:9: error: ") && report.contains("weight"), "{report}");
    let rejected = || mesh.metrics().sum("pillion_control_plane_config_rejected_objects", &[]);
    assert_eq!(rejected(), 1.0);

    // Its neighbours are not hurt: another edit comes into force, and the last good route is still used.
    mesh.service("other", &[("http", 80, "http")]);
    soon("the neighbour is in force", || mesh.admin("/debug/config").contains("Service shop/other"));
    shop.all_go_to("v1");
    mesh.write("route.yaml", &split(0, 1));
    shop.all_go_to("v2");
    assert_eq!(rejected(), 0.0);
    load.stop();
}

#[test]
fn files_are_followed_however_they_are_written() {
    let mesh = Mesh::start();
    let shop = Shop::open(&mesh, &[]);
    shop.all_go_to("v1");
    let load = Load::on(&mesh, &shop);

    let nested = mesh.config().join("a/b");
    fs::create_dir_all(&nested).unwrap();
    let (first, second) = (split(0, 1), split(1, 0));
    // Moved into a new folder, as one of several documents of its file, by copy before removal.
    fs::write(nested.join("several.yml"), format!("---\n# nothing\n---\n{first}---\n{}", other("nested"))).unwrap();
    soon("a nested document is in force", || mesh.admin("/debug/config").contains("Service shop/nested"));
    mesh.remove("route.yaml");
    shop.all_go_to("v2");

    // Written in place in two halves, with anything at all in between.
    let half = second.len() / 2;
    fs::write(nested.join("several.yml"), &second[..half]).unwrap();
    shop.all_go_to("v2");
    fs::write(nested.join("several.yml"), &second).unwrap();
    shop.all_go_to("v1");
    soon("a removed document is gone", || !mesh.admin("/debug/config").contains("Service shop/nested"));

    // Renamed over the old one; then the whole folder goes, and with it the route.
    fs::write(mesh.scratch().join("new"), &first).unwrap();
    fs::rename(mesh.scratch().join("new"), nested.join("several.yml")).unwrap();
    shop.all_go_to("v2");
    fs::remove_dir_all(mesh.config().join("a")).unwrap();
    shop.all_go_to("v1");
    load.stop();
    mesh.remove("service-web.yaml");
    soon("a removed service is unknown", || {
        curl(&[&format!("http://{}/", shop.client.outbound()), "-H", "Host: web.shop"]).status != 200
    });
}

fn other(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\nspec: {{ ports: [ {{ port: 80 }} ] }}\n"
    )
}
