//! What a test says about one workload: the document that the control plane reads and the bootstrap of its sidecar.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// A workload in the making. Namespace `shop`, service account and label `app` are its name without a trailing `-N`.
#[derive(Clone)]
pub struct Workload {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) app: String,
    pub(super) service_account: String,
    pub(super) in_mesh: bool,
    in_pod: bool,
    addresses: Vec<IpAddr>,
    pub(super) wait_until_ready: bool,
    ports: Vec<Port>,
    tcp: Vec<String>,
    labels: String,
    spec: String,
    settings: Map<String, Value>,
    pub(super) log_to: Option<PathBuf>,
}

#[derive(Clone)]
struct Port {
    name: String,
    application: SocketAddr,
    number: Option<u16>,
    extra: String,
}

impl Workload {
    /// A workload `name` without ports, with a sidecar.
    pub fn new(name: &str) -> Self {
        let app = name.trim_end_matches(|character: char| character.is_ascii_digit());
        let app = if app == name { name } else { app.trim_end_matches('-') };
        Self {
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            app: app.to_owned(),
            service_account: app.to_owned(),
            in_mesh: true,
            in_pod: false,
            addresses: Vec::new(),
            wait_until_ready: true,
            ports: Vec::new(),
            tcp: Vec::new(),
            labels: String::new(),
            spec: String::new(),
            settings: Map::new(),
            log_to: None,
        }
    }

    /// Another namespace.
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Another service account.
    pub fn service_account(mut self, service_account: &str) -> Self {
        service_account.clone_into(&mut self.service_account);
        self
    }

    /// Another value of the label `app`, which services select by.
    pub fn app(mut self, app: &str) -> Self {
        app.clone_into(&mut self.app);
        self
    }

    /// A port of this name, in front of an application; the port's number is a free one.
    pub fn port(self, name: &str, application: SocketAddr) -> Self {
        self.port_with(name, application, "")
    }

    /// A port with more fields of the document, as YAML in braces: `protocol: tcp, access: permissive`.
    pub fn port_with(mut self, name: &str, application: SocketAddr, extra: &str) -> Self {
        let (name, extra) = (name.to_owned(), extra.to_owned());
        self.ports.push(Port { name, application, number: None, extra });
        self
    }

    /// A local TCP port of its sidecar that leads to this destination: `ledger.shop:7000`.
    pub fn tcp(mut self, destination: &str) -> Self {
        self.tcp.push(destination.to_owned());
        self
    }

    /// One more setting of the sidecar, by its key in the bootstrap file: `certificate_lifetime`, `"4s"`.
    pub fn setting(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    /// Standard error of the sidecar goes to this file.
    pub fn log_to(mut self, path: &Path) -> Self {
        self.log_to = Some(path.to_owned());
        self
    }

    /// One more label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        write!(self.labels, ", {key}: {value}").expect("a string");
        self
    }

    /// One more field of the document's `spec`, as YAML: `weight: 3`.
    pub fn spec(mut self, field: &str) -> Self {
        writeln!(self.spec, "  {field}").expect("a string");
        self
    }

    /// Outside the mesh: no sidecar, dialled directly.
    pub fn outside_mesh(mut self) -> Self {
        self.in_mesh = false;
        self
    }

    /// In a network namespace of its own with these addresses: its ports are those that the application listens on.
    pub(super) fn in_pod(mut self, addresses: Vec<IpAddr>) -> Self {
        self.in_pod = true;
        self.addresses = addresses;
        for port in &mut self.ports {
            port.number = Some(port.application.port());
        }
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its sidecar takes connections that the namespace's rules redirect to it, by its setting `intercept`.
    pub(super) fn intercept(&self) -> Option<&str> {
        self.settings.get("intercept").and_then(Value::as_str).filter(|mode| *mode != "off")
    }

    /// Do not wait until the sidecar says that it is ready.
    pub fn not_waiting(mut self) -> Self {
        self.wait_until_ready = false;
        self
    }

    /// Gives every port a number.
    pub(super) fn number_ports(&mut self, ip: IpAddr, mut free_port: impl FnMut() -> u16) {
        for port in &mut self.ports {
            // Outside the mesh the application itself is what callers dial.
            let number = if self.in_mesh { free_port() } else { port.application.port() };
            port.number.get_or_insert(number);
        }
        debug_assert!(ip.is_loopback(), "tests stay on loopback");
    }

    /// The number of a named port.
    pub(super) fn port_number(&self, name: &str) -> u16 {
        let port = self.ports.iter().find(|port| port.name == name);
        port.and_then(|port| port.number).unwrap_or_else(|| panic!("{} has no port {name}", self.name))
    }

    /// The document.
    pub(super) fn document(&self, ip: IpAddr, mesh_port: u16) -> String {
        let Self { name, namespace, app, service_account, labels, spec, .. } = self;
        let mut text = format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: Workload\n\
             metadata: {{ name: {name}, namespace: {namespace}, labels: {{ app: {app}{labels} }} }}\n\
             spec:\n  address: {ip}\n  serviceAccount: {service_account}\n{spec}"
        );
        if self.addresses.len() > 1 {
            writeln!(text, "  addresses: {:?}", self.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>())
                .expect("a string");
        }
        text.push_str(if self.ports.is_empty() { "  ports: []\n" } else { "  ports:\n" });
        for Port { name, application, number, extra } in &self.ports {
            let number = number.unwrap_or_default();
            let extra = if extra.is_empty() { String::new() } else { format!(", {extra}") };
            let elsewhere = self.in_mesh && !self.in_pod;
            let application = if elsewhere { format!(", application: \"{application}\"") } else { String::new() };
            writeln!(text, "  - {{ name: {name}, port: {number}{application}{extra} }}").expect("a string");
        }
        if self.in_mesh {
            writeln!(text, "  mesh: {{ port: {mesh_port} }}").expect("a string");
        }
        text
    }

    /// The sidecar's bootstrap file.
    pub(super) fn bootstrap(&self, ip: IpAddr, mesh_port: u16, control_plane: &Value) -> Value {
        let any = SocketAddr::new(ip, 0).to_string();
        let tcp: Vec<String> = self.tcp.iter().map(|destination| format!("{any}={destination}")).collect();
        let mut settings = json!({
            "workload": self.name,
            "namespace": self.namespace,
            "service_account": self.service_account,
            "mesh": SocketAddr::new(ip, mesh_port).to_string(),
            "outbound_http": any,
            "admin": any,
            "health": any,
            "metrics": any,
            "workers": 1,
            "access_log": "all",
            "tcp": tcp,
        });
        let object = settings.as_object_mut().expect("an object");
        if self.in_pod {
            let wildcard: IpAddr = if ip.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            object.insert("health".to_owned(), SocketAddr::new(wildcard, 15021).to_string().into());
            object.insert("outbound_http".to_owned(), "127.0.0.1:15001".into());
            object.insert("admin".to_owned(), "127.0.0.1:15000".into());
        }
        object.extend(control_plane.as_object().expect("an object").clone());
        object.extend(self.settings.clone());
        settings
    }
}
