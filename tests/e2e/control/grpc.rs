//! gRPC's own xDS client: no sidecar on its side, certificates from `pillion certs`.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::{BALANCING, balancing, certificates, elsewhere, policy, refusals, sent, soon};
use crate::support::{App, Mesh, Process, Sidecar, Workload, curl, in_workspace, python, python_app};

#[test]
fn grpcs_own_client_balances_over_mutual_tls_and_follows_a_changed_weight() {
    let mesh = Mesh::start();
    let greeters = ["a", "b"].map(|name| python_app(&mesh, "greeter.py", &[name]));
    mesh.service("greeter", &[("grpc", 80, "grpc")]);
    for version in ["a", "b"] {
        mesh.service(version, &[("grpc", 80, "grpc")]);
    }
    let servers = [
        mesh.workload(Workload::new("greeter-1").label("version", "a").port("grpc", greeters[0].address)),
        mesh.workload(Workload::new("greeter-2").label("version", "b").port("grpc", greeters[1].address)),
    ];
    mesh.write("versions.yaml", &format!("{}---\n{}", version(&servers[0], "a"), version(&servers[1], "b")));
    policy(
        &mesh,
        "greeter",
        "{ loadShedding: {}, limits: { requests: 100, pending: 5 }, breaker: {}, outlierDetection: { successRate: {}, failurePercentage: {} }, \
         fallback: { response: { status: 503 } }, sessionPersistence: { absoluteTimeout: 1h, strict: true }, \
         timeouts: { request: 20s, perTry: 10s, idle: 30s, streamIdle: 60s, connectionAge: 1h, joinTrace: false }, \
         retries: { attempts: 2, on: [ 5xx, unavailable ], codes: [ 503 ], budget: { percent: 30, minPerSecond: 5 } } }",
    );
    let client = client(&mesh, "greeter.shop:80");

    soon("both are connected", || call(&client, 4)["answers"].as_object().unwrap().len() == 2);
    let tally = call(&client, 20);
    assert_eq!(tally["errors"], json!({}));
    assert!(["a", "b"].iter().all(|name| tally["answers"][name].as_u64() >= Some(8)), "{tally}");
    let peer = "spiffe://cluster.local/ns/shop/sa/caller";
    for server in &servers {
        let labels = [("direction", "inbound"), ("peer", peer), ("tls", "mutual")];
        soon("its identity arrives", || server.metric("pillion_requests_total", &labels) >= 8.0);
    }

    let answers = |what: &str| -> u64 {
        let nodes: Value = serde_json::from_str(&mesh.admin("/debug/nodes")).unwrap();
        let nodes = nodes["nodes"].as_array().unwrap().iter().filter(|node| node["dialect"] == "grpc");
        nodes.filter_map(|node| node["kinds"]["cluster"][what].as_u64()).sum()
    };
    for section in BALANCING {
        let before = answers("acks");
        mesh.write("balancing.yaml", &balancing("greeter", section));
        soon(section, || answers("acks") + answers("nacks") > before);
        assert_eq!(answers("nacks"), 0, "{section}");
        soon("calls are answered", || call(&client, 4)["errors"] == json!({}));
    }

    let subsets = "[ { name: a, labels: { version: a } }, { name: b, labels: { version: b } } ]";
    mesh.write(
        "subsets.yaml",
        &balancing("greeter", subsets).replace("loadBalancing", "subsets").replace("name: balancing", "name: subsets"),
    );
    for only in ["a", "b"] {
        let backend = format!("{{ group: pillion.dev, kind: Subset, name: greeter.{only}, port: 80 }}");
        mesh.write(
            "route.yaml",
            &route((1, 1))
                .replace("{ name: a, port: 80, weight: 1 }", &backend)
                .replace("    - { name: b, port: 80, weight: 1 }\n", ""),
        );
        soon(&format!("all calls go to subset {only}"), || {
            call(&client, 10) == json!({ "answers": { only: 10 }, "errors": {} })
        });
    }
    for (weights, only) in [((1, 0), "a"), ((0, 1), "b")] {
        mesh.write("route.yaml", &route(weights));
        soon(&format!("all calls go to {only}"), || {
            call(&client, 10) == json!({ "answers": { only: 10 }, "errors": {} })
        });
    }
    mesh.write("route.yaml", &route((1, 1)));
    soon("both are called again", || call(&client, 20)["answers"].as_object().unwrap().len() == 2);

    let statuses: Value = serde_json::from_str(&page(&client, "/csds")).unwrap();
    let statuses = statuses.as_array().unwrap();
    assert!(statuses.len() >= 4, "{statuses:?}");
    assert!(statuses.iter().all(|status| status["status"] == "ACKED"), "{statuses:?}");
    assert_eq!(refusals(&mesh), 0.0);
}

