//! What can be said on the command line of `init`.

use std::ffi::OsString;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, ValueEnum};

use super::value::{Interface, Network, Range, duration, ids, ports};

const ABOUT: &str =
    "Redirect this network namespace's TCP connections to its sidecar, without the applications' knowledge.

What applications call goes to the outbound port, what calls them to the inbound port. Left alone are
  - the sidecar's own connections, known by --uid, --gid or --mark;
  - what stays on the loopback interface: an application's calls to 127.0.0.1 and to its own pod address
    (its Service's virtual address is not one of these: it is redirected);
  - connections to the mesh port, and to 15021 (health) and 15090 (metrics), from outside;
  - DNS (unless --capture-dns), everything that is not TCP, and what is excluded below.

Running it again with other flags replaces the rules, --undo removes them. The rules are one transaction of nft or
iptables-restore and concern only the network namespace that the command runs in. It needs CAP_NET_ADMIN there: root, or
a user namespace of one's own (unshare -Urn).";

const EXAMPLES: &str = "Examples:
  pillion-proxy init --wait 30s                       redirect, once the sidecar listens
  pillion-proxy init --dry-run --mode tproxy          show the rules, change nothing, need no root
  pillion-proxy init --verify                         redirect, then prove that it works
  pillion-proxy init --verify-only                    prove that what is there works
  pillion-proxy init --undo                           remove all of it
  pillion-proxy init --without-listener --exclude-outbound-ports 5432 --exclude-inbound-ports 22,9000-9010
                                                      in an init container, which runs before the sidecar
  pillion-proxy init --exclude-cidrs 0.0.0.0/0,::/0 --include-cidrs 127.77.0.0/16
                                                      nothing but a mesh on loopback addresses
  ip netns exec shop pillion-proxy init --wait 30s    in another network namespace

Verification dials 192.0.2.1 and 2001:db8::1, which exist nowhere (RFC 5737, RFC 3849), as a user that is not exempt: the
connection must arrive at the outbound port. Inbound cannot be dialled from inside a namespace, since such connections stay
on its loopback interface: there the rules are read back from the kernel.

Exit codes: 0 done, 1 failed (the first word of the message names the failure), 2 wrong usage.
Failures: no_permission, no_backend, no_listener, no_route, not_redirected, inbound_missing, undo_failed, routing_failed";

/// Redirect this network namespace's TCP connections to its sidecar.
#[derive(Clone, Debug, Parser)]
#[command(name = "pillion-proxy init", bin_name = "pillion-proxy init", long_about = ABOUT, after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Flags {
    /// Remove the rules of every backend, and the routes of tproxy
    #[arg(long, conflicts_with_all = ["verify", "verify_only"])]
    pub(super) undo: bool,
    /// Print what would be done and change nothing; needs no root
    #[arg(long, conflicts_with_all = ["verify", "verify_only"])]
    pub(super) dry_run: bool,
    /// Afterwards, prove that connections are redirected
    #[arg(long)]
    pub(super) verify: bool,
    /// Only prove that connections are redirected, and change nothing
    #[arg(long, conflicts_with = "verify")]
    pub(super) verify_only: bool,

    /// What programs the rules; auto takes the first that works, in this order
    #[arg(long, value_enum, default_value_t = Wanted::Auto)]
    pub(super) backend: Wanted,
    /// How inbound connections are redirected; tproxy keeps the caller's source address, and the sidecar needs
    /// CAP_NET_ADMIN for it. Outbound is redirect in either
    #[arg(long, value_enum, default_value_t = Mode::Redirect)]
    pub(super) mode: Mode,

    /// Port of the sidecar that takes what applications call; on 127.0.0.1 and [::1]
    #[arg(long, value_name = "PORT", default_value_t = 15001, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) outbound_port: u16,
    /// Port of the sidecar that takes what calls applications; on all addresses
    #[arg(long, value_name = "PORT", default_value_t = 15006, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) inbound_port: u16,
    /// Port of the sidecar that takes what comes from the mesh; never redirected
    #[arg(long, value_name = "PORT", default_value_t = 15008, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) mesh_port: u16,
    /// Port of the sidecar that answers DNS; on 127.0.0.1 and [::1]
    #[arg(long, value_name = "PORT", default_value_t = 15053, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) dns_port: u16,
    /// Redirect DNS, UDP and TCP port 53 to any address, loopback included, to the DNS port
    #[arg(long)]
    pub(super) capture_dns: bool,

    /// User id of the sidecar, whose own connections are left alone
    #[arg(long, value_name = "UID", value_delimiter = ',', default_value = "1337", value_parser = ids)]
    pub(super) uid: Vec<Range>,
    /// Group id of the sidecar, likewise [default: none]
    #[arg(long, value_name = "GID", value_delimiter = ',', value_parser = ids)]
    pub(super) gid: Vec<Range>,
    /// Mark (SO_MARK) of the sidecar's sockets, likewise; the next number marks answers in tproxy mode
    #[arg(long, value_name = "MARK", default_value_t = 1337,
          value_parser = clap::value_parser!(u32).range(1..=0xffff_fffe))]
    pub(super) mark: u32,

    /// Application ports that callers reach directly: 22,9000-9010
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = ports)]
    pub(super) exclude_inbound_ports: Vec<Range>,
    /// Ports that applications call directly
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = ports)]
    pub(super) exclude_outbound_ports: Vec<Range>,
    /// Destinations that applications call directly: 169.254.169.254,10.0.0.0/8,fd00::/8
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    pub(super) exclude_cidrs: Vec<Network>,
    /// Destinations that are redirected even though --exclude-cidrs or --exclude-interfaces has them or they stay on the
    /// loopback interface; excluded ports, users and groups win over it
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    pub(super) include_cidrs: Vec<Network>,
    /// Interfaces whose connections are left alone in both directions: docker0,veth*
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) exclude_interfaces: Vec<Interface>,
    /// Users whose calls are left alone: 1000,2000-2999
    #[arg(long, value_name = "UIDS", value_delimiter = ',', value_parser = ids)]
    pub(super) exclude_uids: Vec<Range>,
    /// Groups whose calls are left alone
    #[arg(long, value_name = "GIDS", value_delimiter = ',', value_parser = ids)]
    pub(super) exclude_gids: Vec<Range>,

    /// How long to wait for the sidecar to listen on the outbound port; no rule exists before it does
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(super) wait: Duration,
    /// Redirect although nothing listens yet: applications' calls are refused until the sidecar does
    #[arg(long, conflicts_with = "wait")]
    pub(super) without_listener: bool,

    /// Dial this address and say how that went: verification from a process of another user.
    #[arg(long, hide = true, value_name = "ADDRESS")]
    pub(super) dial: Option<std::net::SocketAddr>,
}

