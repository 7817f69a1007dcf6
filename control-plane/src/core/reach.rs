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
    origin::Unhashed,
    policy::Policy,
    protocol::Protocol,
    service::Name,
    view::{Endpoint, InboundPort, Inside, PortView},
    workload::Workload,
};

/// Workloads by address.
#[derive(Debug, Default)]
pub(super) struct Reach {
    workloads: Vec<Reachable>,
    owners: HashMap<IpAddr, Owner>,
    declared: HashMap<SocketAddr, Declared>,
}

#[derive(Debug)]
struct Reachable {
    name: Name,
    mesh: Option<Inside>,
    zone: Option<String>,
}

/// The first workload that has an address.
#[derive(Debug)]
struct Owner {
    workload: usize,
    /// Others have it too.
    is_shared: bool,
}

/// The first workload that declares a port at an address.
#[derive(Debug)]
struct Declared {
    workload: usize,
    protocol: Protocol,
    /// Others declare it too.
    is_contested: bool,
}

impl Reach {
    /// Takes in `workload` at each of its addresses, with what is spoken on its `ports`.
    pub(super) fn add(&mut self, workload: &Workload, ports: &[InboundPort], findings: &mut Vec<Finding>) {
        let index = self.workloads.len();
        let (name, zone) = (workload.name.clone(), workload.zone.clone());
        self.workloads.push(Reachable { name, mesh: inside(workload), zone });
        for address in workload.addresses() {
            let owner = self.owners.entry(address).or_insert(Owner { workload: index, is_shared: false });
            owner.is_shared = owner.workload != index;
            for port in ports {
                let address = SocketAddr::new(address, port.port);
                let new = Declared { workload: index, protocol: port.protocol, is_contested: false };
                let declared = self.declared.entry(address).or_insert(new);
                declared.is_contested = declared.workload != index;
                if let Some(first) = self.workloads.get(declared.workload).filter(|_| declared.is_contested) {
                    findings.push(Finding {
                        subject: Subject::Workload(workload.name.clone()),
                        path: "spec.ports".to_owned(),
                        reason: format!(
                            "{address} is also a port of {}: neither can be reached by that address, only through Services",
                            first.name
                        ),
                        refused: false,
                    });
                }
            }
        }
    }

    /// The view of exactly the workload that `address` leads to, on exactly that port.
    /// No route applies: those are for the callers of a Service.
    pub(super) fn view(&self, address: SocketAddr) -> Option<PortView> {
        let (index, protocol) = match self.declared.get(&address) {
            Some(declared) => (!declared.is_contested).then_some((declared.workload, declared.protocol))?,
            None => {
                let owner = self.owners.get(&address.ip())?;
                let leads = !owner.is_shared && !address.ip().is_loopback();
                leads.then_some((owner.workload, Protocol::default()))?
            }
        };
        let found = self.workloads.get(index)?;
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
            policy: Policy::default(),
            endpoints: vec![Endpoint { address, mesh: found.mesh.clone(), zone: found.zone.clone(), weight: 1 }],
            external: None,
            origins: Unhashed::default(),
        })
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
