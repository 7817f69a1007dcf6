//! The shop's documents and processes: who there is, on which ports, and what the control plane is told about it.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use rand::Rng as _;

use crate::{
    certs::files::replace,
    child::{Powers, Spec},
};

/// Services, and under each the route that splits payment.
const SERVICES: &str = "\
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { selector: { app: web }, ports: [ { name: http, port: 80, targetPort: http, appProtocol: http } ] }
---
apiVersion: v1
kind: Service
metadata: { name: orders, namespace: shop }
spec: { selector: { app: orders }, ports: [ { name: http, port: 80, targetPort: http, appProtocol: http } ] }
---
apiVersion: v1
kind: Service
metadata: { name: inventory, namespace: shop }
spec: { selector: { app: inventory }, ports: [ { name: grpc, port: 50051, targetPort: grpc, appProtocol: grpc } ] }
---
apiVersion: v1
kind: Service
metadata: { name: ledger, namespace: shop }
spec: { selector: { app: ledger }, ports: [ { name: tcp, port: 7000, targetPort: tcp, appProtocol: tcp } ] }
---
# What callers name; the HTTPRoute says where it goes.
apiVersion: v1
kind: Service
metadata: { name: payment, namespace: shop }
spec: { selector: { app: payment }, ports: [ { name: http, port: 80, targetPort: http, appProtocol: http } ] }
---
apiVersion: v1
kind: Service
metadata: { name: payment-v1, namespace: shop }
spec: { selector: { app: payment, version: v1 }, ports: [ { name: http, port: 80, targetPort: http, appProtocol: http } ] }
---
apiVersion: v1
kind: Service
metadata: { name: payment-v2, namespace: shop }
spec: { selector: { app: payment, version: v2 }, ports: [ { name: http, port: 80, targetPort: http, appProtocol: http } ] }
";

/// The instance that the demo kills: one of two of its version.
pub(super) const VICTIM: &str = "payment-v1-1";
/// The workload that the load comes from: a sidecar without an application.
pub(super) const SHOPPER: &str = "shopper";

/// One instance of a service.
#[derive(Debug)]
struct Instance {
    name: &'static str,
    app: &'static str,
    version: &'static str,
    /// Name of its port; "" when it has none.
    port: &'static str,
    front: SocketAddr,
    application: SocketAddr,
    mesh: SocketAddr,
    outbound: SocketAddr,
    /// A local TCP port that leads to the ledger.
    ledger: Option<SocketAddr>,
}

/// The shop in a folder of its own.
#[derive(Debug)]
pub(super) struct Shop {
    folder: PathBuf,
    instances: Vec<Instance>,
}

/// Name, app, version, port name, whether it has a local port that leads to the ledger.
const INSTANCES: [(&str, &str, &str, &str, bool); 8] = [
    ("web-1", "web", "v1", "http", false),
    ("orders-1", "orders", "v1", "http", true),
    ("inventory-1", "inventory", "v1", "grpc", false),
    (VICTIM, "payment", "v1", "http", false),
    ("payment-v1-2", "payment", "v1", "http", false),
    ("payment-v2-1", "payment", "v2", "http", false),
    ("ledger-1", "ledger", "v1", "tcp", false),
    (SHOPPER, "shopper", "v1", "", false),
];

impl Shop {
    /// Writes the documents into this folder; `v1` percent of payment go to v1.
    pub(super) fn write(folder: &Path, v1: u32) -> anyhow::Result<Self> {
        let mut ports = FreePorts::new();
        let mut instances = Vec::with_capacity(INSTANCES.len());
        for (name, app, version, port, ledger) in INSTANCES {
            instances.push(Instance {
                name,
                app,
                version,
                port,
                front: ports.next()?,
                application: ports.next()?,
                mesh: ports.next()?,
                outbound: ports.next()?,
                ledger: ledger.then(|| ports.next()).transpose()?,
            });
        }
        drop(ports);
        let shop = Self { folder: folder.to_owned(), instances };
        fs::write(folder.join("services.yaml"), SERVICES)?;
        for instance in &shop.instances {
            fs::write(shop.file(instance.name), instance.document()?)?;
        }
        shop.split(v1)?;
        Ok(shop)
    }

