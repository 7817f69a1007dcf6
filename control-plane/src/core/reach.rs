//! Single workloads by their addresses: what a destination means that is neither a
//! name nor a virtual address.
//!
//! An address that one workload has alone leads to it on any port. An address that
//! several share (a laptop's, or a node's that its own network is used of), and
//! every loopback address, which is also the caller's own, leads to a workload only
//! on the ports that it declares and no other workload does.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use pillion_wire::name::PortName;

use super::{
    mesh::{Finding, Subject},
    protocol::Protocol,
    service::Name,
    view::{Endpoint, InboundPort, Inside, PortView},
    workload::Workload,
};

/// Workloads by address.
#[derive(Debug, Default)]
pub(super) struct Reach {
    at: HashMap<IpAddr, Vec<Reachable>>,
}

#[derive(Debug)]
struct Reachable {
    name: Name,
    mesh: Option<Inside>,
    zone: Option<String>,
    /// The declared ports and what is spoken there.
    ports: Vec<(u16, Protocol)>,
}

impl Reach {
    /// Takes in `workload` at each of its addresses, with what is spoken on its `ports`.
    pub(super) fn add(&mut self, workload: &Workload, ports: &[InboundPort], findings: &mut Vec<Finding>) {
        for address in workload.addresses() {
            let sharing = self.at.entry(address).or_default();
            for port in ports {
                if let Some(first) = sharing.iter().find(|other| other.declared(port.port).is_some()) {
                    findings.push(Finding {
                        subject: Subject::Workload(workload.name.clone()),
                        path: "spec.ports".to_owned(),
                        reason: format!(
                            "{} is also a port of {}: neither can be reached by that address, only through Services",
                            SocketAddr::new(address, port.port),
                            first.name
                        ),
                        refused: false,
                    });
                }
            }
            sharing.push(Reachable {
                name: workload.name.clone(),
                mesh: inside(workload),
                zone: workload.zone.clone(),
                ports: ports.iter().map(|port| (port.port, port.protocol)).collect(),
            });
        }
    }

    /// The view of exactly the workload that `address` leads to, on exactly that port.
    /// No route applies: those are for the callers of a Service.
    pub(super) fn view(&self, address: SocketAddr) -> Option<PortView> {
        let sharing = self.at.get(&address.ip())?;
        let (found, protocol) = match sharing.as_slice() {
            [only] if !address.ip().is_loopback() => (only, only.declared(address.port()).unwrap_or_default()),
            _ => {
                let mut declaring = sharing.iter().filter_map(|other| Some((other, other.declared(address.port())?)));
                let first = declaring.next()?;
                declaring.next().is_none().then_some(first)?
            }
        };
        // The sidecar's own port takes no application's traffic.
        if address.port() == 0 || found.mesh.as_ref().is_some_and(|mesh| mesh.port == address.port()) {
            return None;
        }
        Some(PortView {
            key: PortName::Workload(address),
            protocol,
            http: None,
            tcp: None,
            tls: Vec::new(),
            endpoints: vec![Endpoint { address, mesh: found.mesh.clone(), zone: found.zone.clone() }],
        })
    }
}

impl Reachable {
    fn declared(&self, port: u16) -> Option<Protocol> {
        self.ports.iter().find(|(number, _)| *number == port).map(|(_, protocol)| *protocol)
    }
}

/// What a caller inside the mesh must know of `workload`, when that is inside too.
pub(super) fn inside(workload: &Workload) -> Option<Inside> {
    workload.mesh_port.map(|port| Inside {
        port,
        namespace: workload.name.namespace.clone(),
        service_account: workload.service_account.clone(),
    })
}