#[test]
fn grpcs_own_client_follows_faults_and_takes_what_it_cannot_follow() {
    let mesh = Mesh::start();
    let greeter = python_app(&mesh, "greeter.py", &["a"]);
    mesh.outsider(Workload::new("greeter").port("grpc", greeter.address));
    mesh.service("greeter", &[("grpc", 80, "grpc")]);
    let filters = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: { name: filters, namespace: shop }\nspec:\n  parentRefs: [ { kind: Service, group: \"\", name: greeter } ]\n  rules:\n  \
         - matches: [ { path: { value: /elsewhere } } ]\n    filters: [ { type: RequestRedirect, requestRedirect: { port: 1 } } ]\n  \
         - filters:\n    - { type: RequestHeaderModifier, requestHeaderModifier: { set: [ { name: a, value: b } ] } }\n    \
         - { type: URLRewrite, urlRewrite: { hostname: other.example } }\n    \
         - { type: RequestMirror, requestMirror: { backendRef: { name: greeter, port: 80 } } }\n    \
         - { type: CORS, cors: { allowOrigins: [ '*' ] } }\n    backendRefs: [ { name: greeter, port: 80 } ]\n";
    mesh.write("route.yaml", filters);
    let policy = "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: { name: p, namespace: shop }\nspec:\n  \
                  targetRefs: [ { kind: Service, name: greeter } ]\n  faults: { abort: { grpcStatus: RESOURCE_EXHAUSTED, percent: 100 } }\n";
    let client = client(&mesh, "greeter.shop:80");
    soon("calls are answered", || call(&client, 2)["answers"] == json!({ "a": 2 }));
    mesh.write("policy.yaml", policy);
    soon("calls are aborted", || {
        let tally = call(&client, 2);
        tally["answers"] == json!({}) && tally["errors"].to_string().contains("RESOURCE_EXHAUSTED")
    });
    mesh.remove("policy.yaml");
    soon("calls are answered again", || call(&client, 2)["answers"] == json!({ "a": 2 }));
    assert_eq!(refusals(&mesh), 0.0);
}

#[test]
fn grpcs_own_client_finds_services_that_are_names_elsewhere() {
    let mesh = Mesh::start();
    let mut command = python();
    command.arg(in_workspace("tests/e2e/apps/greeter.py")).args(["127.0.0.1:0", "a"]);
    let mut greeter = Process::spawn("greeter.py", &mut command);
    let address = greeter.ready()["listen"].as_str().unwrap().parse::<SocketAddr>().unwrap();
    elsewhere(&mesh, "greeter", "{}", address.port(), "grpc");
    let client = client(&mesh, "greeter.shop:80");
    soon("calls are answered", || call(&client, 2)["answers"] == json!({ "a": 2 }));
    for section in BALANCING {
        let before = sent(&mesh, "cluster");
        mesh.write("balancing.yaml", &balancing("greeter", section));
        soon(section, || sent(&mesh, "cluster") > before);
        soon("calls are answered", || call(&client, 4)["errors"] == json!({}));
    }
    let statuses: Value = serde_json::from_str(&page(&client, "/csds")).unwrap();
    let statuses = statuses.as_array().unwrap();
    assert!(statuses.iter().all(|status| status["status"] == "ACKED"), "{statuses:?}");
    assert!(statuses.iter().all(|status| !status.to_string().contains("ClusterLoadAssignment")), "{statuses:?}");
    assert_eq!(refusals(&mesh), 0.0);
}

#[test]
fn grpcs_own_client_refuses_a_server_of_another_identity() {
    let mesh = Mesh::start();
    let greeter = python_app(&mesh, "greeter.py", &["real"]);
    let server = mesh.workload(Workload::new("greeter").port("grpc", greeter.address));
    mesh.service("payment", &[("grpc", 80, "grpc")]);
    // At the address where `payment` is said to be, `greeter` answers.
    mesh.write(
        "payment.yaml",
        &version(&server, "payment").replace("serviceAccount: greeter", "serviceAccount: payment"),
    );
    let client = client(&mesh, "payment.shop:80");

    let tally = call(&client, 2);
    assert_eq!(tally["answers"], json!({}));
    let errors = tally["errors"].to_string();
    assert!(errors.contains("UNAVAILABLE") && errors.contains("SANs"), "{errors}");
    let requests = server.metric("pillion_requests_total", &[("direction", "inbound")]);
    assert_eq!(requests, 0.0, "nothing reached the wrong server");
}

/// One more workload at a sidecar's front port, so that a version has a Service of its own.
fn version(sidecar: &Sidecar, app: &str) -> String {
    let front = sidecar.front("grpc");
    format!(
        "apiVersion: pillion.dev/v1alpha1\nkind: Workload\n\
         metadata: {{ name: version-{app}, namespace: shop, labels: {{ app: {app} }} }}\n\
         spec:\n  address: {}\n  serviceAccount: greeter\n  mesh: {{ port: 1 }}\n  \
         ports: [ {{ name: grpc, port: {} }} ]\n",
        front.ip(),
        front.port()
    )
}

fn route((a, b): (u32, u32)) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{ name: greeter, namespace: shop }}\n\
         spec:\n  parentRefs: [ {{ kind: Service, group: \"\", name: greeter }} ]\n  rules:\n  \
         - matches: [ {{ method: {{ service: shop.Greeter }} }} ]\n    backendRefs:\n    \
         - {{ name: a, port: 80, weight: {a} }}\n    - {{ name: b, port: 80, weight: {b} }}\n"
    )
}

pub(crate) fn client(mesh: &Mesh, target: &str) -> App {
    let bootstrap = bootstrap(mesh, &certificates(mesh, "caller")).to_string();
    let file = mesh.secret_file("grpc.json", &bootstrap);
    python_app(mesh, "xds_client.py", &[file.to_str().unwrap(), &format!("xds:///{target}")])
}

fn bootstrap(mesh: &Mesh, folder: &Path) -> Value {
    let certificates = json!({
        "ca_certificate_file": folder.join("root.pem"),
        "certificate_file": folder.join("caller.pem"),
        "private_key_file": folder.join("caller.key"),
    });
    json!({
        "xds_servers": [{
            "server_uri": mesh.control_plane_address().to_string(),
            "channel_creds": [{ "type": "tls", "config": certificates }],
            "server_features": ["xds_v3"],
        }],
        "node": { "id": "shop/caller" },
        "certificate_providers": { "default": { "plugin_name": "file_watcher", "config": certificates } },
    })
}

pub(crate) fn call(client: &App, count: u32) -> Value {
    serde_json::from_str(&page(client, &format!("/call/{count}"))).unwrap()
}

fn page(client: &App, path: &str) -> String {
    curl(&[&format!("http://{}{path}", client.address)]).text()
}
