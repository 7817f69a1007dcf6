//! What can program the rules: which of it is here, and the steps that install or remove ours.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::Failure;
use super::flags::Wanted;
use super::iptables::{self, Family};
use super::program::{Step, ask, find};
use super::rules::Chain;
use super::{nft, routing};

/// Keeps everybody else's rules; waits for another program that changes them just now.
const RESTORE: [&str; 2] = ["--noflush", "--wait=5"];

/// One way to program rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// nftables.
    Nft,
    /// iptables on top of nftables.
    IptablesNft,
    /// iptables as it was.
    IptablesLegacy,
}

impl Backend {
    /// All, in the order in which they are tried.
    pub(super) const ALL: [Self; 3] = [Self::Nft, Self::IptablesNft, Self::IptablesLegacy];

    /// Those that may be used.
    pub(super) fn wanted(wanted: Wanted) -> Vec<Self> {
        match wanted {
            Wanted::Auto => Self::ALL.to_vec(),
            Wanted::Nft => vec![Self::Nft],
            Wanted::IptablesNft => vec![Self::IptablesNft],
            Wanted::IptablesLegacy => vec![Self::IptablesLegacy],
        }
    }

    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }

    /// The steps that put these rules in place of those of an earlier run.
    ///
    /// # Errors
    /// When its program is not here, or cannot say what is there already.
    pub(super) fn install(self, chains: &[Chain], families: &[Family]) -> Result<Vec<Step>, Failure> {
        if self == Self::Nft {
            let nft = find("nft").ok_or(Failure::Missing("nft"))?;
            return Ok(vec![Step::new(nft, ["-f", "-"]).with_input(nft::ruleset(chains))]);
        }
        let steps = families.iter().map(|family| {
            let restore = self.tool(*family, "restore").ok_or_else(|| Failure::Missing(self.name()))?;
            let rules = iptables::ruleset(chains, *family, &self.saved(*family));
            Ok(Step::new(restore, RESTORE).with_input(rules))
        });
        steps.collect()
    }

    /// The steps that remove our rules; none when there are none.
    pub(super) fn remove(self, families: &[Family]) -> Vec<Step> {
        if self == Self::Nft {
            let there = self.rules(families);
            let nft = there.and_then(|_rules| find("nft"));
            return nft.map(|nft| Step::new(nft, ["-f", "-"]).with_input(nft::UNDO.to_owned())).into_iter().collect();
        }
        let steps = families.iter().filter_map(|family| {
            let undo = Some(iptables::undo(&self.saved(*family))).filter(|undo| !undo.is_empty())?;
            Some(Step::new(self.tool(*family, "restore")?, RESTORE).with_input(undo))
        });
        steps.collect()
    }

    /// Our rules, as the kernel has them now.
    pub(super) fn rules(self, families: &[Family]) -> Option<String> {
        if self == Self::Nft {
            let nft = find("nft")?;
            // Asking for a table that is not there is an error like any other: so ask which are.
            let tables = ask(&nft, &["list", "tables", "inet"])?;
            let there = tables.lines().any(|line| line == "table inet pillion");
            return if there { ask(&nft, &["list", "table", "inet", "pillion"]) } else { None };
        }
        let saved: Vec<String> = families.iter().map(|family| self.saved(*family)).collect();
        saved.iter().all(|saved| iptables::is_ours(saved)).then(|| saved.concat())
    }

    /// What `iptables-save` says; empty when it cannot say, since then nothing of ours can be there.
    fn saved(self, family: Family) -> String {
        // Asking legacy iptables would load its kernel modules.
        if self == Self::IptablesLegacy && !legacy_tables(family) {
            return String::new();
        }
        self.tool(family, "save").and_then(|save| ask(&save, &[])).unwrap_or_default()
    }

    /// `iptables-nft-restore`; or `iptables-restore`, where that is the one meant.
    fn tool(self, family: Family, verb: &str) -> Option<PathBuf> {
        let (iptables, kind) = match (family, self) {
            (_, Self::Nft) => return None,
            (Family::V4, Self::IptablesNft) => ("iptables", "nft"),
            (Family::V4, Self::IptablesLegacy) => ("iptables", "legacy"),
            (Family::V6, Self::IptablesNft) => ("ip6tables", "nft"),
            (Family::V6, Self::IptablesLegacy) => ("ip6tables", "legacy"),
        };
        find(&format!("{iptables}-{kind}-{verb}")).or_else(|| {
            let plain = find(&format!("{iptables}-{verb}"))?;
            // "iptables v1.8.9 (nf_tables)"; nothing in brackets before 1.8.
            let on_nft = ask(&plain, &["--version"])?.contains("(nf_tables)");
            (on_nft == (self == Self::IptablesNft)).then_some(plain)
        })
    }
}

fn legacy_tables(family: Family) -> bool {
    let names = match family {
        Family::V4 => "/proc/net/ip_tables_names",
        Family::V6 => "/proc/net/ip6_tables_names",
    };
    fs::read_to_string(names).is_ok_and(|names| !names.trim().is_empty())
}

/// The steps that make the route of tproxy; none for a family that has it.
///
/// # Errors
/// Without `ip`.
pub(super) fn make_route(families: &[Family], mark: u32) -> Result<Vec<Step>, Failure> {
    let ip = find("ip").ok_or(Failure::Missing("ip"))?;
    let commands = families.iter().flat_map(|family| {
        let (rules, routes) = routing_of(&ip, *family);
        if routing::is_made(mark, &rules, &routes) {
            return Vec::new();
        }
        [routing::undo(*family, &rules, &routes), routing::make(*family, mark)].concat()
    });
    Ok(commands.map(|words| Step::new(ip.clone(), words)).collect())
}

/// The steps that remove the route of tproxy; none when there is none.
pub(super) fn remove_route(families: &[Family]) -> Vec<Step> {
    let Some(ip) = find("ip") else { return Vec::new() };
    let commands = families.iter().flat_map(|family| {
        let (rules, routes) = routing_of(&ip, *family);
        routing::undo(*family, &rules, &routes)
    });
    commands.map(|words| Step::new(ip.clone(), words)).collect()
}

/// Routing rules of our priority and routes of our table, as `ip` shows them; nothing where it cannot.
fn routing_of(ip: &Path, family: Family) -> (String, String) {
    let said = |words: Vec<String>| Step::new(ip.to_owned(), words).run().unwrap_or_default();
    let [rules, routes] = routing::show(family).map(said);
    (rules, routes)
}

/// The address families that this namespace's kernel has.
pub(super) fn families() -> Vec<Family> {
    let v6 = fs::exists("/proc/net/if_inet6").unwrap_or(false);
    if v6 { vec![Family::V4, Family::V6] } else { vec![Family::V4] }
}