/// What is to program the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Wanted {
    /// The first that works.
    Auto,
    /// nftables.
    Nft,
    /// iptables on top of nftables.
    IptablesNft,
    /// iptables as it was.
    IptablesLegacy,
}

/// How inbound connections get to the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// The destination is rewritten.
    Redirect,
    /// Nothing is rewritten.
    Tproxy,
}

impl Flags {
    /// Reads the command line; `args` is `init` and what follows.
    ///
    /// # Errors
    /// What is wrong with it, or the help that was asked for.
    pub(super) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let flags = Self::try_parse_from(args)?;
        let wrong = |problem: &str| Err(Self::command().error(ErrorKind::ValueValidation, problem));
        let ports = [flags.outbound_port, flags.inbound_port, flags.mesh_port, flags.dns_port];
        if ports.iter().enumerate().any(|(at, port)| ports.iter().skip(at + 1).any(|other| other == port)) {
            return wrong("the outbound, inbound, mesh and DNS ports must be four different ones");
        }
        if flags.capture_dns && flags.exclude_outbound_ports.iter().any(|range| range.contains(53)) {
            return wrong("--capture-dns and --exclude-outbound-ports with port 53 contradict each other");
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn mistakes_are_found_before_anything_happens() {
        for wrong in [
            "--undo --verify",
            "--outbound-port 0",
            "--outbound-port 15006",
            "--capture-dns --exclude-outbound-ports 50-60",
            "--mark 0",
            "--exclude-cidrs 10.0.0.0/33",
            "--wait 30s --without-listener",
            "--mode bridge",
            "extra",
        ] {
            let error = Flags::read(["init"].into_iter().chain(wrong.split(' ')).map(OsString::from)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn lists_are_repeated_or_separated_by_commas() {
        let args = ["init", "--uid", "1,2", "--uid", "7", "--exclude-outbound-ports", "22,9000-9010"];
        let flags = Flags::read(args.map(OsString::from)).unwrap();
        assert_eq!(flags.uid, [Range::one(1), Range::one(2), Range::one(7)]);
        assert_eq!(flags.exclude_outbound_ports, [Range::one(22), Range { first: 9000, last: 9010 }]);
    }
}
