//! `Service` of the core API.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Service as Raw, ServicePort as RawPort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use pillion_wire::label::is_label;

use super::{Issues, Metadata, accept, not_a_label, path::FieldPath, tree::Node, typed::typed};
use crate::core::{
    protocol::Protocol,
    service::{Port, Service, Target},
};

/// Reads a `Service`.
pub(super) fn read(node: &Node, metadata: &Metadata, issues: &mut Issues) -> Option<Service> {
    let raw = accept(typed::<Raw>(node), issues)?;
    issues.unknown(raw.unknown, |_| false);
    let root = FieldPath::root();
    if !is_label(&metadata.name.name) {
        issues.error(root.key("metadata").key("name"), not_a_label(&metadata.name.name));
    }
    let spec_path = root.key("spec");
    let Some(spec) = raw.value.spec else {
        issues.error(spec_path, "missing");
        return None;
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        issues.error(spec_path.key("type"), "ExternalName is not supported");
        return None;
    }
    Some(Service {
        name: metadata.name.clone(),
        cluster_ips: cluster_ips(&spec, &spec_path, issues),
        ports: ports(&spec, &spec_path.key("ports"), issues),
        selector: spec.selector.unwrap_or_default(),
    })
}

fn cluster_ips(spec: &ServiceSpec, path: &FieldPath, issues: &mut Issues) -> Vec<std::net::IpAddr> {
    let texts = match (&spec.cluster_ips, &spec.cluster_ip) {
        (Some(many), _) => many.clone(),
        (None, Some(one)) => vec![one.clone()],
        (None, None) => Vec::new(),
    };
    let mut found = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty() && *text != "None") {
        match text.parse() {
            Ok(address) => found.push(address),
            Err(_) => issues.error(path.key("clusterIP"), format!("`{text}` is not an IP address")),
        }
    }
    found
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
            ("{type: ExternalName, ports: [{port: 80}]}", "spec.type"),
            ("{ports: [{port: x}]}", "spec.ports[0].port"),
        ] {
            assert_eq!(errors(spec), [path], "{spec}");
        }
    }

    #[test]
    fn headless_services_have_no_virtual_address() {
        let document = read(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: None, ports: [{port: 80}]}\n",
            1,
        );
        let Ok(Some(Object::Service(service))) = document.outcome else { panic!("accepted") };
        assert!(service.cluster_ips.is_empty());
        assert_eq!(service.name.namespace, "default");
    }
}