    /// Edits the route: this many percent of payment go to v1, the rest to v2.
    pub(super) fn split(&self, v1: u32) -> anyhow::Result<()> {
        let v2 = 100 - v1.min(100);
        let route = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: payment, namespace: shop }}\n\
             spec:\n  parentRefs: [ {{ group: \"\", kind: Service, name: payment, port: 80 }} ]\n  rules:\n  - backendRefs:\n\
             \x20   - {{ name: payment-v1, port: 80, weight: {v1} }}\n    - {{ name: payment-v2, port: 80, weight: {v2} }}\n"
        );
        Ok(replace(&self.folder.join("route.yaml"), &route, 0o644)?)
    }

    /// Takes an instance out of the mesh, as whoever schedules instances does when one is gone.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.file(name))
    }

    /// The folder of its documents.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The processes of the shop itself.
    pub(super) fn processes(&self) -> Vec<Spec> {
        self.instances.iter().filter(|instance| instance.app != SHOPPER).map(Instance::process).collect()
    }

    /// Where the load enters the mesh: the outbound port of the shopper's sidecar.
    pub(super) fn entrance(&self) -> Option<SocketAddr> {
        self.instances.iter().find(|instance| instance.name == SHOPPER).map(|instance| instance.outbound)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("workload-{name}.yaml"))
    }
}

/// The name of an instance's sidecar process.
pub(super) fn sidecar(instance: &str) -> String {
    format!("shop/{instance}")
}

impl Instance {
    fn document(&self) -> Result<String, std::fmt::Error> {
        let Self { name, app, version, port, front, application, mesh, outbound, .. } = self;
        let mut text = format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: Workload\n\
             metadata: {{ name: {name}, namespace: shop, labels: {{ app: {app}, version: {version} }} }}\n\
             spec:\n  address: {}\n  serviceAccount: {app}\n  mesh: {{ port: {} }}\n",
            mesh.ip(),
            mesh.port()
        );
        if !port.is_empty() {
            let front = front.port();
            writeln!(text, "  ports:\n  - {{ name: {port}, port: {front}, application: \"{application}\" }}")?;
        }
        writeln!(text, "  sidecar:\n    outbound: {outbound}")?;
        if let Some(ledger) = self.ledger {
            writeln!(text, "    tcp: [ {{ listen: \"{ledger}\", destination: \"ledger.shop:7000\" }} ]")?;
        }
        Ok(text)
    }

    fn process(&self) -> Spec {
        let mut arguments: Vec<OsString> = vec!["shop".into(), self.app.into()];
        let mut set = |flag: &str, value: String| arguments.extend([flag.into(), value.into()]);
        set("--listen", self.application.to_string());
        match self.app {
            "web" | "orders" => set("--outbound", self.outbound.to_string()),
            "payment" => set("--version", self.version.to_owned()),
            _ => {}
        }
        if let Some(ledger) = self.ledger {
            set("--ledger", ledger.to_string());
        }
        Spec { name: self.name.to_owned(), arguments, restart: false, powers: Powers::default() }
    }
}

/// Free ports of 127.0.0.1, held until all are chosen so that none is given twice.
///
/// Taken from below the range that the kernel gives to outgoing connections: one of those could otherwise take a port
/// between our choosing it and the sidecar's listening on it.
#[derive(Debug)]
struct FreePorts {
    held: Vec<TcpListener>,
    candidates: std::ops::Range<u16>,
}

/// Ports below this belong to well-known programs.
const LOWEST_PORT: u16 = 10_000;
/// Where the kernel's range begins when it does not say.
const USUAL_EPHEMERAL: u16 = 32_768;

impl FreePorts {
    fn new() -> Self {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let ephemeral = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(USUAL_EPHEMERAL);
        // A range that begins very low leaves no room below it; then a collision is possible, and said by the sidecar.
        let end = if ephemeral > LOWEST_PORT + 1000 { ephemeral } else { USUAL_EPHEMERAL };
        // Somewhere in it: two demos at once would otherwise try the same ports in the same order.
        let start = rand::rng().random_range(LOWEST_PORT..end - 500);
        Self { held: Vec::new(), candidates: start..end }
    }

    fn next(&mut self) -> io::Result<SocketAddr> {
        for port in self.candidates.by_ref() {
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                self.held.push(listener);
                return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no free port on 127.0.0.1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_are_in_order_and_follow_the_split() {
        let folder = tempfile::tempdir().unwrap();
        let shop = Shop::write(folder.path(), 90).unwrap();
        for v1 in [90, 50] {
            shop.split(v1).unwrap();
            let report = pillion_control_plane::check(folder.path()).unwrap();
            assert!(report.is_ok() && report.warnings.is_empty(), "{report}");
            assert_eq!(report.workloads.len(), INSTANCES.len());
        }
    }

    #[test]
    fn no_port_is_given_twice() {
        let mut ports = FreePorts::new();
        let given: std::collections::BTreeSet<_> = (0..100).map(|_| ports.next().unwrap()).collect();
        assert_eq!(given.len(), 100);
    }
}
