//! Envoy as a client of the control plane, with both variants of the protocol, in place of a sidecar.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{BALANCING, Shop, balancing, certificates, elsewhere, policy, refusals, soon, split};
use crate::support::{
    Mesh, Process, Workload, curl, eventually, in_workspace, nginx_command, python_app, python_files,
};

#[test]
fn envoy_is_served_over_the_delta_protocol() {
    is_served("DELTA_GRPC", "delta");
}

#[test]
fn envoy_is_served_the_state_of_the_world() {
    is_served("GRPC", "sotw");
}

#[test]
fn envoy_does_what_routes_say_to_requests() {
    let mesh = Mesh::start();
    let mut app = python_app(&mesh, "http1.py", &["a", "b"]);
    for name in ["a", "b"] {
        let address = app.process.ready()["names"][name].as_str().unwrap().parse().unwrap();
        mesh.outsider(Workload::new(name).port("web", address));
        mesh.service(name, &[("web", 80, "http")]);
    }
    mesh.write("route.yaml", FILTERS);
    let policy = "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: { name: p, namespace: shop }\nspec:\n  \
                  targetRefs: [ { kind: Service, name: b } ]\n  faults: { abort: { httpStatus: 418, percent: 100 } }\n";
    mesh.write("policy.yaml", policy);
    let envoy = Envoy::start(&mesh, "DELTA_GRPC");
    let get = |path: &str, arguments: &[&str]| {
        let url = format!("http://{}{path}", envoy.outbound);
        curl(&[&[&url, "-H", "Host: a.shop"], arguments].concat())
    };
    soon("Envoy follows the route", || get("/headers", &[]).status == 200);

    let answer = get("/headers", &["-H", "X-By: client", "-H", "X-Gone: 1"]);
    let echo: Value = serde_json::from_slice(&answer.body).unwrap();
    let fields = |name: &str| -> Vec<Value> {
        let fields = echo["fields"].as_array().unwrap().iter();
        fields.filter(|field| field[0] == name).map(|field| field[1].clone()).collect()
    };
    assert_eq!((fields("x-by"), fields("x-gone")), (vec!["100% backend".into()], vec![]), "{echo}");
    assert_eq!((answer.header("x-set"), answer.header("x-app")), (Some("1"), None), "{answer:?}");

    for (path, status, location) in [
        ("/full/x?q", 301, "https://other.example:8443/new?q"),
        ("/prefix/x", 302, "http://a.shop/xyz/x"),
        ("/gone/x", 302, "http://a.shop/x"),
        ("/port", 302, "http://a.shop:8083/port"),
    ] {
        let answer = get(path, &[]);
        assert_eq!((answer.status, answer.header("location")), (status, Some(location)), "{path}: {answer:?}");
    }
    for (path, target) in
        [("/r1/x?q", "/xyz/x?q"), ("/r1", "/xyz"), ("/r2/x", "/x"), ("/r2", "/"), ("/r3/x?q", "/full?q")]
    {
        let echo: Value = serde_json::from_slice(&get(path, &[]).body).unwrap();
        assert_eq!(echo["target"], target, "{path}");
        let host = echo["fields"].as_array().unwrap().iter().find(|field| field[0] == "host").unwrap();
        assert_eq!(host[1], if path.starts_with("/r3") { "rewritten.example" } else { "a.shop" }, "{path}");
    }
    assert_eq!(get("/mirrored", &[]).status, 200);
    let mirror = format!("http://{}/requests/b", app.process.ready()["names"]["b"].as_str().unwrap());
    soon("the copy arrives", || {
        let list: Vec<Value> = serde_json::from_slice(&curl(&[&mirror]).body).unwrap();
        list.iter().any(|said| said["target"] == "/mirrored")
    });
    let preflight = ["-X", "OPTIONS", "-H", "Origin: https://x.example", "-H", "Access-Control-Request-Method: PUT"];
    let allowed = get("/cors", &preflight);
    assert_eq!(
        (allowed.status, allowed.header("access-control-allow-origin")),
        (200, Some("https://x.example")),
        "{allowed:?}"
    );
    assert_eq!(curl(&[&format!("http://{}/", envoy.outbound), "-H", "Host: b.shop"]).status, 418);
    assert_eq!((refusals(&mesh), envoy.statistic("listener_manager.lds.update_rejected")), (0.0, 0));
}

