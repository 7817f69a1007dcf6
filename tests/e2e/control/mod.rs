//! The control plane under real clients: gRPC's own xDS client, Envoy, a bare client of the protocol, and sidecars while
//! configuration churns, certificates are renewed and the control plane comes and goes.

mod churn;
mod client;
pub(crate) mod envoy;
mod envoy_inbound;
pub(crate) mod grpc;
mod outage;
mod protocol;
mod renewal;
mod scale;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{App, Mesh, Process, Sidecar, Workload, curl, eventually, nginx, pillion, run, tool};

/// What must happen soon has this long on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Looks until `condition` is true.
fn soon(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, SOON, || condition().then_some(()));
}

/// A service `web` with two versions behind an `HTTPRoute`, and a workload that calls it.
struct Shop {
    versions: [Sidecar; 2],
    client: Sidecar,
    _applications: [App; 2],
}

impl Shop {
    /// All requests go to `v1` at first.
    fn open(mesh: &Mesh, settings: &[(&str, &str)]) -> Self {
        let workload = |name: &str| {
            let quiet = Workload::new(name).setting("access_log", "errors");
            settings.iter().fold(quiet, |workload, (key, value)| workload.setting(key, *value))
        };
        mesh.service_for("web", "v1", &[("http", 80, "http")]);
        mesh.write("route.yaml", &split(1, 0));
        let applications = ["v1", "v2"].map(|version| {
            mesh.service(version, &[("http", 80, "http")]);
            nginx(mesh, &format!("    location / {{ return 200 \"{version}\\n\"; }}"))
        });
        let version = |name: &str, app: &str, application: &App| {
            mesh.workload(workload(name).app(app).port("http", application.address))
        };
        let versions = [version("web-1", "v1", &applications[0]), version("web-2", "v2", &applications[1])];
        Self { versions, client: mesh.workload(workload("client")), _applications: applications }
    }

    /// What one request to `web.shop` is answered with.
    fn answer(&self) -> String {
        let response = curl(&[&format!("http://{}/", self.client.outbound()), "-H", "Host: web.shop"]);
        assert_eq!(response.status, 200, "{response:?}");
        response.text().trim().to_owned()
    }

    /// Waits until ten requests in a row go to `version`.
    fn all_go_to(&self, version: &str) {
        soon(&format!("all requests go to {version}"), || (0..10).all(|_| self.answer() == version));
    }

    fn sidecars(&self) -> [&Sidecar; 3] {
        [&self.versions[0], &self.versions[1], &self.client]
    }
}

/// The route of `web` with these weights.
fn split(first: u32, second: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: web, namespace: shop }}\n\
         spec:\n  parentRefs: [ {{ kind: Service, group: \"\", name: web }} ]\n  rules:\n  - backendRefs:\n    \
         - {{ name: v1, port: 80, weight: {first} }}\n    - {{ name: v2, port: 80, weight: {second} }}\n"
    )
}

/// Requests to `web.shop` from wrk, on eight connections, until it is told to stop.
struct Load {
    wrk: Process,
}

impl Load {
    fn on(mesh: &Mesh, shop: &Shop) -> Self {
        let script = mesh.scratch().join("pace.lua");
        fs::write(&script, "function delay() return 10 end\n").unwrap();
        let mut command = Command::new(tool("wrk", "wrk"));
        command.args(["-t1", "-c8", "-d300s", "--timeout", "10s", "-H", "Host: web.shop", "-s"]).arg(script);
        let wrk = Process::spawn("wrk", command.arg(format!("http://{}/", shop.client.outbound())));
        let load = Self { wrk };
        let labels = [("direction", "outbound"), ("status", "200")];
        soon("the load has begun", || shop.client.metric("pillion_requests_total", &labels) > 50.0);
        load
    }

    /// Ends it and checks that not one request failed.
    fn stop(mut self) {
        self.wrk.signal(Signal::SIGINT);
        self.wrk.wait();
        let report = self.wrk.stdout();
        let requests = report.lines().find_map(|line| line.trim().split_once(" requests in "));
        let requests: u64 = requests.expect("a number of requests").0.parse().expect("a number");
        assert!(requests > 100, "{report}");
        assert!(!report.contains("Non-2xx") && !report.contains("Socket errors"), "{report}");
    }
}

/// A folder with `root.pem`, `NAME.pem` and `NAME.key` for a service account of `shop`, as `pillion certs` makes them.
pub(crate) fn certificates(mesh: &Mesh, name: &str) -> PathBuf {
    let folder = mesh.scratch().join(format!("certificates-{name}"));
    let mut command = pillion();
    command.args(["certs", "workload", "--namespace", "shop", "--service-account", name, "--name", name]);
    run(command.arg("--ca").arg(mesh.state()).arg("--out").arg(&folder));
    fs::copy(mesh.root(), folder.join("root.pem")).unwrap();
    folder
}

/// How many resources of a kind the control plane has sent since it started.
fn sent(mesh: &Mesh, kind: &str) -> f64 {
    mesh.metrics().sum("pillion_control_plane_xds_resources_total", &[("kind", kind)])
}

/// How many responses its clients refused.
fn refusals(mesh: &Mesh) -> f64 {
    mesh.metrics().sum("pillion_control_plane_xds_nacks_total", &[])
}

/// Every way of load balancing, as a section of a policy.
const BALANCING: [&str; 8] = [
    "{ algorithm: roundRobin, panicThreshold: 30, slowStart: { window: 1s, aggression: 1.5 } }",
    "{ algorithm: random, zones: { failover: [ east ] } }",
    "{ algorithm: leastRequest, choices: 3, slowStart: { window: 1s } }",
    "{ algorithm: leastConnections, slowStart: { window: 1s } }",
    "{ algorithm: peakEwma }",
    "{ algorithm: ringHash, hashOn: [ { header: x-user } ] }",
    "{ algorithm: maglev, hashOn: [ { cookie: { name: sid, ttl: 1h } }, { queryParam: u }, { sourceAddress: true } ] }",
    "{ algorithm: roundRobin }",
];

/// Service `name`, port 80, which stands for port `port` of this machine by its name; `annotations` as YAML in braces.
fn elsewhere(mesh: &Mesh, name: &str, annotations: &str, port: u16, protocol: &str) {
    mesh.write(
        &format!("elsewhere-{name}.yaml"),
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop, annotations: {annotations} }}\n\
             spec:\n  type: ExternalName\n  externalName: localhost\n  \
             ports: [ {{ name: web, port: 80, targetPort: {port}, appProtocol: {protocol} }} ]\n"
        ),
    );
}

/// A policy that says how the endpoints of a Service are picked.
fn balancing(service: &str, section: &str) -> String {
    format!(
        "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: balancing, namespace: shop }}\n\
         spec:\n  targetRefs: [ {{ group: \"\", kind: Service, name: {service} }} ]\n  loadBalancing: {section}\n"
    )
}

/// A policy for a Service, with these sections (YAML in braces).
fn policy(mesh: &Mesh, service: &str, sections: &str) {
    let target = format!("targetRefs: [ {{ kind: Service, name: {service} }} ], ");
    mesh.write(
        &format!("policy-{service}.yaml"),
        &format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: {service}, namespace: shop }}\nspec: {}\n",
            sections.replacen('{', &format!("{{ {target}"), 1)
        ),
    );
}
