//! From a Workload's document to the settings of its sidecar.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use pillion_control_plane::core::workload::Workload;
use serde_json::{Value, json};

use super::telemetry::Telemetry;

/// A sidecar that this machine is to run. Two that are equal need no restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SidecarPlan {
    /// `<namespace>/<workload>`: also the name of its process.
    pub(crate) name: String,
    /// The account that it proves with a join token.
    pub(crate) namespace: String,
    /// See `namespace`.
    pub(crate) service_account: String,
    workload: String,
    mesh: SocketAddr,
    outbound: SocketAddr,
    tcp: Vec<String>,
    admin: SocketAddr,
    health: SocketAddr,
}

/// What all sidecars of one mesh have in common.
#[derive(Debug, Clone)]
pub(crate) struct SidecarDefaults {
    /// The trust domain of the mesh.
    pub(crate) trust_domain: String,
    /// How long requests in flight may take to end when a sidecar stops.
    pub(crate) drain_deadline: Duration,
    /// Threads that carry traffic; the sidecar's own default (all CPUs) when `None`.
    pub(crate) workers: Option<usize>,
    /// Where telemetry is sent.
    pub(crate) telemetry: Telemetry,
}

impl SidecarPlan {
    /// The plan for a workload, if it has a sidecar and runs on this machine.
    pub(crate) fn of(workload: &Workload) -> Option<Self> {
        let mesh = workload.mesh_address()?;
        if !is_local(workload.address) {
            return None;
        }
        let sidecar = &workload.sidecar;
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let tcp = sidecar.tcp.iter().map(|port| format!("{}={}", port.listen, port.destination));
        Some(Self {
            name: format!("{}/{}", workload.name.namespace, workload.name.name),
            namespace: workload.name.namespace.clone(),
            service_account: workload.service_account.clone(),
            workload: workload.name.name.clone(),
            mesh,
            outbound: sidecar.outbound.unwrap_or(any),
            tcp: tcp.collect(),
            admin: sidecar.admin.unwrap_or(any),
            health: sidecar.health.unwrap_or(any),
        })
    }

    /// Its bootstrap file.
    pub(crate) fn bootstrap(
        &self,
        defaults: &SidecarDefaults,
        control_plane: SocketAddr,
        root: &Path,
        token: &Path,
    ) -> Value {
        let mut settings = json!({
            "workload": self.workload,
            "namespace": self.namespace,
            "service_account": self.service_account,
            "trust_domain": defaults.trust_domain,
            "control_plane": control_plane.to_string(),
            "control_plane_root": root,
            "join_token_file": token,
            "state": token.with_file_name("kept"),
            "mesh": self.mesh.to_string(),
            "outbound_http": self.outbound.to_string(),
            "tcp": self.tcp,
            "admin": self.admin.to_string(),
            "health": self.health.to_string(),
            "metrics": SocketAddr::new(self.mesh.ip(), 0).to_string(),
            "drain_deadline": format!("{}ms", defaults.drain_deadline.as_millis()),
        });
        if let Some(settings) = settings.as_object_mut() {
            defaults.telemetry.add_to(settings);
            if let Some(workers) = defaults.workers {
                settings.insert("workers".to_owned(), json!(workers));
            }
        }
        settings
    }

    /// The name of its files.
    pub(crate) fn file_name(&self) -> String {
        format!("{}.{}", self.namespace, self.workload)
    }
}

/// An address is ours when a socket can be bound to it.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}
