//! `type: ExternalName` of a `Service`: a name elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServiceSpec;
use pillion_wire::label::is_subdomain;

use super::{Issues, path::FieldPath};
use crate::core::{
    external::{External, Family, Resolution},
    service::{Port, Target},
};

/// Annotation: what the addresses are, `strict` (the default) or `logical`.
const RESOLUTION: &str = "pillion.dev/dns";
/// Annotation: which addresses are asked for, by Envoy's names.
const FAMILY: &str = "pillion.dev/dns-lookup-family";

/// What a Service of that type stands for; `None` for any other.
pub(super) fn read(
    spec: &mut ServiceSpec,
    annotations: &BTreeMap<String, String>,
    path: &FieldPath,
    issues: &mut Issues,
) -> Option<External> {
    if spec.type_.as_deref() != Some("ExternalName") {
        return None;
    }
    // Kubernetes ignores it, too.
    if spec.selector.take().is_some_and(|selector| !selector.is_empty()) {
        issues.warn(path.key("selector"), "means nothing for an ExternalName, ignored");
    }
    for (field, is_there) in [
        ("clusterIP", spec.cluster_ip.take().is_some_and(|ip| !ip.is_empty())),
        ("clusterIPs", spec.cluster_ips.take().is_some()),
    ] {
        if is_there {
            issues.error(path.key(field), "an ExternalName has none of its own; the mesh gives it one");
        }
    }
    let place = path.key("externalName");
    let text = spec.external_name.as_deref().unwrap_or_default();
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if name.is_empty() {
        issues.error(place, "missing");
    } else if name.parse::<IpAddr>().is_ok() {
        issues.error(place, format!("`{name}` is an address, not a name: use a Workload outside the mesh for it"));
    } else if !is_subdomain(&name) {
        issues.error(place, format!("`{text}` is not a DNS name"));
    }
    let annotation = |key: &'static str| {
        let place = FieldPath::root().key("metadata").key("annotations").key(key);
        annotations.get(key).map(|text| (place, text.as_str()))
    };
    let resolution = match annotation(RESOLUTION) {
        None | Some((_, "strict")) => Resolution::Strict,
        Some((_, "logical")) => Resolution::Logical,
        Some((place, other)) => {
            issues.error(place, format!("`{other}` is not one of strict and logical"));
            Resolution::default()
        }
    };
    let family = annotation(FAMILY).and_then(|(place, text)| {
        let family = match text {
            "AUTO" => Family::Auto,
            "V4_ONLY" => Family::V4Only,
            "V6_ONLY" => Family::V6Only,
            "V4_PREFERRED" => Family::V4Preferred,
            "ALL" => Family::All,
            other => {
                issues.error(place, format!("`{other}` is not one of AUTO, V4_ONLY, V6_ONLY, V4_PREFERRED and ALL"));
                return None;
            }
        };
        Some(family)
    });
    Some(External { name, resolution, family })
}

/// Nobody could say which number a named port has there.
pub(super) fn check_ports(ports: &[Port], path: &FieldPath, issues: &mut Issues) {
    for (index, port) in ports.iter().enumerate() {
        if let Target::Name(name) = &port.target {
            issues.error(
                path.index(index).key("targetPort"),
                format!("`{name}`: an ExternalName has ports by number only"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::service::{ClusterIp, Service},
        document::{Document, Object, read},
    };

    fn document(annotations: &str, spec: &str) -> Document {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a, annotations: {{{annotations}}}}}\n\
             spec: {{type: ExternalName, {spec}}}\n"
        );
        read(&text, 1)
    }

    fn service(annotations: &str, spec: &str) -> Service {
        match document(annotations, spec).outcome {
            Ok(Some(Object::Service(service))) => Service::clone(&service),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_elsewhere_is_strict_unless_it_says_logical_and_has_a_virtual_address() {
        let plain = service("", "externalName: api.example.com., ports: [{port: 80, targetPort: 8080}]");
        let external = plain.external.unwrap();
        assert_eq!((external.name.as_str(), external.resolution), ("api.example.com", Resolution::Strict));
        assert_eq!(external.family(), Family::V4Preferred);
        assert!(matches!(plain.cluster_ip, ClusterIp::Automatic(_)));
        assert_eq!(plain.ports[0].target, Target::Number(8080));
        let logical = service("pillion.dev/dns: logical", "externalName: API.example.com, ports: [{port: 80}]");
        let external = logical.external.unwrap();
        assert_eq!((external.resolution, external.family()), (Resolution::Logical, Family::All));
        assert_eq!(external.name, "api.example.com");
        let v6 = service("pillion.dev/dns-lookup-family: V6_ONLY", "externalName: a.b, ports: [{port: 80}]");
        assert_eq!(v6.external.unwrap().family(), Family::V6Only);
    }

    #[test]
    fn refusals_name_the_field_and_what_means_nothing_is_said() {
        let good = "externalName: a.b, ports: [{port: 80}]";
        for (annotations, spec, path) in [
            ("", "ports: [{port: 80}]", "spec.externalName"),
            ("", "externalName: 192.0.2.1, ports: [{port: 80}]", "spec.externalName"),
            ("", "externalName: 'a b', ports: [{port: 80}]", "spec.externalName"),
            ("", "externalName: a..b, ports: [{port: 80}]", "spec.externalName"),
            ("", "externalName: a.b", "spec.ports"),
            ("", "externalName: a.b, ports: [{port: 80, targetPort: web}]", "spec.ports[0].targetPort"),
            ("", "clusterIP: 10.0.0.1, externalName: a.b, ports: [{port: 80}]", "spec.clusterIP"),
            ("pillion.dev/dns: loose", good, "metadata.annotations[\"pillion.dev/dns\"]"),
            ("pillion.dev/dns-lookup-family: v4", good, "metadata.annotations[\"pillion.dev/dns-lookup-family\"]"),
        ] {
            let errors = document(annotations, spec).outcome.unwrap_err();
            let paths: Vec<String> = errors.iter().map(|placed| placed.issue.path.to_string()).collect();
            assert_eq!(paths, [path], "{annotations} {spec}");
        }
        let warnings = document("", &format!("selector: {{app: a}}, {good}")).warnings;
        assert_eq!(warnings[0].issue.path.to_string(), "spec.selector");
    }

    #[test]
    fn a_name_may_be_that_of_a_service() {
        let of = |name: &str| {
            let external = External { name: name.to_owned(), resolution: Resolution::Strict, family: None };
            external.service().map(|(service, namespace)| format!("{service} {namespace}"))
        };
        assert_eq!(of("orders.shop.svc.cluster.local").as_deref(), Some("orders shop"));
        assert_eq!(of("orders.shop.svc").as_deref(), Some("orders shop"));
        for other in ["orders.shop", "a.b.shop.svc", "orders.shop.cluster.local", "example.com"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
