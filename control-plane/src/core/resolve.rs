//! From the name that a caller used to a port of a Service.
//!
//! `svc` means the caller's own namespace; `svc.ns`, `svc.ns.svc` and
//! `svc.ns.svc.cluster.local` mean the same wherever they are used, and with the name
//! of a workload before them that workload of a headless Service. A virtual address
//! means the Service that has it, any other address the workload that has it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use pillion_wire::name::{Destination, PortName, ServicePort};

use super::{mesh::Mesh, service::Name, view::PortView};

/// The suffix of fully qualified names.
const CLUSTER_DOMAIN: &str = "cluster.local";

impl Mesh {
    /// The port that `destination` means to a caller in `namespace`.
    #[must_use]
    pub fn resolve(&self, destination: &Destination, namespace: &str) -> Option<Arc<PortView>> {
        let port = destination.port;
        let name = match destination.ip() {
            Some(address) => match self.service_at(address) {
                Some(service) => PortName::Service(ServicePort::new(&service.name, &service.namespace, port).ok()?),
                None => PortName::Workload(SocketAddr::new(address, port)),
            },
            None => match Host::of(&destination.host, namespace)? {
                Host { workload: None, service, namespace } => {
                    PortName::Service(ServicePort::new(service, namespace, port).ok()?)
                }
                Host { workload, service, namespace } => {
                    let addresses = self.addresses(&Name::new(namespace, service), workload)?;
                    PortName::Workload(SocketAddr::new(*addresses.first()?, port))
                }
            },
        };
        self.named(&name)
    }

    /// The addresses that DNS answers for `host` to a caller in `namespace`: the virtual ones of a Service, those
    /// of the workloads of a headless one. None in it: the host exists and has no address. `None`: there is no
    /// such host.
    #[must_use]
    pub fn host_addresses(&self, host: &str, namespace: &str) -> Option<&[IpAddr]> {
        let Host { workload, service, namespace } = Host::of(host, namespace)?;
        self.addresses(&Name::new(namespace, service), workload)
    }
}

/// What a host name is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Host<'a> {
    /// One workload of a headless Service.
    workload: Option<&'a str>,
    service: &'a str,
    namespace: &'a str,
}

impl<'a> Host<'a> {
    /// The parts of `host` as a caller in `own_namespace` means it.
    fn of(host: &'a str, own_namespace: &'a str) -> Option<Self> {
        let without_domain = host.strip_suffix(CLUSTER_DOMAIN).and_then(|rest| rest.strip_suffix(".svc."));
        let without_svc = host.strip_suffix(".svc");
        let qualified = without_domain.or(without_svc).filter(|rest| rest.contains('.'));
        let mut labels = qualified.unwrap_or(host).split('.');
        let labels = (labels.next()?, labels.next(), labels.next(), labels.next());
        let (workload, service, namespace) = match labels {
            (service, None, ..) => (None, service, own_namespace),
            (service, Some(namespace), None, _) => (None, service, namespace),
            (workload, Some(service), Some(namespace), None) => (Some(workload), service, namespace),
            _ => return None,
        };
        Some(Self { workload, service, namespace })
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
            ("orders", Some((None, "orders", "mine"))),
            ("orders.shop", Some((None, "orders", "shop"))),
            ("orders.shop.svc", Some((None, "orders", "shop"))),
            ("orders.shop.svc.cluster.local", Some((None, "orders", "shop"))),
            ("orders.svc", Some((None, "orders", "svc"))),
            ("db-0.db.shop", Some((Some("db-0"), "db", "shop"))),
            ("db-0.db.shop.svc", Some((Some("db-0"), "db", "shop"))),
            ("db-0.db.shop.svc.cluster.local", Some((Some("db-0"), "db", "shop"))),
            ("www.example.org", Some((Some("www"), "example", "org"))),
            ("orders.shop.svc.cluster", None),
            ("orders.svc.cluster.local", None),
            ("a.db-0.db.shop.svc", None),
            ("a.b.c.d.e", None),
        ] {
            let expected = expected.map(|(workload, service, namespace)| Host { workload, service, namespace });
            assert_eq!(Host::of(host, "mine"), expected, "{host}");
        }
    }

    proptest! {
        #[test]
        fn every_form_of_a_name_means_it(service in "[a-z]{1,9}", namespace in "[a-z]{1,9}") {
            let key = ServicePort::new(&service, &namespace, 80).unwrap();
            for host in host_names(&key) {
                let expected = Host { workload: None, service: &service, namespace: &namespace };
                prop_assert_eq!(Host::of(&host, &namespace), Some(expected));
            }
        }
    }
}
