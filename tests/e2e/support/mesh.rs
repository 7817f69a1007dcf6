//! One mesh: a control plane with a folder of documents, and the sidecars of its workloads.

use std::cell::{Cell, RefCell};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use pillion_cli::metrics::Samples;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::netns::Host;
use super::process::{Process, pillion};
use super::sidecar::Sidecar;
use super::tools::{Curl, curl, run};
use super::workload::Workload;

/// A running mesh on a loopback address of its own. Dropping it ends all its processes.
pub struct Mesh {
    folder: TempDir,
    ip: IpAddr,
    address: SocketAddr,
    admin: SocketAddr,
    arguments: Vec<String>,
    control_plane: RefCell<Option<Process>>,
    host: Option<Rc<Host>>,
    files: Cell<u32>,
}

impl Mesh {
    /// Starts a control plane with an empty folder of documents.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more arguments of `pillion control-plane`.
    pub fn start_with(arguments: &[&str]) -> Self {
        let ip = own_loopback_address();
        Self::start_at(ip, SocketAddr::new(ip, free_port(ip)), SocketAddr::new(ip, free_port(ip)), None, arguments)
    }

    /// Starts a control plane in a network namespace, at its ports 15010 and 15014.
    pub fn start_on(host: Rc<Host>, arguments: &[&str]) -> Self {
        let ip = host.ip();
        Self::start_at(ip, SocketAddr::new(ip, 15010), SocketAddr::new(ip, 15014), Some(host), arguments)
    }