/// A route with one rule for each filter.
const FILTERS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: filters, namespace: shop }
spec:
  parentRefs: [ { group: "", kind: Service, name: a } ]
  rules:
  - matches: [ { path: { value: /headers } } ]
    filters:
    - { type: RequestHeaderModifier, requestHeaderModifier: { set: [ { name: x-by, value: rule } ], remove: [ x-gone ] } }
    - { type: ResponseHeaderModifier, responseHeaderModifier: { set: [ { name: x-set, value: "1" } ], remove: [ x-app ] } }
    backendRefs:
    - name: a
      port: 80
      filters: [ { type: RequestHeaderModifier, requestHeaderModifier: { set: [ { name: x-by, value: 100% backend } ] } } ]
  - matches: [ { path: { value: /full } } ]
    filters:
    - type: RequestRedirect
      requestRedirect:
        scheme: https
        hostname: other.example
        port: 8443
        statusCode: 301
        path: { type: ReplaceFullPath, replaceFullPath: /new }
  - matches: [ { path: { value: /prefix } } ]
    filters:
    - type: RequestRedirect
      requestRedirect: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /xyz } }
  - matches: [ { path: { value: /gone } } ]
    filters:
    - type: RequestRedirect
      requestRedirect: { path: { type: ReplacePrefixMatch, replacePrefixMatch: / } }
  - matches: [ { path: { value: /port } } ]
    filters: [ { type: RequestRedirect, requestRedirect: { port: 8083 } } ]
  - matches: [ { path: { value: /r1 } } ]
    filters:
    - { type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /xyz } } }
    backendRefs: [ { name: a, port: 80 } ]
  - matches: [ { path: { value: /r2 } } ]
    filters:
    - { type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: "" } } }
    backendRefs: [ { name: a, port: 80 } ]
  - matches: [ { path: { value: /r3 } } ]
    filters:
    - type: URLRewrite
      urlRewrite: { hostname: rewritten.example, path: { type: ReplaceFullPath, replaceFullPath: /full } }
    backendRefs: [ { name: a, port: 80 } ]
  - matches: [ { path: { value: /mirrored } } ]
    filters: [ { type: RequestMirror, requestMirror: { backendRef: { name: b, port: 80 } } } ]
    backendRefs: [ { name: a, port: 80 } ]
  - matches: [ { path: { value: /cors } } ]
    filters: [ { type: CORS, cors: { allowOrigins: [ "https://*.example" ], allowMethods: [ PUT ] } } ]
    backendRefs: [ { name: a, port: 80 } ]
"#;

