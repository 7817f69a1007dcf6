//! Parts of a Service by label, that routes send to.

use std::io::Write as _;
use std::net::SocketAddr;

use serde_json::Value;

use crate::support::{Curl, Mesh, Sidecar, Workload, curl, output, pillion, read_http_head, tcp_server, until};

/// An application that answers with its name.
fn named(mesh: &Mesh, name: &'static str) -> SocketAddr {
    tcp_server(mesh, move |mut stream| {
        if !read_http_head(&mut stream).is_empty() {
            let length = name.len();
            let _gone =
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{name}");
        }
    })
}

fn ask(client: &Sidecar, arguments: &[&str]) -> Curl {
    let url = format!("http://{}/", client.outbound());
    curl(&[&[&url, "-H", "Host: web.shop"], arguments].concat())
}

const DOCUMENTS: &str = r#"
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: web, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: web } ]
  subsets: [ { name: v1, labels: { version: v1 } }, { name: v2, labels: { version: v2 } } ]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web, namespace: shop }
spec:
  parentRefs: [ { group: "", kind: Service, name: web } ]
  rules:
  - matches: [ { headers: [ { name: x-canary, value: "1" } ] } ]
    backendRefs: [ { group: pillion.dev, kind: Subset, name: web.v2, port: 80 } ]
  - matches: [ { headers: [ { name: x-canary, value: any } ] } ]
    backendRefs: [ { name: web, port: 80 } ]
  - backendRefs:
    - { group: pillion.dev, kind: Subset, name: web.v1, port: 80, weight: 1 }
    - { group: pillion.dev, kind: Subset, name: web.v2, port: 80, weight: 0 }
"#;

#[test]
fn routes_send_to_subsets_by_label_and_an_empty_one_is_told() {
    let mesh = Mesh::start();
    mesh.service("web", &[("http", 80, "http")]);
    let workload = |name: &str, version: &str, said: &'static str| {
        Workload::new(name).app("web").label("version", version).port("http", named(&mesh, said))
    };
    // One in the mesh, the others beside it.
    let _inside = mesh.workload(workload("web-1", "v1", "one"));
    mesh.outsider(workload("web-2", "v1", "one"));
    mesh.outsider(workload("web-3", "v2", "two"));
    mesh.write("web.yaml", DOCUMENTS);
    let client = mesh.workload(Workload::new("client"));
    until("the route is followed", || ask(&client, &["-H", "x-canary: 1"]).text() == "two");
    assert!((0..10).all(|_| ask(&client, &["-H", "x-canary: 1"]).text() == "two"));
    assert!((0..10).all(|_| ask(&client, &[]).text() == "one"));
    let all: Vec<String> = (0..12).map(|_| ask(&client, &["-H", "x-canary: any"]).text()).collect();
    assert!(["one", "two"].iter().all(|name| all.iter().any(|said| said == name)), "{all:?}");
    let clusters: Value = serde_json::from_str(&client.admin_page("/clusters")).expect("JSON");
    let hosts = |name: &str| clusters[name]["hosts"].as_array().map(Vec::len);
    assert_eq!([hosts("web~v1.shop:80"), hosts("web~v2.shop:80"), hosts("web.shop:80")], [Some(2), Some(1), Some(3)]);

    mesh.edit("web.yaml", "port: 80, weight: 0", "port: 80, weight: 1000000");
    until("new callers go to the other version", || (0..10).all(|_| ask(&client, &[]).text() == "two"));

    mesh.edit("workload-web-3.yaml", "version: v2", "version: v1");
    until("the subset is empty", || {
        let answer = ask(&client, &["-H", "x-canary: 1"]);
        (answer.status, answer.reason()) == (503, "no_healthy_upstream")
    });
    assert!(ask(&client, &["-H", "x-canary: 1"]).text().contains("web~v2.shop:80"), "it says who");
    let report = output(pillion().arg("check").arg(mesh.config()));
    let text = String::from_utf8_lossy(&report.stdout).into_owned();
    assert_eq!(report.status.code(), Some(0), "{text}");
    assert!(text.contains("spec.subsets[1].labels") && text.contains("no workload of Service shop/web"), "{text}");

    mesh.edit("web.yaml", "{ name: v2, labels", "{ name: v3, labels");
    until("the subset is no more", || {
        let answer = ask(&client, &["-H", "x-canary: 1"]);
        (answer.status, answer.reason()) == (500, "invalid_backend")
    });
}
