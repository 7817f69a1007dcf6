//! `Service` of the core API.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::{
    api::core::v1::{Service as Raw, ServicePort as RawPort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use pillion_wire::label::is_label;

use super::{Issues, Metadata, accept, external, not_a_label, path::FieldPath, tree::Node, typed::typed};
use crate::core::{
    protocol::Protocol,
    service::{ClusterIp, Family, Port, Service, Target},
};

/// What `clusterIP` says where a Service has no virtual address.
const HEADLESS: &str = "None";

/// Reads a `Service`.
pub(super) fn read(node: &Node, metadata: &Metadata, issues: &mut Issues) -> Option<Service> {
    let raw = accept(typed::<Raw>(node), issues)?;
    issues.unknown(raw.unknown, |_| false);
    let root = FieldPath::root();
    if !is_label(&metadata.name.name) {
        issues.error(root.key("metadata").key("name"), not_a_label(&metadata.name.name));
    }
    let spec_path = root.key("spec");
    let Some(mut spec) = raw.value.spec else {
        issues.error(spec_path, "missing");
        return None;
    };
    let annotations = raw.value.metadata.annotations.unwrap_or_default();
    let external = external::read(&mut spec, &annotations, &spec_path, issues);
    let ports = ports(&spec, &spec_path.key("ports"), issues);
    if external.is_some() {
        external::check_ports(&ports, &spec_path.key("ports"), issues);
    }
    Some(Service {
        name: metadata.name.clone(),
        cluster_ip: cluster_ip(&spec, &spec_path, issues),
        ports,
        selector: spec.selector.unwrap_or_default(),
        external,
    })
}

/// `clusterIP`, `clusterIPs` and `ipFamilies`, which Kubernetes wants to agree with each other.
fn cluster_ip(spec: &ServiceSpec, path: &FieldPath, issues: &mut Issues) -> ClusterIp {
    let one = spec.cluster_ip.as_deref().filter(|text| !text.is_empty());
    let many = spec.cluster_ips.as_deref().unwrap_or_default();
    if let (Some(one), Some(first)) = (one, many.first())
        && one != first
    {
        issues.error(path.key("clusterIP"), format!("`{one}` is not the first of clusterIPs, `{first}`"));
    }
    let places = || (0..many.len()).map(|index| path.key("clusterIPs").index(index));
    let texts: Vec<(FieldPath, &str)> = if many.is_empty() {
        one.map(|text| (path.key("clusterIP"), text)).into_iter().collect()
    } else {
        places().zip(many.iter().map(String::as_str)).collect()
    };
    let families = families(spec, path, issues);
    if let [(_, HEADLESS)] = texts.as_slice() {
        return ClusterIp::Headless;
    }
    let mut given: Vec<IpAddr> = Vec::new();
    for (place, text) in texts {
        match text.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) if address.is_unspecified() || address.is_multicast() => {
                issues.error(place, format!("{address} cannot be dialled"));
            }
            Ok(address) if given.contains(&address) => issues.error(place, format!("{address} is there twice")),
            Ok(address) => given.push(address),
            Err(_) => issues.error(place, format!("`{text}` is not an IP address")),
        }
    }
    if given.is_empty() {
        return ClusterIp::Automatic(families.unwrap_or_else(|| Family::ALL.to_vec()));
    }
    if let Some(families) = families
        && !given.iter().all(|address| families.contains(&Family::from(*address)))
    {
        issues.error(path.key("ipFamilies"), "the Service has an address of another family");
    }
    ClusterIp::Given(given)
}

fn families(spec: &ServiceSpec, path: &FieldPath, issues: &mut Issues) -> Option<Vec<Family>> {
    let texts = spec.ip_families.as_deref().filter(|families| !families.is_empty())?;
    let mut families = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let place = path.key("ipFamilies").index(index);
        match text.as_str() {
            "IPv4" => families.push(Family::V4),
            "IPv6" => families.push(Family::V6),
            other => issues.error(place, format!("`{other}` is not one of IPv4 and IPv6")),
        }
    }
    families.sort_unstable();
    families.dedup();
    Some(families)
}

