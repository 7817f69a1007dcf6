//! The rules in the words of nftables: one table for both families, replaced in one transaction.

use std::fmt::Write as _;

use super::rules::{Chain, Hook, Kind, Match, Rule, Verdict};

/// Removes our table, whether it is there or not.
pub(super) const UNDO: &str = "add table inet pillion\ndelete table inet pillion\n";

/// Replaces our table.
pub(super) fn ruleset(chains: &[Chain]) -> String {
    let mut text = format!("{UNDO}table inet pillion {{\n");
    for chain in chains {
        let (kind, priority) = base(chain);
        let hook = match chain.hook {
            Hook::Output => "output",
            Hook::Prerouting => "prerouting",
        };
        let Chain { name, .. } = chain;
        let _infallible =
            writeln!(text, "\tchain {name} {{\n\t\ttype {kind} hook {hook} priority {priority}; policy accept;");
        for rule in &chain.rules {
            let _infallible = writeln!(text, "\t\t# {}", rule.why);
            for line in lines(rule, chain.hook) {
                let _infallible = writeln!(text, "\t\t{line}");
            }
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

/// Chain type and priority. What leaves is ours before others rewrite it (a container engine's DNS), what comes in is ours
/// after others have (its published ports).
fn base(chain: &Chain) -> (&'static str, i32) {
    match (chain.kind, chain.hook) {
        (Kind::Raw, _) => ("filter", -300),
        (Kind::Mangle, Hook::Output) => ("route", -150),
        (Kind::Mangle, Hook::Prerouting) => ("filter", -150),
        (Kind::Nat, Hook::Output) => ("nat", -101),
        (Kind::Nat, Hook::Prerouting) => ("nat", -99),
    }
}

fn lines(rule: &Rule, hook: Hook) -> Vec<String> {
    let matches = matches(&rule.matches, hook);
    match rule.verdict {
        Verdict::Leave => vec![format!("{matches}return")],
        Verdict::Redirect(port) => vec![format!("{matches}redirect to :{port}")],
        // A packet whose socket is not transparent falls through; a call must not get past the sidecar.
        Verdict::Divert(port) => vec![
            format!("meta nfproto ipv4 {matches}tproxy ip to :{port} accept"),
            format!("meta nfproto ipv6 {matches}tproxy ip6 to :{port} accept"),
            "tcp flags & (fin | syn | rst | ack) == syn drop".to_owned(),
        ],
        Verdict::MarkConnection(mark) => vec![format!("{matches}ct mark set {mark}")],
        Verdict::MarkPacket(mark) => vec![format!("{matches}meta mark set {mark}")],
        Verdict::Zone(zone) => vec![format!("{matches}ct zone set {zone}")],
    }
}

/// All matches, each with a space behind it.
fn matches(matches: &[Match], hook: Hook) -> String {
    let interface_name = if hook == Hook::Output { "oifname" } else { "iifname" };
    let has_port = matches.iter().any(|one| matches!(one, Match::Port(_) | Match::SourcePort(_)));
    let protocol = if matches.contains(&Match::Udp) { "udp" } else { "tcp" };
    let mut text = String::new();
    for one in matches {
        let written = match one {
            // `tcp dport` implies it.
            Match::Tcp | Match::Udp if has_port => continue,
            Match::Tcp | Match::Udp => format!("meta l4proto {protocol}"),
            Match::Port(range) => format!("{protocol} dport {}", range.with('-')),
            Match::SourcePort(port) => format!("{protocol} sport {port}"),
            Match::Uid(range) => format!("meta skuid {}", range.with('-')),
            Match::Gid(range) => format!("meta skgid {}", range.with('-')),
            Match::Mark(mark) => format!("meta mark {mark}"),
            Match::Via(interface) => format!("{interface_name} \"{}\"", interface.with('*')),
            Match::NotVia(interface) => format!("{interface_name} != \"{}\"", interface.with('*')),
            Match::To(network) if network.address.is_ipv4() => format!("ip daddr {network}"),
            Match::To(network) => format!("ip6 daddr {network}"),
            Match::ToElsewhere => "fib daddr type != local".to_owned(),
            Match::FromElsewhere => "fib saddr type != local".to_owned(),
            Match::Reply => "ct direction reply".to_owned(),
            Match::ConnectionMark(mark) => format!("ct mark {mark}"),
        };
        text.push_str(&written);
        text.push(' ');
    }
    text
}
