//! The rules in the words of iptables: for one family at a time, as input of `iptables-restore --noflush`.

use std::fmt::Write as _;

use super::rules::{Chain, Hook, Kind, Match, Rule, Verdict};

/// Our chains begin so.
const PREFIX: &str = "pillion_";

/// An address family; iptables has a program for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Replaces our rules. `saved` is what `iptables-save` says now, from which those of an earlier run are taken.
pub(super) fn ruleset(chains: &[Chain], family: Family, saved: &str) -> String {
    [Kind::Raw, Kind::Mangle, Kind::Nat].map(|kind| table(kind, chains, family, saved)).concat()
}

/// Removes our rules; empty when there are none.
pub(super) fn undo(saved: &str) -> String {
    ruleset(&[], Family::V4, saved)
}

/// True when `iptables-save` shows rules of ours.
pub(super) fn is_ours(saved: &str) -> bool {
    !undo(saved).is_empty()
}

fn table(kind: Kind, chains: &[Chain], family: Family, saved: &str) -> String {
    let chains: Vec<&Chain> = chains.iter().filter(|chain| chain.kind == kind).collect();
    let saved = section(name(kind), saved);
    let (old_chains, old_jumps) = leftovers(saved);
    let mut text = String::new();
    // Declaring a chain makes it, or empties it.
    for chain in &chains {
        let _infallible = writeln!(text, ":{PREFIX}{} - [0:0]", chain.name);
    }
    for jump in old_jumps {
        let _infallible = writeln!(text, "-D {jump}");
    }
    let unused = |old: &&str| chains.iter().all(|chain| old.strip_prefix(PREFIX) != Some(chain.name));
    let removed: Vec<&str> = old_chains.into_iter().filter(unused).collect();
    for verb in ["-F", "-X"] {
        for chain in &removed {
            let _infallible = writeln!(text, "{verb} {chain}");
        }
    }
    for chain in &chains {
        for rule in &chain.rules {
            append(&mut text, chain, rule, family);
        }
        // What leaves is ours before others rewrite it, what comes in after.
        let (hook, verb) = match chain.hook {
            Hook::Output => ("OUTPUT", "-I"),
            Hook::Prerouting => ("PREROUTING", "-A"),
        };
        let _infallible = writeln!(text, "{verb} {hook} -j {PREFIX}{}", chain.name);
    }
    if text.is_empty() { text } else { format!("*{}\n{text}COMMIT\n", name(kind)) }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Raw => "raw",
        Kind::Mangle => "mangle",
        Kind::Nat => "nat",
    }
}

/// The part of `iptables-save`'s output that is about one table.
fn section<'a>(table: &str, saved: &'a str) -> impl Iterator<Item = &'a str> {
    let start = format!("*{table}");
    saved.lines().skip_while(move |line| *line != start).take_while(|line| *line != "COMMIT")
}

/// Our chains in a table, and the rules of other chains that lead to them.
fn leftovers<'a>(saved: impl Iterator<Item = &'a str>) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut chains, mut jumps) = (Vec::new(), Vec::new());
    let to_ours = format!(" -j {PREFIX}");
    for line in saved {
        if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
            chains.extend(chain.starts_with(PREFIX).then_some(chain));
        } else if let Some(rule) = line.strip_prefix("-A ") {
            jumps.extend((!rule.starts_with(PREFIX) && rule.contains(&to_ours)).then_some(rule));
        }
    }
    (chains, jumps)
}

fn append(text: &mut String, chain: &Chain, rule: &Rule, family: Family) {
    let foreign =
        |one: &Match| matches!(one, Match::To(network) if network.address.is_ipv4() != (family == Family::V4));
    if rule.matches.iter().any(foreign) {
        return;
    }
    let matches: String = rule.matches.iter().map(|one| written(one, chain.hook)).collect();
    let chain = format!("-A {PREFIX}{}", chain.name);
    let target = match rule.verdict {
        Verdict::Leave => "RETURN".to_owned(),
        Verdict::Redirect(port) => format!("REDIRECT --to-ports {port}"),
        Verdict::Divert(port) => {
            // TPROXY drops what belongs to a socket that is not transparent: connections from before the rules.
            let _infallible = writeln!(text, "{chain}{matches} ! --syn -m socket -j RETURN");
            format!("TPROXY --on-port {port} --on-ip {} --tproxy-mark 0x0/0x0", unspecified(family))
        }
        Verdict::MarkConnection(mark) => format!("CONNMARK --set-mark {mark}"),
        Verdict::MarkPacket(mark) => format!("MARK --set-mark {mark}"),
        Verdict::Zone(zone) => format!("CT --zone {zone}"),
    };
    let _infallible = writeln!(text, "# {}\n{chain}{matches} -j {target}", rule.why);
}

