//! Which node of the graph a workload, a cluster or a caller belongs to.
//!
//! Workloads stand together under the Service that selects them: of several, the one with the fewest workloads, so that
//! versions are told apart where they have Services of their own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
};

use pillion_wire::{
    name::{Destination, PortName},
    spiffe::SpiffeId,
};

use crate::{
    core::{mesh::Mesh, service::Name, view::PortView},
    load::{report::EdgeKey, store::Reporter},
};

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A Service, with its workloads.
    Service,
    /// A workload that no Service selects.
    Workload,
    /// A client without a sidecar: gRPC's own, an Envoy, or somebody who only calls.
    Client,
    /// Something outside the mesh.
    External,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::Client => "client",
            Self::External => "external",
        }
    }
}

/// The key of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeKey {
    pub(super) kind: Kind,
    pub(super) name: Name,
}

impl NodeKey {
    fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, name: Name::new(namespace, name) }
    }

    /// How the API names it: `service/shop/orders`.
    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.kind.name(), self.name)
    }
}

/// The mesh, seen as nodes.
#[derive(Debug)]
pub(super) struct Topology<'a> {
    mesh: &'a Mesh,
    owners: BTreeMap<Name, Name>,
    by_account: BTreeMap<(String, String), BTreeSet<NodeKey>>,
    by_address: HashMap<SocketAddr, Name>,
    /// Services with the node that they are drawn as.
    services: BTreeMap<Name, NodeKey>,
}

impl<'a> Topology<'a> {
    pub(super) fn new(mesh: &'a Mesh) -> Self {
        let mut members: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        let (mut external, mut by_address) = (BTreeSet::new(), HashMap::new());
        for (key, view) in mesh.ports() {
            let service = Name::new(&key.namespace, &key.service);
            if view.external.is_some() {
                external.insert(service.clone());
            }
            let members = members.entry(service).or_default();
            for (address, workload) in workloads(mesh, view) {
                members.insert(workload.clone());
                by_address.entry(address).or_insert(workload);
            }
        }
        let mut owners: BTreeMap<Name, Name> = BTreeMap::new();
        for (service, workloads) in &members {
            for workload in workloads {
                let others = owners.get(workload).and_then(|owner| members.get(owner)).map(BTreeSet::len);
                if others.is_none_or(|others| workloads.len() < others) {
                    owners.insert(workload.clone(), service.clone());
                }
            }
        }
        let services =
            members.iter().map(|(service, members)| (service.clone(), node(service, members, &owners, &external)));
        let services = services.collect();
        let mut topology = Self { mesh, owners, by_account: BTreeMap::new(), by_address, services };
        for workload in mesh.workloads() {
            let account = (workload.name.namespace.clone(), workload.service_account.clone());
            let node = topology.of_workload(&workload.name);
            topology.by_account.entry(account).or_default().insert(node);
        }
        topology
    }

    /// All workloads inside the mesh, with their nodes.
    pub(super) fn workloads(&self) -> impl Iterator<Item = (NodeKey, &Name)> {
        self.mesh.workloads().map(|workload| (self.of_workload(&workload.name), &workload.name))
    }

    pub(super) fn of_workload(&self, workload: &Name) -> NodeKey {
        match self.owners.get(workload) {
            Some(service) => NodeKey { kind: Kind::Service, name: service.clone() },
            None => NodeKey { kind: Kind::Workload, name: workload.clone() },
        }
    }

    pub(super) fn of_reporter(&self, reporter: &Reporter) -> NodeKey {
        match reporter.dialect {
            "pillion" => self.of_workload(&Name::new(&reporter.namespace, &reporter.name)),
            _ => NodeKey::new(Kind::Client, &reporter.namespace, &reporter.name),
        }
    }

    /// Where an outbound edge leads, asked by somebody of `namespace`.
    pub(super) fn of_target(&self, key: &EdgeKey, namespace: &str) -> NodeKey {
        let name = if key.cluster.is_empty() { &key.destination } else { &key.cluster };
        if let Ok(PortName::Service(port)) = name.parse::<PortName>() {
            return self.of_service(&Name::new(&port.namespace, &port.service));
        }
        if let Ok(PortName::Workload(address)) = name.parse::<PortName>()
            && let Some(workload) = self.endpoint(&address.to_string())
        {
            return self.of_workload(workload);
        }
        let resolved = name.parse::<Destination>().ok().and_then(|wanted| self.mesh.resolve(&wanted, namespace));
        match resolved.as_deref().map(|view| &view.key) {
            Some(PortName::Service(port)) => self.of_service(&Name::new(&port.namespace, &port.service)),
            _ if name.is_empty() => NodeKey::new(Kind::External, "", "unknown"),
            _ => NodeKey::new(Kind::External, "", name),
        }
    }

    fn of_service(&self, service: &Name) -> NodeKey {
        self.services.get(service).cloned().unwrap_or_else(|| NodeKey { kind: Kind::Service, name: service.clone() })
    }

    /// Who called, by the SPIFFE id that the callee saw.
    pub(super) fn of_caller(&self, peer: &str) -> NodeKey {
        let Ok(id) = peer.parse::<SpiffeId>() else { return NodeKey::new(Kind::Client, "", "outside the mesh") };
        let account = (id.namespace().to_owned(), id.service_account().to_owned());
        match self.by_account.get(&account) {
            Some(nodes) if nodes.len() == 1 => nodes.iter().next().cloned(),
            _ => None,
        }
        .unwrap_or_else(|| NodeKey::new(Kind::Client, id.namespace(), id.service_account()))
    }

    /// Whose endpoint this is: the workload at that address.
    pub(super) fn endpoint(&self, address: &str) -> Option<&Name> {
        self.by_address.get(&address.parse().ok()?)
    }
}

/// What a Service is drawn as.
fn node(service: &Name, members: &BTreeSet<Name>, owners: &BTreeMap<Name, Name>, external: &BTreeSet<Name>) -> NodeKey {
    if external.contains(service) {
        return NodeKey { kind: Kind::External, name: service.clone() };
    }
    let owners: BTreeSet<&Name> = members.iter().filter_map(|workload| owners.get(workload)).collect();
    // A Service whose workloads all stand under one other is drawn as that one.
    let name = match (owners.len(), owners.first()) {
        (1, Some(only)) => (*only).clone(),
        _ => service.clone(),
    };
    NodeKey { kind: Kind::Service, name }
}

/// Workloads behind a port, by the address of their endpoint.
fn workloads<'a>(mesh: &'a Mesh, view: &'a PortView) -> impl Iterator<Item = (SocketAddr, Name)> + 'a {
    view.endpoints.iter().filter_map(|endpoint| {
        let inside = endpoint.mesh.as_ref()?;
        let address = SocketAddr::new(endpoint.address.ip(), inside.port);
        mesh.workload_at(address).map(|workload| (endpoint.address, workload.name.clone()))
    })
}
