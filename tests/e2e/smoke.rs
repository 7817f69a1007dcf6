//! The shortest walk: a client that knows nothing of the mesh, two sidecars, an application that knows nothing of it.

use crate::support::{Mesh, Workload, curl, python_files, until};

#[test]
fn a_plain_request_travels_over_mutual_tls_to_a_plain_server() {
    let mesh = Mesh::start();
    let files = python_files(&mesh);
    mesh.service("files", &[("http", 80, "http")]);
    let server = mesh.workload(Workload::new("files").port("http", files.address));
    let client = mesh.workload(Workload::new("client"));

    let url = format!("http://{}/hello.txt", client.outbound());
    let response = curl(&[&url, "-H", "Host: files.shop"]);

    assert_eq!((response.status, response.text().as_str()), (200, "hello\n"), "{response:?}");
    let peer = "spiffe://cluster.local/ns/shop/sa/files";
    let labels = [("direction", "outbound"), ("peer", peer), ("tls", "mutual"), ("status", "200")];
    until("the client's sidecar counted it, with the server's identity", || {
        client.metric("pillion_requests_total", &labels) == 1.0
    });
    let peer = "spiffe://cluster.local/ns/shop/sa/client";
    until("the server's sidecar counted it, with the client's identity", || {
        let labels = [("direction", "inbound"), ("peer", peer)];
        server.metric("pillion_requests_total", &labels) == 1.0
    });
}
