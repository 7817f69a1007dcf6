//! One sidecar process and what can be asked of it.

use std::net::SocketAddr;
use std::time::Duration;

use pillion_cli::metrics::Samples;
use serde_json::Value;

use super::mesh::Mesh;
use super::process::{Process, pillion};
use super::tools::curl;
use super::wait::eventually;
use super::workload::Workload;

const READY_DEADLINE: Duration = Duration::from_secs(60);

/// A workload of a mesh with its running sidecar.
pub struct Sidecar {
    /// The process: its log, its memory, signals.
    pub process: Process,
    workload: Workload,
    ready: Value,
    ip: std::net::IpAddr,
    mesh_port: u16,
}

impl Sidecar {
    /// Starts the sidecar of a workload whose document is written, and waits until it is ready.
    pub(super) fn start(mesh: &Mesh, workload: Workload, mesh_port: u16) -> Self {
        let membership = mesh.membership(&workload.namespace, &workload.service_account);
        let bootstrap = workload.bootstrap(mesh.ip(), mesh_port, &membership);
        let file = mesh.secret_file(&workload.name, &bootstrap.to_string());
        let mut command = pillion();
        command.arg("proxy").arg("--bootstrap").arg(file);
        let mut process = Process::spawn(&format!("sidecar {}", workload.name), &mut command);
        let ready = process.ready();
        let mut sidecar = Self { process, workload, ready, ip: mesh.ip(), mesh_port };
        if sidecar.workload.wait_until_ready {
            sidecar.wait_until_ready();
        }
        sidecar
    }

    /// Waits until the health port says so.
    pub fn wait_until_ready(&mut self) {
        let what = format!("sidecar {} is ready", self.workload.name);
        let url = format!("http://{}/ready", self.health());
        eventually(&what, READY_DEADLINE, || {
            if let Some(status) = self.process.exited() {
                panic!("{what}: it exited with {status}");
            }
            (curl(&[&url]).status == 200).then_some(())
        });
    }

    /// Its outbound HTTP port.
    pub fn outbound(&self) -> SocketAddr {
        self.address(&self.ready["outbound_http"])
    }

    /// Its mesh port, as its document says.
    pub fn mesh(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.mesh_port)
    }

    /// Its local TCP port for a destination.
    pub fn tcp(&self, destination: &str) -> SocketAddr {
        self.address(&self.ready["tcp"][destination])
    }

    /// The address in front of a named application port, for callers outside the mesh.
    pub fn front(&self, port: &str) -> SocketAddr {
        SocketAddr::new(self.ip, self.workload.port_number(port))
    }

    /// Its admin address.
    pub fn admin(&self) -> SocketAddr {
        self.address(&self.ready["admin"])
    }

    /// Its health address.
    pub fn health(&self) -> SocketAddr {
        self.address(&self.ready["health"])
    }

    /// Its metrics now.
    pub fn metrics(&self) -> Samples {
        Samples::parse(&self.admin_page("/metrics"))
    }

    /// The sum of one metric now, over all samples with these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().sum(name, labels)
    }

    /// A page of its admin address: `/config_dump`.
    pub fn admin_page(&self, path: &str) -> String {
        curl(&[&format!("http://{}{path}", self.admin())]).text()
    }

    /// Lines of its access log so far.
    pub fn access_log(&self) -> Vec<Value> {
        self.process.events("access")
    }

    fn address(&self, value: &Value) -> SocketAddr {
        let text = value.as_str().unwrap_or_else(|| panic!("not in the ready line: {}", self.ready));
        text.parse().expect("an address in the ready line")
    }
}
