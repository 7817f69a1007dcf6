//! TLS that applications speak themselves, by the name that the client asks for (SNI, RFC 6066 section 3).

use std::collections::HashMap;

use super::Split;

/// Clusters by server name, chosen as Envoy chooses by `FilterChainMatch.server_names`: the name itself, then the
/// longest `*.suffix`, then what is for all.
#[derive(Debug, Default)]
pub struct TlsSplits {
    splits: Vec<Split>,
    /// Names and `*.suffix` patterns, in lower case, to their place in `splits`.
    by_name: HashMap<String, usize>,
    /// The place of what is for all.
    rest: Option<usize>,
}

impl TlsSplits {
    /// Splits with their server names, in lower case; without any it is for all. Of two for one name the first counts.
    pub fn new<'a>(chains: impl IntoIterator<Item = (&'a [String], Split)>) -> Self {
        let mut found = Self::default();
        for (names, split) in chains {
            let place = found.splits.len();
            if names.is_empty() {
                found.rest.get_or_insert(place);
            }
            for name in names {
                found.by_name.entry(name.clone()).or_insert(place);
            }
            found.splits.push(split);
        }
        found
    }

    /// What is told for connections that ask for `sni`, in any case. `None`: nothing.
    pub fn select(&self, sni: Option<&str>) -> Option<&Split> {
        let named = sni.filter(|_| !self.by_name.is_empty()).and_then(|name| self.named(&name.to_ascii_lowercase()));
        self.splits.get(named.or(self.rest)?)
    }

    /// All of them, in order.
    pub fn all(&self) -> &[Split] {
        &self.splits
    }

    /// Each with the names that lead to it, in order; none for what is for all.
    pub fn iter(&self) -> impl Iterator<Item = (Vec<&str>, &Split)> {
        self.splits.iter().enumerate().map(|(place, split)| {
            let mut names: Vec<&str> =
                self.by_name.iter().filter(|(_, at)| **at == place).map(|(name, _)| name.as_str()).collect();
            names.sort_unstable();
            (names, split)
        })
    }

    fn named(&self, name: &str) -> Option<usize> {
        let mut rest = name;
        self.by_name.get(name).copied().or_else(|| {
            while let Some((_, suffix)) = rest.split_once('.') {
                if let Some(place) = self.by_name.get(&format!("*.{suffix}")) {
                    return Some(*place);
                }
                rest = suffix;
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use super::*;
    use crate::config::{self};
    use crate::snapshot::{Cluster, Target};
    use crate::upstream::Upstream;

    fn split(name: &str) -> Split {
        let config = config::Cluster::new(name);
        let cluster = Cluster { config, upstream: Arc::new(Upstream::new(name)) };
        Split::new([(NonZeroU32::MIN, Arc::new(cluster))]).expect("a cluster")
    }

    /// Chains by name, each leading to a cluster of the chain's names.
    fn target(chains: &[&[&str]], tcp: bool) -> Target {
        let names: Vec<Vec<String>> =
            chains.iter().map(|names| names.iter().map(ToString::to_string).collect()).collect();
        let chains = names.iter().map(|names| (names.as_slice(), split(&names.join(","))));
        let destination = "a.shop:443".parse().expect("literal");
        Target::new(destination, None, tcp.then(|| split("tcp")), TlsSplits::new(chains))
    }

    #[test]
    fn exact_before_longest_suffix_before_all_before_tcp() {
        let chains: &[&[&str]] = &[&["*.example"], &["x.example", "y.example"], &["*.b.example"]];
        let with_rest: Vec<&[&str]> = chains.iter().copied().chain([&[][..]]).collect();
        for (sni, expected) in [
            (Some("x.example"), "x.example,y.example"),
            (Some("Y.Example"), "x.example,y.example"),
            (Some("z.example"), "*.example"),
            (Some("a.z.example"), "*.example"),
            (Some("a.b.example"), "*.b.example"),
            (Some("a.a.b.example"), "*.b.example"),
            (Some("b.example"), "*.example"),
            (Some("x.example.org"), "rest"),
            (Some("example"), "rest"),
            (Some("*.example"), "*.example"),
            (Some(""), "rest"),
            (Some("..."), "rest"),
            (None, "rest"),
        ] {
            for (target, rest) in [(target(chains, true), "tcp"), (target(&with_rest, true), "")] {
                let expected = if expected == "rest" { rest } else { expected };
                let found = target.tls_split(sni).expect("somewhere");
                assert_eq!(found.pick(0).config.name, expected, "{sni:?}");
            }
        }
        assert!(target(chains, false).tls_split(Some("other")).is_none());
        assert!(target(&[], false).tls_split(None).is_none());
        let listed: Vec<_> = target(&with_rest, false).tls.iter().map(|(names, _)| names.join(" ")).collect();
        assert_eq!(listed, ["*.example", "x.example y.example", "*.b.example", ""]);
    }
}
