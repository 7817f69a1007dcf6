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
    }
}