    fn start_at(
        ip: IpAddr,
        address: SocketAddr,
        admin: SocketAddr,
        host: Option<Rc<Host>>,
        arguments: &[&str],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("config")).expect("a folder");
        fs::create_dir(folder.path().join("bootstrap")).expect("a folder");
        let mesh = Self {
            address,
            admin,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            control_plane: RefCell::new(None),
            files: Cell::new(0),
            host,
            folder,
            ip,
        };
        mesh.start_control_plane();
        mesh
    }

    /// Starts the control plane (again), at the same addresses and with the same state.
    pub fn start_control_plane(&self) {
        let (config, state) = (self.config(), self.state());
        let mut command = pillion();
        command.arg("control-plane").arg("--config").arg(config).arg("--state").arg(state);
        command.arg("--listen").arg(self.address.to_string());
        command.arg("--admin").arg(self.admin.to_string());
        if !self.arguments.iter().any(|argument| argument == "--dashboard") {
            command.args(["--dashboard", "off"]);
        }
        command.args(&self.arguments);
        if let Some(host) = &self.host {
            command = host.wrap(&command);
        }
        let mut process = Process::spawn("control plane", &mut command);
        let ready = process.ready();
        assert_eq!(ready["listen"], self.address.to_string(), "the address that was asked for");
        *self.control_plane.borrow_mut() = Some(process);
    }

    /// Kills the control plane (SIGKILL).
    pub fn kill_control_plane(&self) {
        drop(self.control_plane.borrow_mut().take());
    }

    /// Does something with the control plane's process: reads its log, sends it a signal.
    pub fn with_control_plane<T>(&self, act: impl FnOnce(&mut Process) -> T) -> T {
        act(self.control_plane.borrow_mut().as_mut().expect("the control plane runs"))
    }

    /// The loopback address that belongs to this mesh alone.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// An address of this mesh with a port that is free now.
    pub fn free_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, free_port(self.ip))
    }

    /// Where xDS and the CA are served.
    pub fn control_plane_address(&self) -> SocketAddr {
        self.address
    }

    /// The control plane's folder of documents.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// The control plane's state: CA, join key.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Where the control plane's own pages are.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// A folder for whatever else the test needs.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// The mesh's root certificate (PEM).
    pub fn root(&self) -> PathBuf {
        self.state().join("root.pem")
    }

    /// Writes a file of documents, whole at once, as an editor does.
    pub fn write(&self, name: &str, text: &str) {
        let (path, new) = (self.config().join(name), self.folder.path().join("new-document"));
        fs::write(&new, text).expect("a document");
        fs::rename(&new, &path).expect("a document in place");
    }

    /// Replaces a part of a file of documents, which must be there.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.config().join(name)).expect("a document to edit");
        assert!(text.contains(from), "{name} does not say {from:?}: {text}");
        self.write(name, &text.replace(from, to));
    }

    /// Removes a file of documents.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.config().join(name)).expect("a document to remove");
    }

    /// A core `Service` in namespace `shop` that selects `app: NAME`; ports are (target port name = port name, number,
    /// appProtocol or "").
    pub fn service(&self, name: &str, ports: &[(&str, u16, &str)]) {
        self.service_for(name, name, ports);
    }

    /// The same for another value of the label `app`.
    pub fn service_for(&self, name: &str, app: &str, ports: &[(&str, u16, &str)]) {
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\n\
             spec:\n  selector: {{ app: {app} }}\n  ports:\n"
        );
        for (port, number, protocol) in ports {
            let protocol = if protocol.is_empty() { String::new() } else { format!(", appProtocol: {protocol}") };
            text.push_str(&format!("  - {{ name: {port}, port: {number}, targetPort: {port}{protocol} }}\n"));
        }
        self.write(&format!("service-{name}.yaml"), &text);
    }

    /// Writes the workload's document and, when it is in the mesh, starts its sidecar.
    pub fn workload(&self, mut workload: Workload) -> Sidecar {
        workload.number_ports(self.ip, || free_port(self.ip));
        let mesh_port = free_port(self.ip);
        self.write(&format!("workload-{}.yaml", workload.name), &workload.document(self.ip, mesh_port));
        Sidecar::start(self, workload, mesh_port)
    }

    /// Writes the document of a workload outside the mesh.
    pub fn outsider(&self, workload: Workload) {
        let mut workload = workload.outside_mesh();
        workload.number_ports(self.ip, || free_port(self.ip));
        self.write(&format!("workload-{}.yaml", workload.name), &workload.document(self.ip, 0));
    }

    /// A join token for a service account.
    pub fn token(&self, namespace: &str, service_account: &str) -> String {
        let mut command = pillion();
        command.args(["certs", "token", "--state"]).arg(self.state());
        command.args(["--namespace", namespace, "--service-account", service_account]);
        run(&mut command).trim().to_owned()
    }

    /// A file of the mesh's own folder that only we can read: join tokens, bootstrap files.
    pub fn secret_file(&self, name: &str, text: &str) -> PathBuf {
        let number = self.files.replace(self.files.get() + 1);
        let path = self.folder.path().join("bootstrap").join(format!("{number}-{name}"));
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our file");
        path
    }

    /// What every sidecar of this mesh must know: the control plane, its root and a join token.
    pub fn membership(&self, namespace: &str, service_account: &str) -> Value {
        let token = self.secret_file("token", &self.token(namespace, service_account));
        json!({
            "control_plane": self.address.to_string(),
            "control_plane_root": self.root(),
            "join_token_file": token,
        })
    }

    /// The control plane's metrics now.
    pub fn metrics(&self) -> Samples {
        Samples::parse(&self.admin("/metrics"))
    }

    /// A page of the control plane's admin address: `/debug/nodes`.
    pub fn admin(&self, path: &str) -> String {
        self.curl(&[&format!("http://{}{path}", self.admin)]).text()
    }

    /// Runs curl where the control plane is.
    fn curl(&self, arguments: &[&str]) -> Curl {
        self.host.as_ref().map_or_else(|| curl(arguments), |host| host.curl(arguments))
    }
}

/// A loopback address that no other mesh on this machine uses: all of 127.0.0.0/8 is loopback on Linux.
fn own_loopback_address() -> IpAddr {
    static MESHES: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    let mesh = MESHES.fetch_add(1, Ordering::Relaxed);
    let part = |number: u32, of: u32| u8::try_from(1 + number % of).expect("below 251");
    IpAddr::V4(Ipv4Addr::new(127, part(pid / 250, 250), part(pid, 250), part(mesh, 250)))
}

/// A port that is free on this address and stays so until somebody is told of it.
///
/// Below the range from which the kernel takes ports for those who ask for any (`ip_local_port_range`, from 32768): one
/// of the mesh's own processes would else sooner or later be given a port that was promised to another.
fn free_port(ip: IpAddr) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    let is_free = |port: &u16| TcpListener::bind((ip, *port)).is_ok();
    std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed)).find(is_free).expect("endless")
}
