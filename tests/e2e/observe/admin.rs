//! The admin ports of sidecar and control plane.

use std::net::SocketAddr;

use serde_json::Value;

use super::{Pair, json};
use crate::support::{Curl, curl, until};

fn get(admin: SocketAddr, path: &str) -> Curl {
    curl(&[&format!("http://{admin}{path}")])
}

fn post(admin: SocketAddr, path: &str) -> Curl {
    curl(&[&format!("http://{admin}{path}"), "-X", "POST"])
}

#[test]
fn levels_change_at_run_time_and_go_back() {
    let pair = Pair::start();
    let sidecar = pair.client.admin();
    let debug_lines = || pair.client.process.log().lines().filter(|line| line.contains("DEBUG")).count();
    assert_eq!(pair.get("/", &[]), 200);
    assert_eq!(debug_lines(), 0);
    assert_eq!(json(&get(sidecar, "/logging").text())["filter"], "info");
    for query in ["", "?level=loud", "?level=debug&for=1y", "?%5Bbroken"] {
        assert_eq!(post(sidecar, &format!("/logging{query}")).status, 400, "{query}");
    }
    let changed = post(sidecar, "/logging?level=debug&for=3s");
    assert_eq!((changed.status, &json(&changed.text())["filter"]), (200, &"debug".into()));
    until("debug lines", || {
        // A connection that ends in the middle of a request is a debug line.
        let _answer = curl(&[&format!("telnet://{sidecar}"), "--max-time", "0.01"]);
        pair.get("/", &[]) == 200 && debug_lines() > 0
    });
    until("the usual filter is back", || json(&get(sidecar, "/logging").text())["filter"] == "info");
    let before = debug_lines();
    assert_eq!(pair.get("/", &[]), 200);
    assert_eq!(debug_lines(), before);
    assert_eq!(post(sidecar, "/logging?warn,pillion_proxy::discovery=debug").status, 200);
    let now = json(&get(sidecar, "/logging").text());
    assert_eq!(now["filter"], "warn,pillion_proxy::discovery=debug");
    assert_eq!(now["back_in_seconds"], Value::Null);

    let control_plane = pair.mesh.admin_address();
    let is_logged = || pair.mesh.with_control_plane(|process| process.log().contains("DEBUG"));
    assert!(!is_logged());
    assert_eq!(post(control_plane, "/logging?level=debug&for=1h").status, 200);
    assert_eq!(json(&get(control_plane, "/logging").text())["filter"], "debug");
    until("debug lines of the control plane", || {
        drop(std::net::TcpStream::connect(pair.mesh.control_plane_address()));
        is_logged()
    });
}

