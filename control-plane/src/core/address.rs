//! Virtual addresses: what callers dial to reach a Service whatever its workloads.
//!
//! A Service that names none is given one of each family that it wants, from
//! [`V4_PREFIX`] and [`V6_PREFIX`]. Which ones is decided by its own namespace and
//! name: candidate number `n` is taken from SHA-256 of `<namespace>/<name>/<n>`, and
//! the first that nobody else has is its own. So an address stays the same
//!
//! * while the control plane runs, whatever Services come and go: who has an
//!   address keeps it, and only who is new has to give way;
//! * over a restart, and in another control plane with the same documents, unless
//!   the candidates of two Services collide (for one Service among n the chance is
//!   about n in 65,534 for IPv4, and none to speak of for IPv6): then the first by
//!   namespace and name takes the contested one, whoever had it before the restart.
//!
//! Addresses that a Service or Workload names itself are never given away.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aws_lc_rs::digest::{SHA256, digest};

use super::{
    mesh::{Finding, Objects, Subject},
    service::{ClusterIp, Family, Name},
};

/// The first two bytes of automatic IPv4 addresses: 240.240.0.0/16 of the range that
/// is reserved (RFC 1112 section 4), so that no route leads there.
pub const V4_PREFIX: [u8; 2] = [240, 240];

/// The first six bytes of automatic IPv6 addresses: fdf0:7069:6c6c::/48, unique
/// local (RFC 4193).
pub const V6_PREFIX: [u8; 6] = [0xfd, 0xf0, 0x70, 0x69, 0x6c, 0x6c];

/// Candidates that are tried: enough to find a free one among 16 bits nearly full.
const MOST_CANDIDATES: u32 = 4096;

/// The addresses that Services were given.
#[derive(Debug, Default)]
pub(super) struct Assigned {
    addresses: BTreeMap<(Name, Family), IpAddr>,
}

impl Assigned {
    /// Gives every Service that wants one an address; who has one in `previous` keeps it.
    pub(super) fn new(objects: &Objects, previous: Option<&Self>, findings: &mut Vec<Finding>) -> Self {
        let mut taken: HashSet<IpAddr> = named(objects).collect();
        let mut assigned = Self::default();
        let mut new = Vec::new();
        for wanted in wanted(objects) {
            let kept = previous.and_then(|previous| previous.addresses.get(&wanted)).copied();
            match kept {
                Some(address) if taken.insert(address) => drop(assigned.addresses.insert(wanted, address)),
                _ => new.push(wanted),
            }
        }
        for (name, family) in new {
            let free = (0..MOST_CANDIDATES)
                .filter_map(|number| candidate(&name, family, number))
                .find(|address| taken.insert(*address));
            match free {
                Some(address) => drop(assigned.addresses.insert((name, family), address)),
                None => findings.push(exhausted(name, family)),
            }
        }
        assigned
    }

    /// The addresses of `name`, IPv4 first.
    pub(super) fn of(&self, name: &Name) -> impl Iterator<Item = IpAddr> {
        Family::ALL.into_iter().filter_map(|family| self.addresses.get(&(name.clone(), family)).copied())
    }
}

/// Every address that some object claims for itself.
fn named(objects: &Objects) -> impl Iterator<Item = IpAddr> {
    let services = objects.services.values().flat_map(|service| match &service.cluster_ip {
        ClusterIp::Given(addresses) => addresses.as_slice(),
        ClusterIp::Automatic(_) | ClusterIp::Headless => &[],
    });
    services.copied().chain(objects.workloads.values().flat_map(|workload| workload.addresses()))
}

/// Who wants an address of which family, in order.
fn wanted(objects: &Objects) -> impl Iterator<Item = (Name, Family)> {
    objects.services.values().flat_map(|service| {
        let families = match &service.cluster_ip {
            ClusterIp::Automatic(families) => families.as_slice(),
            ClusterIp::Given(_) | ClusterIp::Headless => &[],
        };
        families.iter().map(|family| (service.name.clone(), *family))
    })
}

