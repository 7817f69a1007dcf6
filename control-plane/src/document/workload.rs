//! `Workload` of `pillion.dev/v1alpha1`: what stands for a Pod where there is none.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
};

use pillion_wire::label::is_subdomain;
use serde::Deserialize;

use super::{API_VERSION, Issues, Metadata, accept, not_a_label, path::FieldPath, tree::Node, typed::typed};
use crate::core::{
    protocol::Protocol,
    workload::{Access, Sidecar, TcpPort, Workload, WorkloadPort},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    api_version: String,
    spec: RawSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpec {
    address: IpAddr,
    #[serde(default)]
    addresses: Vec<IpAddr>,
    #[serde(default)]
    service_account: Option<String>,
    #[serde(default)]
    ports: Vec<RawPort>,
    #[serde(default)]
    mesh: Option<RawMesh>,
    #[serde(default)]
    sidecar: Option<RawSidecar>,
    weight: Option<u32>,
}

#[derive(Deserialize)]
struct RawPort {
    name: Option<String>,
    port: NonZeroU16,
    application: Option<SocketAddr>,
    protocol: Option<String>,
    access: Option<RawAccess>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawAccess {
    Strict,
    Permissive,
}

#[derive(Deserialize)]
struct RawMesh {
    port: NonZeroU16,
}

#[derive(Deserialize, Default)]
struct RawSidecar {
    outbound: Option<SocketAddr>,
    #[serde(default)]
    tcp: Vec<RawTcp>,
    admin: Option<SocketAddr>,
    health: Option<SocketAddr>,
}

#[derive(Deserialize)]
struct RawTcp {
    listen: SocketAddr,
    destination: String,
}

/// What a workload may weigh beside others: the weights of all of them together have to fit 32 bits.
const MAX_WEIGHT: u32 = 10_000;

/// Reads a `Workload`.
pub(super) fn read(node: &Node, metadata: &Metadata, issues: &mut Issues) -> Option<Workload> {
    let raw = accept(typed::<Raw>(node), issues)?;
    issues.unknown(raw.unknown, |_| true);
    if raw.value.api_version != API_VERSION {
        issues.error(
            FieldPath::root().key("apiVersion"),
            format!("`{}` is not known, write {API_VERSION}", raw.value.api_version),
        );
    }
    let path = FieldPath::root().key("spec");
    let spec = raw.value.spec;
    let address = dialled(spec.address, &path.key("address"), issues);
    let more_addresses = more_addresses(address, &spec.addresses, &path.key("addresses"), issues);
    let service_account = spec.service_account.unwrap_or_else(|| "default".to_owned());
    if !is_subdomain(&service_account) {
        issues.error(path.key("serviceAccount"), not_a_label(&service_account));
    }
    let weight = spec.weight.unwrap_or(1);
    if !(1..=MAX_WEIGHT).contains(&weight) {
        issues.error(path.key("weight"), format!("is a number from 1 to {MAX_WEIGHT}"));
    }
    let mesh_port = spec.mesh.map(|mesh| mesh.port.get());
    let ports = ports(&spec.ports, &path.key("ports"), issues);
    let addresses: Vec<IpAddr> = std::iter::once(address).chain(more_addresses.iter().copied()).collect();
    check_addresses(&addresses, mesh_port, &ports, &path, issues);
    Some(Workload {
        name: metadata.name.clone(),
        labels: metadata.labels.clone(),
        address,
        more_addresses,
        service_account,
        ports,
        mesh_port,
        weight,
        zone: metadata.labels.get("topology.kubernetes.io/zone").cloned(),
        sidecar: sidecar(spec.sidecar.unwrap_or_default(), &path.key("sidecar"), issues),
    })
}

fn dialled(address: IpAddr, path: &FieldPath, issues: &mut Issues) -> IpAddr {
    if address.is_unspecified() || address.is_multicast() {
        issues.error(path.clone(), format!("{address} cannot be dialled"));
    }
    address.to_canonical()
}

/// Those beside `first`, which may stand at the head of them, as the `podIP` of a Pod is the first of its `podIPs`.
fn more_addresses(first: IpAddr, raw: &[IpAddr], path: &FieldPath, issues: &mut Issues) -> Vec<IpAddr> {
    let mut more = Vec::with_capacity(raw.len());
    for (index, address) in raw.iter().enumerate() {
        let path = path.index(index);
        let address = dialled(*address, &path, issues);
        if address == first && index == 0 {
            continue;
        }
        if address == first || more.contains(&address) {
            issues.error(path, format!("{address} is there twice"));
        }
        more.push(address);
    }
    more
}

fn ports(raw: &[RawPort], path: &FieldPath, issues: &mut Issues) -> Vec<WorkloadPort> {
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let path = path.index(index);
        let port = raw.port.get();
        if !numbers.insert(port) {
            issues.error(path.key("port"), format!("port {port} is there twice"));
        }
        if let Some(name) = &raw.name
            && !names.insert(name.clone())
        {
            issues.error(path.key("name"), format!("the name `{name}` is there twice"));
        }
        let protocol = raw.protocol.as_deref().and_then(|text| {
            let protocol = Protocol::from_workload(text);
            if protocol.is_none() {
                issues.error(path.key("protocol"), format!("`{text}` is not one of http, h2c, grpc, tcp and tls"));
            }
            protocol
        });
        let application = raw.application.unwrap_or_else(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        if application.port() == 0 {
            issues.error(path.key("application"), "port 0 cannot be dialled");
        }
        ports.push(WorkloadPort {
            name: raw.name.clone(),
            port,
            application,
            protocol,
            access: match raw.access {
                Some(RawAccess::Permissive) => Access::Permissive,
                Some(RawAccess::Strict) | None => Access::Strict,
            },
        });
    }
    ports
}

/// The sidecar listens on each port in front of the application, so the two may
/// not be the same address, and neither may be the mesh port.
fn check_addresses(
    addresses: &[IpAddr],
    mesh_port: Option<u16>,
    ports: &[WorkloadPort],
    path: &FieldPath,
    issues: &mut Issues,
) {
    let Some(mesh_port) = mesh_port else { return };
    for (index, port) in ports.iter().enumerate() {
        let path = path.key("ports").index(index);
        if port.application.port() == port.port && addresses.contains(&port.application.ip()) {
            issues.error(
                path.key("application"),
                format!("the sidecar itself listens on {}: let the application listen elsewhere", port.application),
            );
        }
        if port.port == mesh_port {
            issues.error(path.key("port"), format!("{mesh_port} is the mesh port"));
        }
    }
}

fn sidecar(raw: RawSidecar, path: &FieldPath, issues: &mut Issues) -> Sidecar {
    let mut tcp = Vec::with_capacity(raw.tcp.len());
    for (index, entry) in raw.tcp.into_iter().enumerate() {
        match entry.destination.parse() {
            Ok(destination) => tcp.push(TcpPort { listen: entry.listen, destination }),
            Err(error) => issues
                .error(path.key("tcp").index(index).key("destination"), format!("`{}`: {error}", entry.destination)),
        }
    }
    Sidecar { outbound: raw.outbound, tcp, admin: raw.admin, health: raw.health }
}

#[cfg(test)]
mod tests {
    use crate::{
        core::workload::{Access, Workload},
        document::{Object, read},
    };
    use std::sync::Arc;

    fn workload(spec: &str) -> Result<Arc<Workload>, Vec<String>> {
        let text = format!(
            "apiVersion: pillion.dev/v1alpha1\nkind: Workload\nmetadata: {{name: a, namespace: shop}}\nspec: {spec}\n"
        );
        match read(&text, 1).outcome {
            Ok(Some(Object::Workload(workload))) => Ok(workload),
            Ok(other) => panic!("{other:?}"),
            Err(errors) => Err(errors.iter().map(|placed| placed.issue.path.to_string()).collect()),
        }
    }

    #[test]
    fn defaults() {
        let workload = workload("{address: 10.0.0.1, ports: [{port: 8080}]}").unwrap();
        assert_eq!(workload.service_account, "default");
        assert_eq!(workload.ports[0].application.to_string(), "127.0.0.1:8080");
        assert_eq!(workload.ports[0].access, Access::Strict);
        assert_eq!(workload.mesh_port, None);
        assert_eq!(workload.weight, 1);
    }

    #[test]
    fn addresses_are_all_there_once() {
        for (addresses, expected) in [
            ("", &["10.0.0.1"][..]),
            ("addresses: ['fd00::1'], ", &["10.0.0.1", "fd00::1"]),
            ("addresses: [10.0.0.1, 'fd00::1'], ", &["10.0.0.1", "fd00::1"]),
            ("addresses: ['::ffff:10.0.0.1', 10.0.0.2], ", &["10.0.0.1", "10.0.0.2"]),
        ] {
            let workload = workload(&format!("{{{addresses}address: 10.0.0.1}}")).unwrap();
            let found: Vec<String> = workload.addresses().map(|address| address.to_string()).collect();
            assert_eq!(found, expected, "{addresses}");
        }
    }

    #[test]
    fn refusals_name_the_field() {
        for (spec, path) in [
            ("{address: nonsense}", "spec.address"),
            ("{address: 0.0.0.0}", "spec.address"),
            ("{address: 10.0.0.1, addresses: ['::']}", "spec.addresses[0]"),
            ("{address: 10.0.0.1, addresses: ['fd00::1', 10.0.0.1]}", "spec.addresses[1]"),
            ("{address: 10.0.0.1, addresses: ['fd00::1', 'fd00:0::1']}", "spec.addresses[1]"),
            (
                "{address: 10.0.0.1, addresses: ['127.0.0.1'], mesh: {port: 15008}, ports: [{port: 80}]}",
                "spec.ports[0].application",
            ),
            ("{address: 10.0.0.1, colour: red}", "spec.colour"),
            ("{address: 10.0.0.1, weight: 0}", "spec.weight"),
            ("{address: 10.0.0.1, weight: 10001}", "spec.weight"),
            ("{address: 10.0.0.1, serviceAccount: 'a/b'}", "spec.serviceAccount"),
            ("{address: 10.0.0.1, ports: [{port: 0}]}", "spec.ports[0].port"),
            ("{address: 10.0.0.1, ports: [{port: 1, protocol: udp}]}", "spec.ports[0].protocol"),
            ("{address: 10.0.0.1, ports: [{port: 1, access: open}]}", "spec.ports[0].access"),
            ("{address: 10.0.0.1, ports: [{port: 1}, {port: 1}]}", "spec.ports[1].port"),
            ("{address: 127.0.0.1, mesh: {port: 15008}, ports: [{port: 80}]}", "spec.ports[0].application"),
            ("{address: 10.0.0.1, mesh: {port: 80}, ports: [{port: 80}]}", "spec.ports[0].port"),
            (
                "{address: 10.0.0.1, sidecar: {tcp: [{listen: '127.0.0.1:1', destination: 'x'}]}}",
                "spec.sidecar.tcp[0].destination",
            ),
        ] {
            assert_eq!(workload(spec).unwrap_err(), [path], "{spec}");
        }
    }
}
