//! Envoy as a client of the control plane, with both variants of the protocol, in place of a sidecar.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pillion_wire::name::ListenerName;
use serde_json::Value;

use super::{BALANCING, Shop, balancing, certificates, elsewhere, policy, refusals, soon, split};
use crate::support::{
    Mesh, Process, Workload, curl, eventually, in_workspace, nginx_command, python_app, python_files, python_json,
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

#[test]
fn envoy_makes_the_health_checks_of_a_policy() {
    let mesh = Mesh::start();
    let (files, others) = (python_files(&mesh), python_files(&mesh));
    mesh.outsider(Workload::new("plain").port("http", files.address).port("any", others.address));
    mesh.service("plain", &[("http", 80, "http")]);
    let check = "interval: 200ms, unhealthyThreshold: 2, healthyThreshold: 2, noTrafficInterval: 200ms";
    let http = |path: &str| format!("{{ healthChecks: {{ http: {{ path: {path} }}, {check} }} }}");
    policy(&mesh, "plain", &http("/hello.txt"));
    let shop = Shop::open(&mesh, &[]);
    policy(&mesh, "v1", &http("/"));
    let envoy = Envoy::start(&mesh, "DELTA_GRPC");
    let count = |cluster: &str, what: &str| {
        let page = curl(&[&format!("http://{}/stats?filter=health_check", envoy.admin)]).text();
        let name = format!("cluster.{cluster}.shop_80.health_check.{what}: ");
        page.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or_default()
    };
    for cluster in ["plain", "v1"] {
        soon("checks pass", || count(cluster, "success") > 2 && count(cluster, "healthy") == 1);
        assert_eq!(count(cluster, "failure"), 0, "{cluster}");
    }
    let inbound = shop.versions[0].access_log();
    assert!(inbound.is_empty(), "only failures are logged: {inbound:?}");

    policy(&mesh, "plain", &http("/nothing"));
    soon("a check fails", || count("plain", "failure") > 0 && count("plain", "healthy") == 0);
    // Envoy refuses gRPC checks where HTTP/1.1 is spoken; they are left out there.
    for probe in ["grpc: {}", "tcp: { send: a, receive: b }", "tcp: {}"] {
        let modified = envoy.statistic("cluster_manager.cluster_modified");
        policy(&mesh, "plain", &format!("{{ healthChecks: {{ {probe}, {check} }} }}"));
        soon(probe, || envoy.statistic("cluster_manager.cluster_modified") > modified);
    }
    soon("a connection is enough", || count("plain", "healthy") == 1);
    policy(&mesh, "plain", &format!("{{ healthChecks: {{ grpc: {{ service: a.B }}, {check} }} }}"));
    for (port, protocol) in [("http", "h2c"), ("any", "")] {
        soon("nothing is left of the last one", || count("plain", "attempt") == 0);
        mesh.service("plain", &[(port, 80, protocol)]);
        soon("Envoy asks", || count("plain", "failure") > 0);
        mesh.service("plain", &[("http", 80, "http")]);
    }
    assert_eq!((refusals(&mesh), envoy.statistic("cluster_manager.cds.update_rejected")), (0.0, 0));
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
        "{ loadShedding: {}, limits: { requests: 9, perEndpoint: { connections: 7 } }, breaker: { consecutiveFailures: 4 }, \
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

    for section in SESSIONS {
        let seen = dump_count(&envoy);
        mesh.write("sessions.yaml", &balancing("plain", section).replace("loadBalancing", "sessionPersistence"));
        soon(section, || dump_count(&envoy) > seen);
    }
    let plain = |header: &str| curl(&[&format!("http://{}/", envoy.outbound), "-H", "Host: plain.shop", "-H", header]);
    soon("Envoy keeps sessions", || plain("a: b").header("x-session").is_some());
    let session = format!("x-session: {}", plain("a: b").header("x-session").unwrap());
    assert_eq!(plain(&session).header("x-session"), None, "it stays");

    mesh.write("subset.yaml", SUBSET);
    soon("Envoy has the subset", || {
        curl(&[&format!("http://{}/clusters", envoy.admin)]).text().contains("plain~all.shop:80::")
    });
    soon("Envoy sends to it", || plain("x-subset: all").status == 200 && plain("x-subset: none").status == 503);
    let of_user = |user: u32| plain(&format!("x-user: {user}")).status;
    let users: Vec<u16> = (0..20).map(of_user).collect();
    assert_eq!((0..20).map(of_user).collect::<Vec<_>>(), users, "each stays with its backend");
    assert!(users.contains(&200) && users.contains(&503), "{users:?}");

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

/// How many route configurations Envoy has taken.
fn dump_count(envoy: &Envoy) -> u64 {
    envoy.statistic("http.outbound.rds.pillion/outbound.config_reload")
}

/// Envoy takes a workload's place: it serves the listener that the workload's sidecar is sent, to callers with mutual TLS,
/// and asks the same rate-limit service as that sidecar, behind a sidecar of ours.
#[test]
fn envoy_limits_as_the_sidecar_does_and_both_count_as_one() {
    let mesh = Mesh::start();
    let at = mesh.free_address();
    let limits = python_app(&mesh, "rate_limit_service.py", &["4", &at.port().to_string()]);
    mesh.service("limits", &[("grpc", 8081, "grpc")]);
    let _limits_sidecar = mesh.workload(Workload::new("limits").port("grpc", at));
    let files = python_files(&mesh);
    mesh.service("api", &[("http", 80, "http")]);
    let api = mesh.workload(Workload::new("api").port("http", files.address));
    let red = mesh.workload(Workload::new("red"));
    // The same application, where no sidecar of ours is in the way.
    mesh.outsider(Workload::new("plain").port("http", files.address));
    mesh.service("plain", &[("http", 80, "http")]);
    mesh.write("limit.yaml", LIMIT);
    soon("the sidecar limits", || api.admin_page("/config_dump").contains("limits.shop:8081"));

    let argument = serde_json::json!({
        "server": mesh.control_plane_address().to_string(), "folder": certificates(&mesh, "api").to_str().unwrap(),
        "node": "api", "name": ListenerName::Inbound(api.mesh()).to_string(),
    });
    let inbound = python_json("inbound_listener.py", &argument);
    let listener_at = mesh.free_address();
    let envoy = Envoy::start_with(&mesh, "DELTA_GRPC", &Value::Array(vec![as_static(&inbound, listener_at)]));
    let caller = certificates(&mesh, "red");
    let file = |name: &str| caller.join(name).to_str().unwrap().to_owned();
    let of_envoy = |arguments: &[&str]| {
        let url = format!("https://{listener_at}/hello.txt");
        let (certificate, key) = (file("red.pem"), file("red.key"));
        curl(
            &[&["--insecure", "--cert", &certificate, "--key", &key, "-H", "Host: api.shop", &url], arguments].concat(),
        )
    };
    let of_sidecar = || curl(&[&format!("http://{}/hello.txt", red.outbound()), "-H", "Host: api.shop"]);

    let mut number = 0;
    soon("Envoy serves, and asks", || {
        number += 1; // Each of these is counted for itself.
        of_envoy(&["--request-target", &format!("/none-{number}")]).header("x-counted-by").is_some()
    });
    let asked = || -> Vec<Value> {
        let all = limits.process.stdout();
        let said = all.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        said.filter(|said| said["event"] == "asked").collect()
    };
    let already = asked().len();
    let statuses: Vec<u16> = [true, false, true, false, true, false]
        .map(|envoy| if envoy { of_envoy(&[]) } else { of_sidecar() })
        .map(|answer| answer.status)
        .to_vec();
    assert_eq!(statuses, [200, 200, 200, 200, 429, 429], "{:?}", asked());
    let asked = asked().split_off(already);
    assert_eq!(asked.len(), 6, "{asked:?}");
    let id = "spiffe://cluster.local/ns/shop/sa/red";
    let wanted = serde_json::json!([[["caller", id], ["path", "/hello.txt"], ["verb", "GET"], ["generic_key", "v"]]]);
    for (number, question) in asked.iter().enumerate() {
        assert_eq!((&question["domain"], &question["descriptors"]), (&"both".into(), &wanted), "question {number}");
    }
    let (theirs, ours) = (of_envoy(&[]), of_sidecar());
    for name in ["x-envoy-ratelimited", "x-ratelimit-limit", "x-ratelimit-remaining", "x-limited-by"] {
        assert!(theirs.header(name).is_some(), "{name}: {theirs:?}");
        assert_eq!(theirs.header(name), ours.header(name), "{name}");
    }
    let grpc = of_envoy(&["-H", "content-type: application/grpc", "-X", "GET"]);
    assert_eq!(grpc.header("grpc-status"), Some("8"), "{grpc:?}");
    assert_eq!((refusals(&mesh), envoy.statistic("listener_manager.lds.update_rejected")), (0.0, 0));
}

/// All kinds of values but the address, which differs on the two ways.
const LIMIT: &str = "\
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: api, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: api } ]
  globalRateLimit:
    service: { name: limits, port: 8081 }
    domain: both
    timeout: 10s
    onFailure: deny
    headers: true
    descriptors:
    - entries: [ { type: caller }, { type: path }, { type: method, key: verb }, { type: fixed, value: v } ]
";

/// The listener of a sidecar as Envoy can serve it: bound somewhere, with Envoy's certificate, and with a way to the
/// application. What the control plane said of rate limits stays as it is.
fn as_static(inbound: &Value, at: std::net::SocketAddr) -> Value {
    let mut manager = inbound["filterChains"][0]["filters"][0]["typedConfig"].clone();
    let host = &mut manager["routeConfig"]["virtualHosts"][0];
    assert!(host["rateLimits"].is_array(), "{inbound}");
    host["routes"][0] = serde_json::json!({ "match": { "prefix": "/" }, "route": { "cluster": "plain.shop:80" } });
    manager["routeConfig"]["validateClusters"] = false.into();
    serde_json::json!({
        "name": "inbound",
        "address": { "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } },
        "filter_chains": [{
            "filters": [{ "name": "http", "typed_config": manager }],
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "require_client_certificate": true,
                    "common_tls_context": {
                        "tls_certificate_sds_secret_configs": [{ "name": "pillion-workload" }],
                        "validation_context_sds_secret_config": { "name": "pillion-root" },
                    },
                },
            },
        }],
    })
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
pub(crate) struct Envoy {
    _process: Process,
    pub(crate) outbound: String,
    admin: String,
}

impl Envoy {
    pub(crate) fn start(mesh: &Mesh, api_type: &str) -> Self {
        Self::start_with(mesh, api_type, &Value::Array(Vec::new()))
    }

    /// With listeners of its own, beside what it is sent.
    fn start_with(mesh: &Mesh, api_type: &str, listeners: &Value) -> Self {
        let (outbound, admin) = (mesh.free_address().to_string(), mesh.free_address());
        let file = mesh.scratch().join("envoy.yaml");
        let control_plane = mesh.control_plane_address();
        let config = TEMPLATE
            .replace("@OUTBOUND@", &outbound)
            .replace("@LISTENERS@", &listeners.to_string())
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

/// Sessions of every kind.
const SESSIONS: [&str; 3] = [
    "{ idleTimeout: 30s }",
    "{ sessionName: sid, strict: true, absoluteTimeout: 1h, cookieConfig: { lifetimeType: Permanent } }",
    "{ type: Header, sessionName: x-session }",
];

/// Two subsets, of which one is empty.
const SUBSET: &str = "\
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: plain-subsets, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: plain } ]
  subsets: [ { name: all, labels: { app: plain } }, { name: none, labels: { app: other } } ]
  split: { hashOn: [ { header: x-user } ] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: plain, namespace: shop }
spec:
  parentRefs: [ { group: '', kind: Service, name: plain } ]
  rules:
  - matches: [ { headers: [ { name: x-subset, value: all } ] } ]
    backendRefs: [ { group: pillion.dev, kind: Subset, name: plain.all, port: 80 } ]
  - matches: [ { headers: [ { name: x-subset, value: none } ] } ]
    backendRefs: [ { group: pillion.dev, kind: Subset, name: plain.none, port: 80 } ]
  - backendRefs: [ { name: plain, port: 80 }, { group: pillion.dev, kind: Subset, name: plain.none, port: 80 } ]
";

/// Timeouts and retries, all of them.
const POLICY: &str = "\
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: plain-time, namespace: shop }
spec:
  targetRefs: [ { kind: Service, name: plain } ]
  timeouts: { request: 5s, perTry: 2s, idle: 30s, streamIdle: 60s, maxDuration: 1h, connectionAge: 1h, joinTrace: false }
  retries: { attempts: 2, on: [ gateway-error, unavailable ], codes: [ 429 ], bodyLimit: 1000, budget: { percent: 30 } }
";

pub(super) fn command(file: &Path) -> Command {
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
cluster_manager:
  load_stats_config: { api_type: GRPC, transport_api_version: V3, grpc_services: [ { envoy_grpc: { cluster_name: control-plane } } ] }
static_resources:
  listeners: @LISTENERS@
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