fn unspecified(family: Family) -> &'static str {
    match family {
        Family::V4 => "0.0.0.0",
        Family::V6 => "::",
    }
}

/// A match, with a space in front of it.
fn written(one: &Match, hook: Hook) -> String {
    let interface_flag = if hook == Hook::Output { "-o" } else { "-i" };
    match one {
        Match::Tcp => " -p tcp".to_owned(),
        Match::Udp => " -p udp".to_owned(),
        Match::Port(range) => format!(" --dport {}", range.with(':')),
        Match::SourcePort(port) => format!(" --sport {port}"),
        Match::Uid(range) => format!(" -m owner --uid-owner {}", range.with('-')),
        Match::Gid(range) => format!(" -m owner --gid-owner {}", range.with('-')),
        Match::Mark(mark) => format!(" -m mark --mark {mark}"),
        Match::Via(interface) => format!(" {interface_flag} {}", interface.with('+')),
        Match::NotVia(interface) => format!(" ! {interface_flag} {}", interface.with('+')),
        Match::To(network) => format!(" -d {network}"),
        Match::ToElsewhere => " -m addrtype ! --dst-type LOCAL".to_owned(),
        Match::FromElsewhere => " -m addrtype ! --src-type LOCAL".to_owned(),
        Match::Reply => " -m conntrack --ctdir REPLY".to_owned(),
        Match::ConnectionMark(mark) => format!(" -m connmark --mark {mark}"),
        Match::Midway => " ! --syn".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::flags::Flags;
    use crate::init::rules::Rules;

    fn chains(words: &str) -> Vec<Chain> {
        let words = std::iter::once("init").chain(words.split_whitespace());
        let flags = Flags::read(words.map(Into::into)).unwrap();
        Rules::new(&flags).chains()
    }

    fn without_comments(text: &str) -> String {
        text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn the_whole_of_it() {
        let expected = "\
*nat
:pillion_inbound - [0:0]
:pillion_outbound - [0:0]
-A pillion_inbound -i lo -j RETURN
-A pillion_inbound -m addrtype ! --dst-type LOCAL -j RETURN
-A pillion_inbound -p tcp ! --syn -j RETURN
-A pillion_inbound -p tcp --dport 15008 -j RETURN
-A pillion_inbound -p tcp --dport 15021 -j RETURN
-A pillion_inbound -p tcp --dport 15090 -j RETURN
-A pillion_inbound -p tcp -j REDIRECT --to-ports 15006
-A PREROUTING -j pillion_inbound
-A pillion_outbound -p tcp ! --syn -j RETURN
-A pillion_outbound -m owner --uid-owner 1337 -j RETURN
-A pillion_outbound -m mark --mark 1337 -j RETURN
-A pillion_outbound -p tcp --dport 53 -j RETURN
-A pillion_outbound -o lo -j RETURN
-A pillion_outbound -d 10.0.0.0/8 -j RETURN
-A pillion_outbound -p tcp -j REDIRECT --to-ports 15001
-I OUTPUT -j pillion_outbound
COMMIT
";
        let chains = chains("--exclude-cidrs 10.0.0.0/8,fd00::/8");
        assert_eq!(without_comments(&ruleset(&chains, Family::V4, "")), expected);
        let v6 = expected.replace("-d 10.0.0.0/8 -j", "-d fe80::/10 -j RETURN\n-A pillion_outbound -d fd00::/8 -j");
        assert_eq!(without_comments(&ruleset(&chains, Family::V6, "")), v6);
    }

    #[test]
    fn each_flag_makes_its_rules() {
        for (words, expected) in [
            (
                "--exclude-uids 5,7-9",
                "--uid-owner 5 -j RETURN\n-A pillion_outbound -m owner --uid-owner 7-9 -j RETURN\n",
            ),
            ("--exclude-gids 5", " -m owner --gid-owner 5 -j RETURN\n"),
            ("--exclude-inbound-ports 9000-9010", "-A pillion_inbound -p tcp --dport 9000:9010 -j RETURN\n"),
            ("--exclude-interfaces veth*", "-A pillion_outbound -o veth+ -j RETURN\n"),
            ("--exclude-interfaces veth*", "-A pillion_inbound -i veth+ -j RETURN\n"),
            ("--include-cidrs 127.77.0.0/16", "-d 127.77.0.0/16 -p tcp -j REDIRECT --to-ports 15001\n"),
            ("--capture-dns", "-A pillion_outbound -p udp --dport 53 -j REDIRECT --to-ports 15053\n"),
            ("--capture-dns", "*raw\n:pillion_dns_queries - [0:0]\n:pillion_dns_replies - [0:0]\n"),
            ("--capture-dns", "-A pillion_dns_replies -p udp --sport 53 ! -i lo -j CT --zone 15053\n"),
            ("--mode tproxy", "-A pillion_inbound -m conntrack --ctdir REPLY -j RETURN\n"),
            ("--mode tproxy", "-A pillion_inbound -p tcp ! --syn -m socket -j RETURN\n"),
            ("--mode tproxy", "-p tcp -j TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x0/0x0\n"),
            ("--mode tproxy", "-m connmark --mark 1338 -j MARK --set-mark 1338\n"),
        ] {
            let text = without_comments(&ruleset(&chains(words), Family::V4, ""));
            assert!(text.contains(expected), "{words}: {text}");
        }
    }

    /// As `iptables-save` prints it.
    const SAVED: &str = "\
# Generated by iptables-save v1.8.9 (nf_tables)
*mangle
:OUTPUT ACCEPT [0:0]
:pillion_replies - [0:0]
-A OUTPUT -j pillion_replies
-A pillion_replies -p tcp -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [7:420]
:OUTPUT ACCEPT [7:420]
:pillion_outbound - [0:0]
:pillionaire - [0:0]
-A OUTPUT -j pillion_outbound
-A OUTPUT -p tcp -m tcp --dport 9 -j pillion_outbound
-A OUTPUT -j pillionaire
-A pillion_outbound -p tcp -j REDIRECT --to-ports 15001
COMMIT
";

    #[test]
    fn undo_removes_what_is_ours_and_nothing_else() {
        let expected = "\
*mangle
-D OUTPUT -j pillion_replies
-F pillion_replies
-X pillion_replies
COMMIT
*nat
-D OUTPUT -j pillion_outbound
-D OUTPUT -p tcp -m tcp --dport 9 -j pillion_outbound
-F pillion_outbound
-X pillion_outbound
COMMIT
";
        assert_eq!(undo(SAVED), expected);
        assert!(is_ours(SAVED));
        let foreign = "*nat\n:OUTPUT ACCEPT [0:0]\n:pillionaire - [0:0]\n-A OUTPUT -j pillionaire\nCOMMIT\n";
        for nothing in ["", foreign, "# Table `nat' is incompatible, use 'nft' tool.\n"] {
            assert_eq!(undo(nothing), "");
            assert!(!is_ours(nothing));
        }
    }

    #[test]
    fn an_earlier_run_is_replaced_and_not_repeated() {
        let text = without_comments(&ruleset(&chains(""), Family::V4, SAVED));
        assert!(
            text.starts_with(
                "*mangle\n-D OUTPUT -j pillion_replies\n-F pillion_replies\n-X pillion_replies\nCOMMIT\n*nat\n"
            ),
            "{text}"
        );
        assert_eq!(text.matches("-D OUTPUT -j pillion_outbound\n").count(), 1, "{text}");
        assert!(!text.contains("-X pillion_outbound"), "{text}");
    }
}