fn is_served(api_type: &str, variant: &str) {
    let mesh = Mesh::start();
    let files = python_files(&mesh);
    mesh.outsider(Workload::new("plain").port("http", files.address));
    mesh.service("plain", &[("http", 80, "http")]);
    policy(
        &mesh,
        "plain",
        "{ limits: { requests: 9, perEndpoint: { connections: 7 } }, breaker: { consecutiveFailures: 4 }, \
         outlierDetection: { successRate: {}, failurePercentage: {} }, fallback: { response: { status: 503 } } }",
    );
    let shop = Shop::open(&mesh, &[]);
    let envoy = Envoy::start(&mesh, api_type);

    let answer = |version: &str| {
        let response = curl(&[&format!("http://{}/", envoy.outbound), "-H", "Host: web.shop"]);
        (response.status, response.text().trim()) == (200, version)
    };
    soon("Envoy reaches a service of the mesh", || answer("v1"));
    let peer = "spiffe://cluster.local/ns/shop/sa/envoy";
    let labels = [("direction", "inbound"), ("peer", peer), ("tls", "mutual"), ("status", "200")];
    soon("with mutual TLS", || shop.versions[0].metric("pillion_requests_total", &labels) >= 1.0);
    mesh.write("route.yaml", &split(0, 1));
    soon("Envoy follows a changed weight", || (0..10).all(|_| answer("v2")));

    let clusters = curl(&[&format!("http://{}/clusters", envoy.admin)]).text();
    for limit in
        ["plain.shop:80::default_priority::max_requests::9", "web.shop:80::default_priority::max_requests::4294967295"]
    {
        assert!(clusters.contains(limit), "{clusters}");
    }
    mesh.write("policy.yaml", POLICY);
    let dump = format!("http://{}/config_dump?resource=dynamic_route_configs", envoy.admin);
    let told = |what: &str| curl(&[&dump]).text().contains(what);
    soon("Envoy has the policy", || told("\"per_try_timeout\": \"2s\"") && told("envoy.retry_host_predicates"));
    assert!(told("\"timeout\": \"5s\"") && told("\"idle_timeout\": \"60s\""), "{}", curl(&[&dump]).text());

    let modified = envoy.statistic("cluster_manager.cluster_modified");
    mesh.service("plain", &[("http", 80, "h2c")]);
    soon("Envoy has a changed cluster", || envoy.statistic("cluster_manager.cluster_modified") > modified);
    // It would give up waiting for the endpoints of a changed cluster only after 15 seconds.
    eventually("the changed cluster is in use", Duration::from_secs(10), || {
        (envoy.statistic("cluster_manager.warming_clusters") == 0).then_some(())
    });

    for section in BALANCING {
        let modified = envoy.statistic("cluster_manager.cluster_modified");
        mesh.write("balancing.yaml", &balancing("plain", section));
        soon(section, || envoy.statistic("cluster_manager.cluster_modified") > modified);
    }

    let nodes: Value = serde_json::from_str(&mesh.admin("/debug/nodes")).unwrap();
    let node = nodes["nodes"].as_array().unwrap().iter().find(|node| node["node"] == "shop/envoy").unwrap();
    assert_eq!((&node["dialect"], &node["variant"]), (&"envoy".into(), &variant.into()));
    for kind in ["cluster", "endpoints", "listener", "route"] {
        let status = &node["kinds"][kind];
        assert!(status["acks"].as_u64().unwrap() > 0 && status["nacks"] == 0, "{kind}: {status}");
    }
    assert_eq!((refusals(&mesh), envoy.statistic("listener_manager.lds.update_rejected")), (0.0, 0));
    assert_eq!(envoy.statistic("cluster_manager.cds.update_rejected"), 0);
}

#[test]
fn envoy_finds_services_that_are_names_elsewhere() {
    let mesh = Mesh::start();
    let port = free_port_of_localhost();
    let folder = mesh.scratch().join("nginx");
    let command = &mut nginx_command(&folder, &format!("127.0.0.1:{port}"), "location / { return 200 $http_host; }");
    let _app = Process::spawn("nginx", command);
    elsewhere(&mesh, "strict", "{}", port, "http");
    elsewhere(&mesh, "logical", "{ pillion.dev/dns: logical }", port, "http");
    let envoy = Envoy::start(&mesh, "DELTA_GRPC");
    let answer =
        |name: &str| curl(&[&format!("http://{}/", envoy.outbound), "-H", &format!("Host: {name}.shop")]).text();
    let clusters = || curl(&[&format!("http://{}/config_dump?resource=dynamic_active_clusters", envoy.admin)]).text();
    for (name, kind) in [("strict", "STRICT_DNS"), ("logical", "LOGICAL_DNS")] {
        soon("Envoy has found it", || answer(name) == format!("{name}.shop"));
        assert!(clusters().contains(kind), "{}", clusters());
        for section in BALANCING {
            let modified = envoy.statistic("cluster_manager.cluster_modified");
            mesh.write("balancing.yaml", &balancing(name, section));
            soon(section, || envoy.statistic("cluster_manager.cluster_modified") > modified);
            soon(section, || answer(name) == format!("{name}.shop"));
        }
    }
    assert_eq!((refusals(&mesh), envoy.statistic("cluster_manager.cds.update_rejected")), (0.0, 0));
}

