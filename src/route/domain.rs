//! Virtual-host search: exact, then longest suffix wildcard, then longest prefix wildcard, then `*`
//! (Envoy `VirtualHost.domains`).

use std::borrow::Cow;

/// The position of the virtual host whose domains fit `authority` best. A domain without a port fits any port.
pub fn best_domain<'a>(hosts: impl Iterator<Item = &'a [String]>, authority: &str) -> Option<usize> {
    let is_lower = !authority.bytes().any(|byte| byte.is_ascii_uppercase());
    let authority = if is_lower { Cow::Borrowed(authority) } else { Cow::Owned(authority.to_ascii_lowercase()) };
    let host = without_port(&authority);
    let mut best = None;
    for (at, domains) in hosts.enumerate() {
        for domain in domains {
            let rank = rank(domain, &authority).max(rank(domain, host));
            if rank > best.map_or(Rank::None, |(rank, _)| rank) {
                best = Some((rank, at));
            }
        }
    }
    best.map(|(_, at)| at)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    None,
    Any,
    Prefix(usize),
    Suffix(usize),
    Exact,
}

fn rank(domain: &str, name: &str) -> Rank {
    if domain == "*" {
        return Rank::Any;
    }
    if domain == name {
        return Rank::Exact;
    }
    // A wildcard stands for at least one character.
    let longer = name.len() >= domain.len();
    if let Some(suffix) = domain.strip_prefix('*') {
        return if longer && name.ends_with(suffix) { Rank::Suffix(domain.len()) } else { Rank::None };
    }
    if let Some(prefix) = domain.strip_suffix('*') {
        return if longer && name.starts_with(prefix) { Rank::Prefix(domain.len()) } else { Rank::None };
    }
    Rank::None
}

fn without_port(authority: &str) -> &str {
    let host = authority.trim_end_matches(|letter: char| letter.is_ascii_digit());
    host.strip_suffix(':').filter(|_| host.len() < authority.len()).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_domain_wins() {
        let hosts: Vec<Vec<String>> = [vec!["*"], vec!["*.shop"], vec!["orders.*"], vec!["orders.shop", "o:80"]]
            .iter()
            .map(|domains| domains.iter().map(|&domain| domain.to_owned()).collect())
            .collect();
        let best = |authority| best_domain(hosts.iter().map(Vec::as_slice), authority);
        assert_eq!(best("Orders.Shop:8080"), Some(3));
        assert_eq!(best("o:80"), Some(3));
        assert_eq!(best("o:81"), Some(0));
        assert_eq!(best("pay.shop"), Some(1));
        assert_eq!(best("orders.example"), Some(2));
        assert_eq!(best("x"), Some(0));
        assert_eq!(best("pay.shop:"), Some(0)); // An empty port is none.
        assert_eq!(best("80"), Some(0));
        assert_eq!(best_domain(std::iter::empty(), "x"), None);
    }
}
