//! What routes do to requests and responses, by the filters of Gateway API and by policies.

mod answers;
mod cors;
mod faults;
mod headers;
mod mirrors;
mod redirects;
mod rewrites;

use std::net::SocketAddr;

use serde_json::Value;

use super::{echoed, field, named, through};
use crate::support::{App, Curl, Mesh, Sidecar, Workload, curl, python_app, until};

/// A service `shop.shop:80` in front of services `a` (behind a sidecar), `b` and `c` (outside the mesh), and a client.
struct Shop {
    mesh: Mesh,
    client: Sidecar,
    _server: Sidecar,
    addresses: [SocketAddr; 3],
    _app: App,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Shop {
    fn open() -> Self {
        let mesh = Mesh::start();
        let mut app = python_app(&mesh, "http1.py", &NAMES);
        let addresses = NAMES.map(|name| named(&mut app, name));
        for (name, address) in NAMES.into_iter().zip(addresses).skip(1) {
            mesh.outsider(Workload::new(name).port("web", address));
        }
        let server = mesh.workload(Workload::new("a").port("web", addresses[0]));
        for name in NAMES {
            mesh.service(name, &[("web", 80, "http")]);
        }
        mesh.service_for("shop", "a", &[("web", 80, "http")]);
        let client = mesh.workload(Workload::new("client"));
        Self { mesh, client, _server: server, addresses, _app: app }
    }

    /// Writes a route of `shop` with these rules.
    fn route(&self, kind: &str, name: &str, rules: &str) {
        self.mesh.write(
            &format!("{name}.yaml"),
            &format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{ name: {name}, namespace: shop }}\n\
                 spec:\n  parentRefs: [ {{ group: \"\", kind: Service, name: shop }} ]\n  rules:\n{rules}"
            ),
        );
    }

    /// The same, and waits until the client's sidecar follows it: it answers `/ready` so.
    fn http(&self, rules: &str) {
        let ready = rule("/ready", "{ type: RequestRedirect, requestRedirect: { port: 1 } }", "");
        self.route("HTTPRoute", "filters", &[rules, &ready].concat());
        until("the route is in force", || self.get("/ready", &[]).status == 302);
    }

    /// Writes a policy with these sections for all requests to `shop`.
    fn policy(&self, target: &str, sections: &str) {
        self.mesh.write(
            "policy.yaml",
            &format!(
                "apiVersion: pillion.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{ name: p, namespace: shop }}\n\
                 spec:\n  targetRefs: [ {{ {target} }} ]\n{sections}"
            ),
        );
    }

    fn get(&self, path: &str, arguments: &[&str]) -> Curl {
        through(self.client.outbound(), &format!("http://shop.shop{path}"), arguments)
    }

    /// What applications `a`, `b` or `c` have got so far at this path.
    fn seen(&self, name: &str, target: &str) -> Vec<Value> {
        let at = NAMES.iter().position(|known| *known == name).expect("one of them");
        let list = curl(&[&format!("http://{}/requests/{name}", self.addresses[at])]);
        let list: Vec<Value> = serde_json::from_slice(&list.body).expect("a list");
        list.into_iter().filter(|said| said["target"] == target).collect()
    }
}

/// A rule for a prefix, with these filters and backends.
fn rule(prefix: &str, filters: &str, backends: &str) -> String {
    let backends = if backends.is_empty() { String::new() } else { format!("    backendRefs: [ {backends} ]\n") };
    format!("  - matches: [ {{ path: {{ value: {prefix} }} }} ]\n    filters: [ {filters} ]\n{backends}")
}

/// A backend without filters.
fn to(name: &str) -> String {
    format!("{{ name: {name}, port: 80 }}")
}