fn free_port_of_localhost() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr()).unwrap().port()
}

/// Envoy with its outbound listener and its admin page.
struct Envoy {
    _process: Process,
    outbound: String,
    admin: String,
}

impl Envoy {
    fn start(mesh: &Mesh, api_type: &str) -> Self {
        let (outbound, admin) = (mesh.free_address().to_string(), mesh.free_address());
        let file = mesh.scratch().join("envoy.yaml");
        let control_plane = mesh.control_plane_address();
        let config = TEMPLATE
            .replace("@OUTBOUND@", &outbound)
            .replace("@ADMIN_PORT@", &admin.port().to_string())
            .replace("@PORT@", &control_plane.port().to_string())
            .replace("@IP@", &mesh.ip().to_string())
            .replace("@API_TYPE@", api_type)
            .replace("@CERTIFICATES@", certificates(mesh, "envoy").to_str().unwrap());
        std::fs::write(&file, config).unwrap();
        let process = Process::spawn("envoy", &mut command(&file));
        let envoy = Self { _process: process, outbound, admin: admin.to_string() };
        let ready = format!("http://{admin}/ready");
        soon("Envoy is ready", || curl(&[&ready]).status == 200);
        envoy
    }

    /// A counter or gauge by its name.
    fn statistic(&self, name: &str) -> u64 {
        let page = curl(&[&format!("http://{}/stats?filter=^{name}$", self.admin)]).text();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok());
        value.unwrap_or_else(|| panic!("no statistic {name}: {page}"))
    }
}

/// Timeouts and retries, all of them.
const POLICY: &str = "\
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: plain-time, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: plain } ]
  timeouts: { request: 5s, perTry: 2s, idle: 30s, streamIdle: 60s, maxDuration: 1h, joinTrace: false }
  retries: { attempts: 2, on: [ gateway-error, unavailable ], codes: [ 429 ], bodyLimit: 1000, budget: { percent: 30 } }
";

fn command(file: &Path) -> Command {
    let program = in_workspace(".test-tools/envoy/bin/envoy");
    assert!(program.is_file(), "{} is missing: run tests/run, which makes it", program.display());
    let mut command = Command::new(program);
    // Its shared memory has a name by number; several run at a time.
    command.args(["--concurrency", "1", "-l", "warning", "--use-dynamic-base-id", "-c"]).arg(file);
    command
}

/// What a person writes to put Envoy in a sidecar's place.
const TEMPLATE: &str = r#"
node: { id: shop/envoy, cluster: shop, metadata: { outbound_address: "@OUTBOUND@" } }
admin: { address: { socket_address: { address: "@IP@", port_value: @ADMIN_PORT@ } } }
dynamic_resources:
  ads_config:
    api_type: @API_TYPE@
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [ { envoy_grpc: { cluster_name: control-plane } } ]
  lds_config: { ads: {}, resource_api_version: V3 }
  cds_config: { ads: {}, resource_api_version: V3 }
static_resources:
  secrets:
  - name: pillion-workload
    tls_certificate:
      certificate_chain: { filename: "@CERTIFICATES@/envoy.pem" }
      private_key: { filename: "@CERTIFICATES@/envoy.key" }
  - name: pillion-root
    validation_context: { trusted_ca: { filename: "@CERTIFICATES@/root.pem" } }
  clusters:
  - name: control-plane
    type: STATIC
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
    load_assignment:
      cluster_name: control-plane
      endpoints:
      - lb_endpoints:
        - endpoint: { address: { socket_address: { address: "@IP@", port_value: @PORT@ } } }
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          tls_params: { tls_maximum_protocol_version: TLSv1_3 }
          alpn_protocols: [ h2 ]
          tls_certificate_sds_secret_configs: [ { name: pillion-workload } ]
          combined_validation_context:
            default_validation_context:
              match_typed_subject_alt_names:
              - san_type: URI
                matcher: { exact: "spiffe://cluster.local/ns/pillion-system/sa/pillion-control-plane" }
            validation_context_sds_secret_config: { name: pillion-root }
"#;