fn ports(spec: &ServiceSpec, path: &FieldPath, issues: &mut Issues) -> Vec<Port> {
    let raw = spec.ports.as_deref().unwrap_or_default();
    if raw.is_empty() {
        issues.error(path.clone(), "a Service needs at least one port");
    }
    let (mut numbers, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::new();
    for (index, raw) in raw.iter().enumerate() {
        let path = path.index(index);
        let transport = raw.protocol.as_deref().unwrap_or("TCP");
        if transport != "TCP" {
            issues.warn(path.key("protocol"), format!("{transport} is not carried, port ignored"));
            continue;
        }
        let Some(port) = port(raw, &path, issues) else {
            continue;
        };
        if !numbers.insert(port.port) {
            issues.error(path.key("port"), format!("port {} is there twice", port.port));
        }
        if let Some(name) = &port.name
            && !names.insert(name.clone())
        {
            issues.error(path.key("name"), format!("the name `{name}` is there twice"));
        }
        ports.push(port);
    }
    ports
}

fn port(raw: &RawPort, path: &FieldPath, issues: &mut Issues) -> Option<Port> {
    let number = port_number(raw.port, &path.key("port"), issues)?;
    let target = match &raw.target_port {
        None | Some(IntOrString::Int(0)) => Target::Number(number),
        Some(IntOrString::Int(target)) => Target::Number(port_number(*target, &path.key("targetPort"), issues)?),
        Some(IntOrString::String(name)) => Target::Name(name.clone()),
    };
    let app_protocol = raw.app_protocol.as_deref().and_then(|text| {
        let protocol = Protocol::from_app_protocol(text);
        if protocol.is_none() {
            issues.warn(
                path.key("appProtocol"),
                format!("`{text}` is unknown, the protocol is taken from the names of the ports"),
            );
        }
        protocol
    });
    Some(Port { name: raw.name.clone().filter(|name| !name.is_empty()), port: number, target, app_protocol })
}

fn port_number(number: i32, path: &FieldPath, issues: &mut Issues) -> Option<u16> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Some(port),
        _ => {
            issues.error(path.clone(), format!("{number} is not a port: 1 to 65535"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Object, read};

    fn errors(spec: &str) -> Vec<String> {
        let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {spec}\n");
        match read(&text, 1).outcome {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(|placed| placed.issue.path.to_string()).collect(),
        }
    }

    #[test]
    fn refusals_name_the_field() {
        for (spec, path) in [
            ("{ports: []}", "spec.ports"),
            ("{ports: [{port: 0}]}", "spec.ports[0].port"),
            ("{ports: [{port: 70000}]}", "spec.ports[0].port"),
            ("{ports: [{port: 80}, {port: 80}]}", "spec.ports[1].port"),
            ("{ports: [{port: 80, name: a}, {port: 81, name: a}]}", "spec.ports[1].name"),
            ("{ports: [{port: 80, targetPort: 99999}]}", "spec.ports[0].targetPort"),
            ("{ports: [{port: 80}], clusterIP: nonsense}", "spec.clusterIP"),
            ("{ports: [{port: 80}], clusterIP: 0.0.0.0}", "spec.clusterIP"),
            ("{ports: [{port: 80}], clusterIPs: [10.0.0.1, x]}", "spec.clusterIPs[1]"),
            ("{ports: [{port: 80}], clusterIPs: [10.0.0.1, 10.0.0.1]}", "spec.clusterIPs[1]"),
            ("{ports: [{port: 80}], clusterIPs: [10.0.0.1, None]}", "spec.clusterIPs[1]"),
            ("{ports: [{port: 80}], clusterIP: 10.0.0.1, clusterIPs: ['fd00::1']}", "spec.clusterIP"),
            ("{ports: [{port: 80}], ipFamilies: [IPv5]}", "spec.ipFamilies[0]"),
            ("{ports: [{port: 80}], clusterIP: 10.0.0.1, ipFamilies: [IPv6]}", "spec.ipFamilies"),
            ("{ports: [{port: x}]}", "spec.ports[0].port"),
        ] {
            assert_eq!(errors(spec), [path], "{spec}");
        }
    }

    #[test]
    fn virtual_addresses_are_given_automatic_or_none() {
        let given = |texts: &[&str]| ClusterIp::Given(texts.iter().map(|text| text.parse().unwrap()).collect());
        for (spec, expected) in [
            ("", ClusterIp::Automatic(vec![Family::V4, Family::V6])),
            ("clusterIP: '', ", ClusterIp::Automatic(vec![Family::V4, Family::V6])),
            ("ipFamilies: [IPv6], ipFamilyPolicy: SingleStack, ", ClusterIp::Automatic(vec![Family::V6])),
            ("clusterIP: None, ", ClusterIp::Headless),
            ("clusterIP: None, clusterIPs: [None], ipFamilies: [IPv4], ", ClusterIp::Headless),
            ("clusterIP: 10.0.0.1, ", given(&["10.0.0.1"])),
            ("clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, 'fd00::1'], ", given(&["10.0.0.1", "fd00::1"])),
        ] {
            let text = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{{spec}ports: [{{port: 80}}]}}\n"
            );
            let document = read(&text, 1);
            let Ok(Some(Object::Service(service))) = &document.outcome else { panic!("{spec}: {document:?}") };
            assert_eq!(service.cluster_ip, expected, "{spec}");
            assert_eq!(service.name.namespace, "default");
            assert!(document.warnings.is_empty(), "{document:?}");
        }
    }
}
