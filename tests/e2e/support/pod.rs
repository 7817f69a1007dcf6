//! A workload as a cluster would have it: a network namespace with an application and a sidecar in it.

use std::process::{Command, Output};
use std::rc::Rc;

use super::mesh::Mesh;
use super::netns::{APPLICATION, Host, Network};
use super::process::Process;
use super::sidecar::Sidecar;
use super::tools::Curl;
use super::workload::Workload;

/// The port on which a pod's sidecar is reached by the mesh.
pub const MESH_PORT: u16 = 15008;

/// A host with a sidecar. Applications are the processes that the test starts with [`Pod::spawn`].
pub struct Pod {
    /// The sidecar; its admin page is asked from inside the pod.
    pub sidecar: Sidecar,
    /// The namespace.
    pub host: Rc<Host>,
}

impl Pod {
    /// A new host with the sidecar of `workload`, whose ports are those that applications of the pod listen on. When the
    /// workload's setting `intercept` is on, the redirect is programmed as soon as the sidecar listens.
    pub fn start(mesh: &Mesh, network: &Network, workload: Workload) -> Self {
        let host = Rc::new(network.host(workload.name()));
        Self::start_on(mesh, host, workload, &[])
    }

    /// The same on a host that is there already, and with more arguments of `init`.
    pub fn start_on(mesh: &Mesh, host: Rc<Host>, workload: Workload, init: &[&str]) -> Self {
        let workload = workload.in_pod();
        mesh.write(&format!("workload-{}.yaml", workload.name()), &workload.document(host.ip(), MESH_PORT));
        let sidecar = Sidecar::start_in_pod(mesh, workload, Rc::clone(&host), init);
        Self { sidecar, host }
    }

    /// A program, to be run in the pod by the application's user.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.host.command_as(APPLICATION, program)
    }

    /// Starts an application: the command runs in the pod as the application's user.
    pub fn spawn(&self, name: &str, command: &Command) -> Process {
        Process::spawn(name, &mut self.host.wrap_as(APPLICATION, &[], command))
    }

    /// Runs a command in the pod, as the application's user, to its end.
    pub fn output(&self, command: &Command) -> Output {
        super::tools::output(&mut self.host.wrap_as(APPLICATION, &[], command))
    }

    /// Runs curl in the pod as the application's user.
    pub fn curl(&self, arguments: &[&str]) -> Curl {
        self.host.curl(arguments)
    }
}
