//! Certificates of a few seconds, renewed while requests flow.

use super::{Load, Shop, soon};
use crate::support::{Mesh, Sidecar, Workload, curl};

#[test]
fn ten_renewals_under_load_fail_no_request() {
    let mesh = Mesh::start();
    let shop = Shop::open(&mesh, &[("certificate_lifetime", "2s")]);
    let load = Load::on(&mesh, &shop);
    let first: Vec<f64> = shop.sidecars().iter().map(|sidecar| expiry(sidecar)).collect();
    for sidecar in shop.sidecars() {
        soon("eleven certificates", || issued(sidecar) >= 11.0);
    }
    for (sidecar, first) in shop.sidecars().iter().zip(first) {
        assert!(expiry(sidecar) > first + 4.0, "the metric moves");
    }
    // A newcomer has no connection from before: it sees the certificates of now.
    let late = mesh.workload(Workload::new("late"));
    let response = curl(&[&format!("http://{}/", late.outbound()), "-H", "Host: web.shop"]);
    assert_eq!((response.status, response.text().trim()), (200, "v1"), "{response:?}");
    load.stop();
}

#[test]
fn an_outage_of_the_control_plane_across_a_renewal_costs_nothing() {
    let mesh = Mesh::start();
    let shop = Shop::open(&mesh, &[("certificate_lifetime", "8s")]);
    let load = Load::on(&mesh, &shop);
    let all = |sidecar: &Sidecar| sidecar.metric("pillion_certificates_total", &[]);
    mesh.kill_control_plane();
    let held = shop.sidecars().map(|sidecar| (issued(sidecar), expiry(sidecar)));
    for sidecar in shop.sidecars() {
        soon("a renewal fails", || all(sidecar) > issued(sidecar));
    }
    mesh.start_control_plane();
    for (sidecar, (count, expires)) in shop.sidecars().iter().zip(held) {
        soon("a later one does not", || issued(sidecar) > count && expiry(sidecar) > expires);
    }
    load.stop();
}

fn issued(sidecar: &Sidecar) -> f64 {
    sidecar.metric("pillion_certificates_total", &[("result", "ok")])
}

fn expiry(sidecar: &Sidecar) -> f64 {
    sidecar.metric("pillion_certificate_expiration_timestamp_seconds", &[])
}
