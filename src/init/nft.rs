//! The rules in the words of nftables: one table for both families, replaced in one transaction.

use std::fmt::Write as _;

use super::rules::{Chain, Hook, Kind, Match, Rule, Verdict};

/// Removes our table, whether it is there or not.
pub(super) const UNDO: &str = "add table inet pillion\ndelete table inet pillion\n";

/// Equal to `syn` in the packet that opens a connection.
const OPENS: &str = "tcp flags & (fin | syn | rst | ack)";

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
            format!("{OPENS} == syn drop"),
        ],
        Verdict::MarkConnection(mark) => vec![format!("{matches}ct mark set {mark}")],
        Verdict::MarkPacket(mark) => vec![format!("{matches}meta mark set {mark}")],
        Verdict::Zone(zone) => vec![format!("{matches}ct zone set {zone}")],
    }
}

/// All matches, each with a space behind it.
fn matches(matches: &[Match], hook: Hook) -> String {
    let interface_name = if hook == Hook::Output { "oifname" } else { "iifname" };
    let implied = matches.iter().any(|one| matches!(one, Match::Port(_) | Match::SourcePort(_) | Match::Midway));
    let protocol = if matches.contains(&Match::Udp) { "udp" } else { "tcp" };
    let mut text = String::new();
    for one in matches {
        let written = match one {
            // By `tcp dport`.
            Match::Tcp | Match::Udp if implied => continue,
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
            Match::Midway => format!("{OPENS} != syn"),
        };
        text.push_str(&written);
        text.push(' ');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::flags::Flags;
    use crate::init::rules::Rules;

    fn text(words: &str) -> String {
        let words = std::iter::once("init").chain(words.split_whitespace());
        let flags = Flags::read(words.map(Into::into)).unwrap();
        let text = ruleset(&Rules::new(&flags).chains());
        text.lines().filter(|line| !line.trim().starts_with('#')).map(|line| format!("{}\n", line.trim())).collect()
    }

    #[test]
    fn the_whole_of_it() {
        let expected = "\
            add table inet pillion
            delete table inet pillion
            table inet pillion {
            chain inbound {
            type nat hook prerouting priority -99; policy accept;
            iifname \"lo\" return
            fib daddr type != local return
            tcp flags & (fin | syn | rst | ack) != syn return
            tcp dport 15008 return
            tcp dport 15021 return
            tcp dport 15090 return
            meta l4proto tcp redirect to :15006
            }
            chain outbound {
            type nat hook output priority -101; policy accept;
            tcp flags & (fin | syn | rst | ack) != syn return
            meta skuid 1337 return
            meta mark 1337 return
            tcp dport 53 return
            oifname \"lo\" return
            ip6 daddr fe80::/10 return
            meta l4proto tcp redirect to :15001
            }
            }\n";
        assert_eq!(text(""), expected.replace("            ", ""));
    }

    #[test]
    fn each_flag_makes_its_rules() {
        for (words, expected) in [
            ("--outbound-port 1", "redirect to :1"),
            ("--inbound-port 2", "redirect to :2"),
            ("--mesh-port 3", "tcp dport 3 return"),
            ("--uid 5,7-9", "meta skuid 5 return\nmeta skuid 7-9 return\nmeta mark 1337 return"),
            ("--gid 5", "meta skuid 1337 return\nmeta skgid 5 return"),
            ("--mark 7", "meta mark 7 return"),
            ("--exclude-uids 5 --exclude-gids 6", "meta skuid 5 return\nmeta skgid 6 return\ntcp dport 53"),
            ("--exclude-inbound-ports 22,9000-9010", "tcp dport 22 return\ntcp dport 9000-9010 return"),
            ("--exclude-outbound-ports 22", "tcp dport 53 return\ntcp dport 22 return\noifname"),
            (
                "--exclude-cidrs 10.1.2.3/8,fd00::/8",
                "ip daddr 10.0.0.0/8 return\nip6 daddr fd00::/8 return\nmeta l4proto",
            ),
            (
                "--include-cidrs 127.77.0.0/16 --exclude-cidrs 0.0.0.0/0",
                "ip daddr 127.77.0.0/16 meta l4proto tcp redirect to :15001\noifname \"lo\" return\nip6 daddr fe80::/10 return\nip daddr 0.0.0.0/0 return",
            ),
            (
                "--exclude-interfaces veth*",
                "oifname \"lo\" return\nip6 daddr fe80::/10 return\noifname \"veth*\" return",
            ),
            ("--exclude-interfaces veth*", "iifname \"veth*\" return\ntcp dport 15008"),
            (
                "--capture-dns",
                "meta mark 1337 return\ntcp dport 53 redirect to :15053\nudp dport 53 redirect to :15053\noifname",
            ),
            ("--capture-dns", "meta skuid 1337 udp dport 53 ct zone set 15053"),
            ("--capture-dns", "udp sport 53 iifname != \"lo\" ct zone set 15053"),
            (
                "--mode tproxy",
                "meta nfproto ipv4 meta l4proto tcp tproxy ip to :15006 accept\n\
                 meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :15006 accept\n\
                 tcp flags & (fin | syn | rst | ack) == syn drop",
            ),
            ("--mode tproxy", "fib daddr type != local return\nct direction reply return"),
            (
                "--mode tproxy",
                "meta skuid 1337 meta l4proto tcp oifname \"lo\" fib saddr type != local ct mark set 1338",
            ),
            ("--mode tproxy --mark 7", "meta l4proto tcp ct direction reply ct mark 8 meta mark set 8"),
        ] {
            let text = text(words);
            assert!(text.contains(expected), "{words}: {text}");
        }
    }
}
