//! Parts of a cluster by its hosts' metadata (`Cluster.lb_subset_config`), for control planes that say it so: our own makes a
//! cluster of each.

use std::collections::{BTreeMap, BTreeSet};

use super::Endpoints;

/// Metadata under the key `envoy.lb`, each value as JSON text: `{"version": "\"v2\""}`.
pub type Labels = BTreeMap<String, String>;

/// `LbSubsetConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subsets {
    /// `subset_selectors`: keys by which hosts are divided. Criteria with other keys find no subset.
    pub selectors: Vec<Selector>,
    /// `fallback_policy`: `NO_FALLBACK` by default.
    pub fallback: Fallback,
    /// `default_subset`.
    pub default: Labels,
}

/// `LbSubsetSelector`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// `keys`.
    pub keys: BTreeSet<String>,
    /// `fallback_policy`; `None`: the cluster's.
    pub fallback: Option<Fallback>,
}

/// `LbSubsetFallbackPolicy`: who takes a request whose subset has no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// `NO_FALLBACK`: nobody.
    Nobody,
    /// `ANY_ENDPOINT`.
    Any,
    /// `DEFAULT_SUBSET`.
    Default,
}

impl Subsets {
    /// The hosts among `all` for requests with these criteria (`metadata_match`), as Envoy chooses them. Linear in the hosts.
    pub fn select(&self, criteria: &Labels, all: &Endpoints) -> Endpoints {
        let selector = self.selectors.iter().find(|selector| selector.keys.iter().eq(criteria.keys()));
        if !criteria.is_empty() && selector.is_some() {
            let found = with(criteria, all);
            if found.localities.iter().any(|locality| !locality.endpoints.is_empty()) {
                return found;
            }
        }
        match selector.and_then(|selector| selector.fallback).unwrap_or(self.fallback) {
            Fallback::Nobody => Endpoints { localities: Vec::new(), ..all.clone() },
            Fallback::Any => all.clone(),
            Fallback::Default => with(&self.default, all),
        }
    }
}

fn with(criteria: &Labels, all: &Endpoints) -> Endpoints {
    let mut found = all.clone();
    for locality in &mut found.localities {
        let matches = |labels: &Labels| criteria.iter().all(|(key, value)| labels.get(key) == Some(value));
        locality.endpoints.retain(|endpoint| matches(endpoint.labels.as_deref().unwrap_or(&Labels::new())));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use super::*;
    use crate::config::{Endpoint, Locality};

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// The ports that requests with these criteria go to.
    fn ports(subsets: &Subsets, criteria: &[(&str, &str)]) -> Vec<u16> {
        let endpoint = |(port, pairs): (u16, &[(&str, &str)])| Endpoint {
            labels: (!pairs.is_empty()).then(|| Arc::new(labels(pairs))),
            ..Endpoint::new(([127, 0, 0, 1], port).into())
        };
        let hosts: [(u16, &[(&str, &str)]); 4] =
            [(1, &[("version", "1")]), (2, &[("version", "2"), ("stage", "prod")]), (3, &[("version", "2")]), (4, &[])];
        let endpoints = hosts.into_iter().map(endpoint).collect();
        let locality = Locality { zone: String::new(), priority: 0, weight: NonZeroU32::MIN, endpoints };
        let all = Endpoints { localities: vec![locality], ..Endpoints::default() };
        let found = subsets.select(&labels(criteria), &all);
        found.localities.iter().flat_map(|locality| &locality.endpoints).map(|host| host.address.port()).collect()
    }

    #[test]
    fn hosts_are_divided_by_selectors_and_whoever_finds_none_falls_back() {
        let selector =
            |keys: &[&str], fallback| Selector { keys: keys.iter().map(|key| (*key).to_owned()).collect(), fallback };
        let selectors = vec![selector(&["version"], None), selector(&["stage", "version"], Some(Fallback::Any))];
        let subsets =
            |fallback| Subsets { selectors: selectors.clone(), fallback, default: labels(&[("version", "1")]) };
        let nobody = subsets(Fallback::Nobody);
        for (criteria, expected) in [
            (&[("version", "1")][..], &[1][..]),
            (&[("version", "2")], &[2, 3]),
            (&[("version", "2"), ("stage", "prod")], &[2]),
            (&[("version", "1"), ("stage", "prod")], &[1, 2, 3, 4]),
            (&[("version", "3")], &[]),
            (&[("stage", "prod")], &[]),
            (&[], &[]),
        ] {
            assert_eq!(ports(&nobody, criteria), expected, "{criteria:?}");
        }
        assert_eq!(ports(&subsets(Fallback::Any), &[("stage", "prod")]), [1, 2, 3, 4], "no selector has these keys");
        assert_eq!(ports(&subsets(Fallback::Any), &[]), [1, 2, 3, 4]);
        assert_eq!(ports(&subsets(Fallback::Default), &[("version", "3")]), [1]);
    }
}
