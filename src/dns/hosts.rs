//! From the addresses of names to the hosts of a cluster.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::slice;
use std::sync::Arc;

use crate::config::{Dns, DnsEndpoint, DnsHost, DnsKind, Endpoint, Endpoints, Locality, Named};

/// What is known of each name.
pub(super) type Addresses = BTreeMap<Arc<str>, Vec<IpAddr>>;

/// The hosts of `dns`. An address that several names of one priority lead to with the same port is one host.
pub(super) fn hosts(dns: &Dns, addresses: &Addresses) -> Endpoints {
    let mut seen = HashSet::new();
    let localities = dns.localities.iter().map(|locality| {
        let found = locality.endpoints.iter().flat_map(|endpoint| {
            let of_name = match &endpoint.host {
                DnsHost::Name(name) => addresses.get(name).map_or(&[][..], Vec::as_slice),
                DnsHost::Address(address) => slice::from_ref(address),
            };
            match dns.kind {
                DnsKind::Strict => each(endpoint, of_name),
                DnsKind::Logical => logical(endpoint, of_name).into_iter().collect::<Vec<_>>(),
            }
        });
        let endpoints = found.filter(|host| seen.insert((locality.priority, host.address))).collect();
        Locality { zone: locality.zone.clone(), priority: locality.priority, weight: locality.weight, endpoints }
    });
    let localities = localities.filter(|locality| !locality.endpoints.is_empty()).collect();
    Endpoints { name: dns.key(), localities, overprovisioning: dns.overprovisioning }
}

/// In one order whatever nameservers do: many answer in another one each time, which changes nothing.
fn each(endpoint: &DnsEndpoint, addresses: &[IpAddr]) -> Vec<Endpoint> {
    let mut all: Vec<Endpoint> = addresses.iter().map(|address| host(endpoint, *address)).collect();
    all.sort_unstable_by_key(|host| host.address);
    all
}

fn host(endpoint: &DnsEndpoint, address: IpAddr) -> Endpoint {
    Endpoint {
        weight: endpoint.weight,
        health: endpoint.health,
        labels: endpoint.labels.clone(),
        ..Endpoint::new(SocketAddr::new(address, endpoint.port))
    }
}

/// One host, whose key has no address. None, when there is none to dial.
fn logical(endpoint: &DnsEndpoint, addresses: &[IpAddr]) -> Option<Endpoint> {
    let DnsHost::Name(name) = &endpoint.host else { return addresses.first().map(|only| host(endpoint, *only)) };
    let addresses: Arc<[SocketAddr]> = addresses.iter().map(|ip| SocketAddr::new(*ip, endpoint.port)).collect();
    let named = Named { name: format!("{name}:{}", endpoint.port).into(), addresses };
    let is_there = !named.addresses.is_empty();
    is_there.then(|| Endpoint { named: Some(named), ..host(endpoint, Ipv4Addr::UNSPECIFIED.into()) })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::config::{Health, LookupFamily};

    fn dns(kind: DnsKind, names: &[&str]) -> Dns {
        let endpoint = |name: &&str| DnsEndpoint {
            host: name.parse().map_or_else(|_| DnsHost::Name((*name).into()), DnsHost::Address),
            port: 80,
            weight: NonZeroU32::new(3).unwrap(),
            health: Health::Healthy,
            labels: None,
        };
        let endpoints = names.iter().map(endpoint).collect();
        Dns {
            kind,
            family: LookupFamily::All,
            refresh: Duration::from_secs(5),
            failure: (Duration::from_secs(1), Duration::from_secs(10)),
            respect_ttl: true,
            jitter: Duration::ZERO,
            localities: vec![Locality { zone: String::new(), priority: 0, weight: NonZeroU32::MIN, endpoints }],
            overprovisioning: None,
        }
    }

    fn known_of(names: &[(&str, &[&str])]) -> Addresses {
        let addresses = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        names.iter().map(|(name, list)| (Arc::from(*name), addresses(list))).collect()
    }

    #[test]
    fn strictly_each_address_is_a_host_with_what_its_name_says() {
        let dns = dns(DnsKind::Strict, &["a", "b", "192.0.2.9", "none"]);
        let known =
            known_of(&[("a", &["2001:db8::1", "192.0.2.1"]), ("b", &["192.0.2.1", "192.0.2.2"]), ("none", &[])]);
        let found = hosts(&dns, &known);
        let [locality] = found.localities.as_slice() else { panic!("{found:?}") };
        let addresses: Vec<String> = locality.endpoints.iter().map(|host| host.address.to_string()).collect();
        assert_eq!(addresses, ["192.0.2.1:80", "[2001:db8::1]:80", "192.0.2.2:80", "192.0.2.9:80"]);
        assert!(locality.endpoints.iter().all(|host| host.weight.get() == 3 && host.named.is_none()));
        assert_eq!(found.name, dns.key());
        let turned =
            known_of(&[("a", &["192.0.2.1", "2001:db8::1"]), ("b", &["192.0.2.2", "192.0.2.1"]), ("none", &[])]);
        assert_eq!(hosts(&dns, &turned), found, "another order is no change");
    }

    #[test]
    fn logically_all_addresses_are_one_host_and_none_is_no_host() {
        let dns = dns(DnsKind::Logical, &["a"]);
        let found = hosts(&dns, &known_of(&[("a", &["2001:db8::1", "192.0.2.1"])]));
        let named = found.localities[0].endpoints[0].named.clone().unwrap();
        assert_eq!(&*named.name, "a:80");
        let expected: Vec<SocketAddr> = ["[2001:db8::1]:80", "192.0.2.1:80"].map(|text| text.parse().unwrap()).into();
        assert_eq!(*named.addresses, *expected);
        assert!(hosts(&dns, &known_of(&[("a", &[])])).localities.is_empty());
    }
}
