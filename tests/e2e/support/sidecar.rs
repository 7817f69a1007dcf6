//! One sidecar process and what can be asked of it.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use pillion_cli::metrics::Samples;
use serde_json::Value;

use super::mesh::Mesh;
use super::netns::{Host, SIDECAR};
use super::pod::MESH_PORT;
use super::process::{Process, pillion};
use super::tools::{Curl, curl};
use super::wait::eventually;
use super::workload::Workload;

const READY_DEADLINE: Duration = Duration::from_secs(60);

/// A workload of a mesh with its running sidecar.
pub struct Sidecar {
    /// The process: its log, its memory, signals.
    pub process: Process,
    workload: Workload,
    ready: Value,
    ip: IpAddr,
    mesh_port: u16,
    host: Option<Rc<Host>>,
}

impl Sidecar {
    /// Starts the sidecar of a workload whose document is written, and waits until it is ready.
    pub(super) fn start(mesh: &Mesh, workload: Workload, mesh_port: u16) -> Self {
        let (name, mut command) = Self::command(mesh, &workload, mesh.ip(), mesh_port);
        let process = Process::spawn(&name, &mut command);
        Self::wait_for(process, workload, mesh.ip(), mesh_port, None)
    }

    /// The same in a network namespace, whose connections are redirected to the sidecar once it listens, should it want
    /// that; `init` are more arguments of `pillion proxy init`.
    pub(super) fn start_in_pod(mesh: &Mesh, workload: Workload, host: Rc<Host>, init: &[&str]) -> Self {
        let (name, command) = Self::command(mesh, &workload, host.ip(), MESH_PORT);
        // Only transparent sockets need a capability.
        let capabilities: &[&str] = if workload.intercept() == Some("tproxy") { &["net_admin"] } else { &[] };
        let process = Process::spawn(&name, &mut host.wrap_as(SIDECAR, capabilities, &command));
        if let Some(mode) = workload.intercept() {
            let arguments = ["--wait", "30s", "--mode", mode];
            let done = host.init(&arguments.into_iter().chain(init.iter().copied()).collect::<Vec<_>>());
            assert!(done.status.success(), "init: {}", String::from_utf8_lossy(&done.stderr));
        }
        Self::wait_for(process, workload, host.ip(), MESH_PORT, Some(host))
    }

    fn command(mesh: &Mesh, workload: &Workload, ip: IpAddr, mesh_port: u16) -> (String, Command) {
        let membership = mesh.membership(&workload.namespace, &workload.service_account);
        let bootstrap = workload.bootstrap(ip, mesh_port, &membership);
        let file = mesh.secret_file(&workload.name, &bootstrap.to_string());
        let mut command = pillion();
        if let Some(log) = &workload.log_to {
            let (program, plain) = (command.get_program().to_owned(), command);
            command = Command::new("sh");
            plain.get_envs().for_each(|(name, _removed)| {
                command.env_remove(name);
            });
            command.args(["-c", "log=$1; shift; exec \"$@\" 2>\"$log\"", "sh"]).arg(log).arg(program);
        }
        command.arg("proxy").arg("--bootstrap").arg(file);
        (format!("sidecar {}", workload.name), command)
    }

    fn wait_for(mut process: Process, workload: Workload, ip: IpAddr, mesh_port: u16, host: Option<Rc<Host>>) -> Self {
        let ready = process.ready();
        let mut sidecar = Self { process, workload, ready, ip, mesh_port, host };
        if sidecar.workload.wait_until_ready {
            sidecar.wait_until_ready();
        }
        sidecar
    }

    /// Kills the process and starts it again as it was, outside pods.
    pub fn restart(self, mesh: &Mesh) -> Self {
        let Self { process, workload, mesh_port, host, .. } = self;
        assert!(host.is_none(), "a pod's sidecar is started with its rules");
        drop(process);
        Self::start(mesh, workload, mesh_port)
    }

    /// Waits until the health port says so.
    pub fn wait_until_ready(&mut self) {
        let what = format!("sidecar {} is ready", self.workload.name);
        let url = format!("http://{}/ready", self.health());
        eventually(&what, READY_DEADLINE, || {
            if let Some(status) = self.process.exited() {
                panic!("{what}: it exited with {status}");
            }
            (curl_on(self.host.as_deref(), &[&url]).status == 200).then_some(())
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

    /// Its metrics address.
    pub fn metrics_address(&self) -> SocketAddr {
        self.address(&self.ready["metrics"])
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
        curl_on(self.host.as_deref(), &[&format!("http://{}{path}", self.admin())]).text()
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

/// Runs curl where the sidecar is.
fn curl_on(host: Option<&Host>, arguments: &[&str]) -> Curl {
    host.map_or_else(|| curl(arguments), |host| host.curl(arguments))
}