/// Candidate `number` of `name`; `None` for the first and the last of the range.
fn candidate(name: &Name, family: Family, number: u32) -> Option<IpAddr> {
    let digest = digest(&SHA256, format!("{name}/{number}").as_bytes());
    match (family, digest.as_ref()) {
        (Family::V4, [high, low, ..]) => {
            let [first, second] = V4_PREFIX;
            let is_edge = matches!((high, low), (0, 0) | (255, 255));
            (!is_edge).then(|| Ipv4Addr::new(first, second, *high, *low).into())
        }
        (Family::V6, [_, _, own @ ..]) => {
            let mut bytes = [0; 16];
            for (to, from) in bytes.iter_mut().zip(V6_PREFIX.iter().chain(own)) {
                *to = *from;
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

fn exhausted(name: Name, family: Family) -> Finding {
    let range = match family {
        Family::V4 => "240.240.0.0/16",
        Family::V6 => "fdf0:7069:6c6c::/48",
    };
    Finding {
        subject: Subject::Service(name),
        path: "spec.clusterIP".to_owned(),
        reason: format!("no virtual address of {range} is left: give the Service one of its own"),
        refused: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{mesh::Mesh, tests::objects};

    fn services(names: impl IntoIterator<Item = String>, spec: &str) -> String {
        names
            .into_iter()
            .map(|name| {
                format!(
                    "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
                     spec: {{{spec}ports: [{{port: 80}}]}}\n---\n"
                )
            })
            .collect()
    }

    fn of(mesh: &Mesh, name: &str) -> Vec<IpAddr> {
        mesh.host_addresses(&format!("{name}.shop"), "other").unwrap().to_vec()
    }

    #[test]
    fn an_address_depends_on_the_name_alone() {
        let (one, _) = Mesh::compile(&objects(&services(["orders".to_owned()], "")), None);
        let (many, _) = Mesh::compile(&objects(&services(["a", "orders", "z"].map(str::to_owned), "")), None);
        assert_eq!(of(&one, "orders"), of(&many, "orders"));
        let found: Vec<String> = of(&one, "orders").iter().map(ToString::to_string).collect();
        // Written down: another release must not move anybody.
        assert_eq!(found, ["240.240.16.205", "fdf0:7069:6c6c:6d2c:5dc3:d520:23d6:b497"]);
    }

    #[test]
    fn families_given_addresses_and_headless_services_are_respected() {
        for (spec, wanted) in [
            ("ipFamilies: [IPv4], ", vec![true]),
            ("ipFamilies: [IPv6], ", vec![false]),
            ("ipFamilies: [IPv6, IPv4], ", vec![true, false]),
            ("clusterIP: 10.96.0.1, ", vec![true]),
            ("clusterIP: '', ", vec![true, false]),
            ("clusterIP: None, ", vec![]),
        ] {
            let (mesh, findings) = Mesh::compile(&objects(&services(["a".to_owned()], spec)), None);
            let families: Vec<bool> = of(&mesh, "a").iter().map(IpAddr::is_ipv4).collect();
            assert_eq!(families, wanted, "{spec}");
            assert!(findings.is_empty(), "{findings:?}");
        }
    }

    #[test]
    fn who_has_an_address_keeps_it_and_who_is_new_gives_way() {
        // Two names with the same first candidate.
        let first = |name: &str| candidate(&Name::new("shop", name), Family::V4, 0);
        let mut seen = BTreeMap::new();
        let (a, b) = (0..)
            .find_map(|number| {
                let name = format!("s{number:05}");
                seen.insert(first(&name)?, name.clone()).map(|earlier| (earlier, name))
            })
            .unwrap();
        let compile = |names: &[&String], previous: Option<&Mesh>| {
            Mesh::compile(&objects(&services(names.iter().map(ToString::to_string), "")), previous).0
        };
        let late = compile(&[&b], None);
        let both = compile(&[&a, &b], Some(&late));
        assert_eq!(of(&both, &b), of(&late, &b), "the older one stays");
        assert_ne!(of(&both, &a)[0], of(&both, &b)[0]);
        let again = compile(&[&a, &b], Some(&both));
        assert_eq!(of(&again, &a), of(&both, &a));
        let restarted = compile(&[&a, &b], None);
        assert_eq!(of(&restarted, &a)[0], first(&a).unwrap(), "after a restart the first by name");
    }

    #[test]
    fn what_others_name_is_not_given_away() {
        let name = Name::new("shop", "a");
        let contested = candidate(&name, Family::V4, 0).unwrap();
        let text = services(["a".to_owned()], "") + &services(["b".to_owned()], &format!("clusterIP: {contested}, "));
        let (mesh, _) = Mesh::compile(&objects(&text), None);
        assert_eq!(of(&mesh, "b"), [contested]);
        assert_eq!(of(&mesh, "a")[0], candidate(&name, Family::V4, 1).unwrap());
    }

    #[test]
    fn ten_thousand_services_have_addresses_of_their_own() {
        let (mesh, findings) = Mesh::compile(&objects(&services((0..10_000).map(|n| format!("s{n}")), "")), None);
        let all: HashSet<IpAddr> = (0..10_000).flat_map(|n| of(&mesh, &format!("s{n}"))).collect();
        assert_eq!(all.len(), 20_000);
        assert!(findings.is_empty());
        let in_range = |address: &IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().starts_with(&V4_PREFIX),
            IpAddr::V6(v6) => v6.octets().starts_with(&V6_PREFIX),
        };
        assert!(all.iter().all(in_range));
    }
}
