//! TLS that applications speak themselves goes through untouched, and where the name that it asks for says.

use std::path::Path;
use std::process::Command;

use super::{World, workload};
use crate::support::{Pod, Process, Stack, in_workspace, python, run, tool, until};

/// A certificate for these names, made now: `cert.pem` and `key.pem`.
fn certificate(folder: &Path, names: &str) {
    let mut command = Command::new(tool("openssl", "openssl"));
    command.current_dir(folder).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    command.args(["-days", "1", "-subj", "/CN=test", "-addext", &format!("subjectAltName={names}")]);
    run(command.args(["-keyout", "key.pem", "-out", "cert.pem"]));
}

fn tls_server(pod: &Pod, folder: &Path, text: &str) -> Process {
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/tls_hello.py")).arg("127.0.0.1:8443");
    command.arg(folder.join("cert.pem")).arg(folder.join("key.pem")).arg(text);
    let mut process = pod.spawn("tls_hello.py", &command);
    process.ready();
    process
}

#[test]
fn a_tls_route_sends_connections_where_the_name_that_they_ask_for_says() {
    let world = World::start(Stack::V4);
    world.service("front", "10.96.0.10", &[(443, 8443, "")]);
    world.service("one", "10.96.0.11", &[(443, 8443, "tls")]);
    world.service("two", "10.96.0.12", &[(443, 8443, "tls")]);
    world.mesh.write(
        "route.yaml",
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TLSRoute\n\
         metadata: { name: by-name, namespace: shop }\nspec:\n  \
           parentRefs: [ { group: \"\", kind: Service, name: front, port: 443 } ]\n  \
           hostnames: [ one.example ]\n  rules: [ { backendRefs: [ { name: one, port: 443 } ] } ]\n---\n\
         apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TLSRoute\n\
         metadata: { name: by-suffix, namespace: shop }\nspec:\n  \
           parentRefs: [ { group: \"\", kind: Service, name: front, port: 443 } ]\n  \
           hostnames: [ \"*.two.example\" ]\n  rules: [ { backendRefs: [ { name: two, port: 443 } ] } ]\n",
    );
    let folder = world.mesh.scratch();
    certificate(folder, "DNS:one.example,DNS:a.two.example,DNS:other.example");
    let pods = ["front", "one", "two"].map(|name| world.pod(workload(name, &[(8443, "")])));
    let _servers: Vec<Process> =
        pods.iter().zip(["front", "one", "two"]).map(|(pod, name)| tls_server(pod, folder, name)).collect();
    let client = world.pod(workload("client", &[]));
    let roots = folder.join("cert.pem");
    let get = |name: &str| {
        let (resolve, url) = (format!("{name}:443:10.96.0.10"), format!("https://{name}/"));
        client.curl(&["--cacert", &roots.display().to_string(), "--resolve", &resolve, &url])
    };
    until("the routes are in force", || get("one.example").text() == "one");
    assert_eq!(get("a.two.example").text(), "two");
    assert_eq!(get("other.example").text(), "front", "what no route names goes to the Service itself");
    let detected = [("direction", "outbound"), ("result", "tls")];
    assert!(client.sidecar.metric("pillion_detection_duration_seconds_count", &detected) >= 3.0);
    let log = client.sidecar.access_log();
    let told = log.iter().find(|line| line["authority"] == "a.two.example").expect("a line with the name");
    assert_eq!((&told["tls"], &told["protocol"]), (&"mutual".into(), &"TLS".into()), "{told}");
    assert_eq!(told["upstream_cluster"], "two.shop:443");
    assert!(told["alpn"].as_str().is_some_and(|offered| offered.contains("http/1.1")), "{told}");
}
