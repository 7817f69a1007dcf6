//! What requests fall back on when nobody can take them.

use super::limits::{ask, cluster, policy};
use crate::support::{Curl, Mesh, Sidecar, Workload, curl, nginx, until};

fn post(client: &Sidecar, arguments: &[&str]) -> Curl {
    let url = format!("http://{}/", client.outbound());
    curl(&[&[&url, "-H", "Host: main.shop", "-d", "one coffee"], arguments].concat())
}

#[test]
fn the_next_backend_in_order_takes_what_nobody_can_and_then_a_prescribed_answer() {
    let mesh = Mesh::start();
    let backup = nginx(&mesh, "location / { return 200 backup; }");
    mesh.service("main", &[("http", 80, "http")]);
    mesh.service("backup", &[("http", 80, "http")]);
    let section = "fallback: { backends: [ { name: missing, port: 80 }, { name: backup, port: 80 } ], \
                   response: { status: 503, body: later } }";
    policy(&mesh, "main", section);
    let main = mesh.workload(Workload::new("main").port("http", mesh.free_address()));
    let _backup = mesh.workload(Workload::new("backup").port("http", backup.address));
    let client = mesh.workload(Workload::new("client"));

    // The application is down, and its sidecar says so; a body is gone with that.
    until("the other backend answers", || {
        let answer = ask(&client, "main", "/");
        (answer.status, answer.text()) == (200, "backup".to_owned())
    });
    assert_eq!((post(&client, &[]).status, post(&client, &[]).reason()), (503, "connect_failure"));
    let fallen =
        |cluster, reason| client.metric("pillion_fallbacks_total", &[("cluster", cluster), ("reason", reason)]);
    assert!(fallen("missing.shop:80", "peer_sidecar") >= 1.0, "the first in order");
    assert!(fallen("backup.shop:80", "no_healthy_upstream") >= 1.0, "the next");
    let last = client.access_log().into_iter().find(|line| line["response_code"] == 200).expect("a line");
    assert_eq!((&last["destination"], &last["upstream_cluster"]), (&"main.shop:80".into(), &"backup.shop:80".into()));

    // The sidecar is down, too: nothing was sent, and the body is still there.
    drop(main);
    until("the other backend answers", || post(&client, &[]).text() == "backup");
    mesh.remove("workload-main.yaml");
    until("the Service has nobody", || cluster(&client, "main")["hosts"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(post(&client, &[]).text(), "backup");
    assert!(fallen("missing.shop:80", "no_healthy_upstream") >= 1.0);

    mesh.remove("workload-backup.yaml");
    until("there is nobody at all", || {
        let answer = post(&client, &[]);
        (answer.status, answer.reason(), answer.text().as_str()) == (503, "no_healthy_upstream", "later")
    });
    let grpc = post(&client, &["-H", "Content-Type: application/grpc"]);
    assert!(grpc.head.contains("grpc-status: 14"), "{grpc:?}");
}

#[test]
fn what_is_over_a_limit_falls_back_too() {
    let mesh = Mesh::start();
    let [main, backup] = ["main", "backup"].map(|name| nginx(&mesh, &format!("location / {{ return 200 {name}; }}")));
    mesh.service("main", &[("http", 80, "http")]);
    mesh.service("backup", &[("http", 80, "http")]);
    policy(&mesh, "main", "fallback: { backends: [ { name: backup, port: 80 } ] }");
    let _main = mesh.workload(Workload::new("main").port("http", main.address));
    let _backup = mesh.workload(Workload::new("backup").port("http", backup.address));
    let client = mesh.workload(Workload::new("client"));
    assert!((0..5).all(|_| ask(&client, "main", "/").text() == "main"));
    mesh.edit("policy-main.yaml", "fallback:", "limits: { requests: 0 }\n  fallback:");
    until("all is over the limit", || ask(&client, "main", "/").text() == "backup");
    assert!((0..5).all(|_| post(&client, &[]).text() == "backup"));
}
