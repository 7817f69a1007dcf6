//! How a request says where it is for.

use super::{Pair, echoed, field, http1, raw, through};
use crate::support::{Workload, curl};

const CLIENTS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

#[test]
fn a_service_answers_to_each_of_its_names() {
    let pair = Pair::new("http", http1);
    let names = [
        "echo",
        "echo.shop",
        "ECHO.Shop",
        "echo.shop.svc",
        "echo.shop.svc.cluster.local",
        "echo.shop:80",
        "echo.shop.",
    ];
    for client in CLIENTS {
        for name in names {
            let host = format!("Host: {name}");
            let url = format!("http://{}/", pair.client.outbound());
            let echo = echoed(&curl(&[&url, client, "-H", &host]));
            assert_eq!(field(&echo, "host"), [name], "the application sees the name as it was written: {echo}");
        }
    }
}

#[test]
fn a_short_name_means_the_callers_own_namespace() {
    let pair = Pair::new("http", http1);
    let stranger = pair.mesh.workload(Workload::new("stranger").namespace("office"));
    let response = through(stranger.outbound(), "http://echo/", &[]);
    assert_eq!((response.status, response.reason()), (502, "unknown_destination"), "{response:?}");
    echoed(&through(stranger.outbound(), "http://echo.shop/", &[]));
}

#[test]
fn a_client_that_knows_it_talks_to_a_proxy_uses_the_absolute_form() {
    let pair = Pair::new("http", http1);
    let proxy = format!("http://{}", pair.client.outbound());
    let echo = echoed(&curl(&["-x", &proxy, "http://echo.shop/a?b=c"]));
    assert_eq!((&echo["target"], field(&echo, "host")), (&"/a?b=c".into(), vec!["echo.shop"]), "{echo}");
    // The target wins over the Host field, and replaces it (RFC 9112, section 3.2.2).
    let echo = echoed(&curl(&["-x", &proxy, "http://echo.shop/", "-H", "Host: other.shop"]));
    assert_eq!(field(&echo, "host"), ["echo.shop"], "{echo}");
    let answer = raw(pair.client.outbound(), "GET http://echo.shop HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200") && answer.contains("\"target\": \"/\""), "{answer}");
}

#[test]
fn destinations_that_nobody_knows_are_refused_at_once_and_by_name() {
    let pair = Pair::new("http", http1);
    for client in CLIENTS {
        for host in ["nobody.shop", "echo.shop:81", "echo.office", "example.com", "192.0.2.1", "[2001:db8::1]:8080"] {
            let response = through(pair.client.outbound(), &format!("http://{host}/"), &[client]);
            assert_eq!((response.status, response.reason()), (502, "unknown_destination"), "{host}: {response:?}");
            let name = host.trim_end_matches(":81").trim_end_matches(":8080");
            assert!(response.text().contains(name), "{host}: {}", response.text());
        }
    }
}

#[test]
fn a_service_and_a_workload_are_reached_by_their_addresses() {
    let pair = Pair::new("http", http1);
    let page: serde_json::Value = serde_json::from_str(&pair.mesh.admin("/debug/config")).unwrap();
    let virtual_addresses = page["addresses"]["shop/echo"].as_array().unwrap();
    let [v4, v6] = virtual_addresses.as_slice() else { panic!("{page}") };
    let own = pair.server.front("web").to_string();
    let hosts = [v4.as_str().unwrap().to_owned(), format!("[{}]", v6.as_str().unwrap()), own.clone()];
    for host in &hosts {
        let echo = echoed(&through(pair.client.outbound(), &format!("http://{host}/"), &[]));
        assert_eq!(field(&echo, "host"), [host], "{echo}");
    }
    for (cluster, count) in [("echo.shop:80", 2.0), (own.as_str(), 1.0)] {
        let labels = [("direction", "outbound"), ("cluster", cluster), ("tls", "mutual"), ("status", "200")];
        assert_eq!(pair.client.metric("pillion_requests_total", &labels), count, "{cluster}");
    }
    let ask = |host: &str| through(pair.client.outbound(), &format!("http://{host}/"), &[]).status;
    assert_eq!(ask(&pair.server.mesh().to_string()), 502, "the sidecar's own port is nobody's destination");
    pair.mesh.remove("workload-echo.yaml");
    crate::support::until("its address leads nowhere", || ask(&own) == 502);
}

#[test]
fn a_destination_that_appears_is_reached_without_a_restart() {
    let pair = Pair::new("http", http1);
    let ask = || through(pair.client.outbound(), "http://late.shop/", &[]).status;
    assert_eq!(ask(), 502);
    pair.mesh.service_for("late", "echo", &[("web", 80, "http")]);
    crate::support::until("the new name works", || ask() == 200);
    pair.mesh.remove("service-late.yaml");
    crate::support::until("the name is gone again", || ask() == 502);
}
