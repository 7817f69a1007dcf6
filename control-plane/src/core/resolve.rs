//! From the name that a caller used to a port of a Service.
//!
//! `svc` means the caller's own namespace; `svc.ns`, `svc.ns.svc` and
//! `svc.ns.svc.cluster.local` mean the same wherever they are used. A virtual
//! address means the Service that has it.

use std::sync::Arc;

use pillion_wire::name::{Destination, ServicePort};

use super::{mesh::Mesh, view::PortView};

/// The suffix of fully qualified names.
const CLUSTER_DOMAIN: &str = "cluster.local";

impl Mesh {
    /// The port that `destination` means to a caller in `namespace`.
    #[must_use]
    pub fn resolve(&self, destination: &Destination, namespace: &str) -> Option<&Arc<PortView>> {
        let (service, namespace) = match destination.ip() {
            Some(address) => {
                let name = self.service_at(address)?;
                (name.name.as_str(), name.namespace.as_str())
            }
            None => split_host(&destination.host, namespace)?,
        };
        self.port(&ServicePort::new(service, namespace, destination.port).ok()?)
    }
}

/// Service and namespace of a host name.
fn split_host<'a>(host: &'a str, own_namespace: &'a str) -> Option<(&'a str, &'a str)> {
    let Some((service, rest)) = host.split_once('.') else {
        return Some((host, own_namespace));
    };
    let (namespace, suffix) = rest.split_once('.').unwrap_or((rest, ""));
    match suffix.split_once('.') {
        None if suffix.is_empty() || suffix == "svc" => Some((service, namespace)),
        Some(("svc", CLUSTER_DOMAIN)) => Some((service, namespace)),
        _ => None,
    }
}

/// Every host name that means `key`, whether qualified or seen from its own namespace.
#[must_use]
pub fn host_names(key: &ServicePort) -> [String; 4] {
    let ServicePort { service, namespace, .. } = key;
    [
        service.clone(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.{CLUSTER_DOMAIN}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn host_forms() {
        for (host, expected) in [
            ("orders", Some(("orders", "mine"))),
            ("orders.shop", Some(("orders", "shop"))),
            ("orders.shop.svc", Some(("orders", "shop"))),
            ("orders.shop.svc.cluster.local", Some(("orders", "shop"))),
            ("orders.shop.svc.cluster", None),
            ("orders.shop.example", None),
            ("www.example.org", None),
            ("a.b.c.d.e", None),
        ] {
            assert_eq!(split_host(host, "mine"), expected, "{host}");
        }
    }

    proptest! {
        #[test]
        fn every_form_of_a_name_means_it(service in "[a-z]{1,9}", namespace in "[a-z]{1,9}") {
            let key = ServicePort::new(&service, &namespace, 80).unwrap();
            for host in host_names(&key) {
                prop_assert_eq!(
                    split_host(&host, &namespace),
                    Some((service.as_str(), namespace.as_str()))
                );
            }
        }
    }
}