#[test]
fn pages_say_what_they_promise() {
    let pair = Pair::start();
    assert_eq!(pair.get("/", &[]), 200);
    let page = |path: &str| json(&get(pair.client.admin(), path).text());

    let certs = page("/certs");
    assert_eq!(certs["identity"]["id"], "spiffe://cluster.local/ns/shop/sa/client");
    let chain = certs["identity"]["chain"].as_array().unwrap();
    assert_eq!(chain[0]["spiffe_ids"][0], "spiffe://cluster.local/ns/shop/sa/client");
    assert!(chain.len() == 2 && chain[0]["is_ca"] == false && chain[1]["is_ca"] == true, "{certs}");
    assert!(chain[0]["expires_in_seconds"].as_u64() > Some(80_000), "{certs}");
    assert_eq!(certs["roots"].as_array().unwrap().len(), 1);
    assert!(!certs.to_string().contains("PRIVATE"));

    let memory = page("/memory");
    let resident = memory["bytes"]["resident"].as_u64().unwrap();
    assert!((1 << 20..1 << 30).contains(&resident), "{memory}");
    let counts = &memory["counts"];
    assert!(["clusters", "endpoints", "destinations"].iter().all(|name| counts[name] == 1), "{memory}");
    assert!(counts["resources"].as_u64() > Some(3) && counts["metric_samples"].as_u64() > Some(10), "{memory}");

    let outbound = page("/config_dump?resource=outbound&name_regex=^orders");
    assert_eq!(outbound.as_object().unwrap().keys().collect::<Vec<_>>(), ["outbound"]);
    assert_eq!(outbound["outbound"].as_object().unwrap().len(), 1, "{outbound}");
    assert_eq!(page("/config_dump?name_regex=^nothing$")["outbound"], json("{}"));
    assert_eq!(get(pair.client.admin(), "/config_dump?name_regex=(").status, 400);
    assert_eq!(page("/clusters?format=json"), page("/clusters"));
    assert_eq!(get(pair.client.admin(), "/clusters?format=text").status, 400);
    assert_eq!(page("/drain")["draining"], false);
    assert!(get(pair.client.admin(), "/help").text().contains("/config_dump"));
    assert_eq!(get(pair.client.admin(), "/ready").status, 200);

    // The control plane passes them on, and nothing else.
    pair.wait_until_observed();
    let through = |path: &str| get(pair.mesh.admin_address(), &format!("/api/v1/sidecars/shop/client{path}"));
    assert_eq!(json(&through("/certs").text())["identity"]["id"], certs["identity"]["id"]);
    assert_eq!(json(&through("/config_dump?resource=outbound&name_regex=^orders").text()), outbound);
    assert_eq!(through("/config_dump?name_regex=(").status, 400);
    assert_eq!(json(&through("").text())["name"], "shop/client");
    assert_eq!((through("/nothing").status, through("x").status), (502, 404));
}

#[test]
fn nothing_changes_by_get_nor_for_web_pages() {
    let pair = Pair::start();
    pair.wait_until_observed();
    let (sidecar, control_plane) = (pair.client.admin(), pair.mesh.admin_address());
    let filter = json(&get(sidecar, "/logging").text())["filter"].clone();
    for method in [&["-G"][..], &["--head"], &["-X", "PUT"], &["-X", "DELETE"], &["-X", "OPTIONS"]] {
        for path in ["/drain", "/logging?level=debug", "/logging?debug"] {
            for admin in [sidecar, control_plane] {
                let _answer = curl(&[&[format!("http://{admin}{path}").as_str()], method].concat());
            }
        }
        for path in ["/drain", "/logging?level=debug"] {
            let url = format!("http://{control_plane}/api/v1/sidecars/shop/client{path}");
            let _answer = curl(&[&[url.as_str()], method].concat());
        }
    }
    assert_eq!(post(control_plane, "/api/v1/sidecars/shop/client/drain").status, 405);
    assert_eq!(post(control_plane, "/api/v1/sidecars/shop/client/logging?level=debug").status, 405);
    let web_page = ["-X", "POST", "-H", "Origin: http://evil.example"];
    for admin in [sidecar, control_plane] {
        let url = format!("http://{admin}/logging?level=debug");
        assert_eq!(curl(&[&[url.as_str()], &web_page[..]].concat()).status, 403);
    }
    for path in ["/api/v1/sidecars", "/api/v1/tap", "/logging"] {
        let url = format!("http://{control_plane}{path}");
        assert_eq!(curl(&[&url, "-H", "Host: evil.example"]).status, 403, "{path}");
    }
    assert_eq!(json(&get(sidecar, "/logging").text())["filter"], filter);
    assert_eq!(json(&get(control_plane, "/logging").text())["filter"], "info");
    assert_eq!(json(&get(sidecar, "/drain").text())["draining"], false);
    assert_eq!(pair.get("/", &[]), 200);
}

#[test]
fn whoever_holds_many_connections_keeps_nobody_away() {
    let pair = Pair::start();
    for port in [pair.client.health(), pair.client.admin()] {
        let connect = |_| std::net::TcpStream::connect(port).unwrap();
        let mut held: Vec<_> = (0..100).map(connect).collect();
        for connection in &mut held {
            std::io::Write::write_all(connection, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        }
        assert_eq!(get(port, "/ready").status, 200);
        drop(held);
    }
}
