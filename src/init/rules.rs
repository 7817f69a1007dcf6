//! Which connections are redirected: the rules, said once, for every backend to write in its own words.
//!
//! ```text
//! application -> own Service's virtual address   leaves through a real interface: to the outbound port
//! application -> own pod address, 127.0.0.1      stays on `lo`: direct
//! sidecar     -> application, or anywhere        known by its uid, gid or mark: direct
//! outside     -> application port                to the inbound port
//! outside     -> mesh, health, metrics port      direct
//! ```
//!
//! The sidecar's other ports (outbound, inbound, DNS, admin) are redirected like any other: so a caller from outside
//! never reaches a listener behind them, but the inbound port, which refuses its own ports as destinations.

use super::flags::{Flags, Mode};
use super::value::{Interface, Network, Range};

/// Health and metrics: asked from outside by those who watch over the workload, never redirected.
const WATCHED_PORTS: [u16; 2] = [15021, 15090];
const DNS: u32 = 53;

/// A list of rules that the kernel walks at one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) hook: Hook,
    pub(super) rules: Vec<Rule>,
}

/// What a chain may do: iptables' tables, nftables' chain types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Before connections are tracked.
    Raw,
    /// Marks; in the output hook the packet is routed again.
    Mangle,
    /// Destinations. Sees only the first packet of a connection.
    Nat,
}

/// Where packets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// Processes of this namespace.
    Output,
    /// An interface.
    Prerouting,
}

/// When all matches hold, what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) matches: Vec<Match>,
    pub(super) verdict: Verdict,
    /// For whoever reads the ruleset.
    pub(super) why: &'static str,
}

/// A property of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Tcp,
    Udp,
    /// Destination port; after [`Match::Tcp`] or [`Match::Udp`].
    Port(Range),
    /// Source port; after [`Match::Tcp`] or [`Match::Udp`].
    SourcePort(u32),
    /// User whose socket it is.
    Uid(Range),
    /// Group whose socket it is.
    Gid(Range),
    /// The packet's mark, from the socket's `SO_MARK`.
    Mark(u32),
    /// The interface it leaves through (output) or came through (prerouting).
    Via(Interface),
    /// Any interface but this one.
    NotVia(Interface),
    /// Destination address.
    To(Network),
    /// The destination is not an address of this namespace.
    ToElsewhere,
    /// The source is not an address of this namespace.
    FromElsewhere,
    /// It goes from the end that was called to the one that called.
    Reply,
    /// Its connection's mark.
    ConnectionMark(u32),
    /// After [`Match::Tcp`]: not the packet that opens the connection.
    Midway,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing; the rest of the chain is skipped.
    Leave,
    /// To this port of this namespace; the original destination stays known (`SO_ORIGINAL_DST`).
    Redirect(u16),
    /// To the transparent socket that listens on this port, with both addresses as they are. Dropped without one.
    Divert(u16),
    /// Its connection gets this mark.
    MarkConnection(u32),
    /// It gets this mark, and is routed again.
    MarkPacket(u32),
    /// Its connection is tracked apart from those of other zones.
    Zone(u16),
}

/// Everything that the rules depend on.
#[derive(Clone, Debug)]
pub(super) struct Rules<'a> {
    flags: &'a Flags,
}

impl<'a> Rules<'a> {
    pub(super) fn new(flags: &'a Flags) -> Self {
        Self { flags }
    }

    /// All chains.
    pub(super) fn chains(&self) -> Vec<Chain> {
        let mut chains = Vec::new();
        if self.flags.capture_dns {
            chains.extend([self.dns_queries(), self.dns_replies()]);
        }
        chains.push(self.inbound());
        if self.flags.mode == Mode::Tproxy {
            chains.push(self.replies());
        }
        chains.push(self.outbound());
        chains
    }

    fn outbound(&self) -> Chain {
        use Match::{Tcp, To, Udp, Via};
        let flags = self.flags;
        let redirect = Verdict::Redirect(flags.outbound_port);
        let mut rules = vec![midway()];
        rules.extend(self.own("the sidecar's own traffic"));
        rules.extend(self.excluded_users());
        if flags.capture_dns {
            for protocol in [Tcp, Udp] {
                let matches = vec![protocol, Match::Port(Range::one(DNS))];
                rules.push(Rule { matches, verdict: Verdict::Redirect(flags.dns_port), why: "DNS, to any address" });
            }
        } else {
            rules.push(leave(vec![Tcp, Match::Port(Range::one(DNS))], "DNS is left alone"));
        }
        let ports = flags.exclude_outbound_ports.iter();
        rules.extend(ports.map(|port| leave(vec![Tcp, Match::Port(*port)], "excluded port")));
        let included = flags.include_cidrs.iter();
        rules.extend(included.map(|network| Rule {
            matches: vec![To(*network), Tcp],
            verdict: redirect,
            why: "included destination",
        }));
        rules.push(leave(vec![Via(Interface::loopback())], "the application to itself"));
        rules.push(leave(
            vec![To(Network::LINK_LOCAL)],
            "means nothing without its interface, which is lost on the way",
        ));
        rules.extend(self.excluded_interfaces());
        rules.extend(flags.exclude_cidrs.iter().map(|network| leave(vec![To(*network)], "excluded destination")));
        rules.push(Rule { matches: vec![Tcp], verdict: redirect, why: "everything else that the application calls" });
        Chain { name: "outbound", kind: Kind::Nat, hook: Hook::Output, rules }
    }

    fn inbound(&self) -> Chain {
        use Match::{Port, Reply, Tcp, ToElsewhere, Via};
        let flags = self.flags;
        let mut rules = vec![
            leave(vec![Via(Interface::loopback())], "the application to itself"),
            leave(vec![ToElsewhere], "what is only routed through here"),
        ];
        if flags.mode == Mode::Redirect {
            rules.push(midway());
        } else {
            rules.push(leave(vec![Reply], "answers to calls of this namespace"));
        }
        rules.extend(self.excluded_interfaces());
        rules.push(leave(vec![Tcp, Port(Range::one(flags.mesh_port.into()))], "the mesh port"));
        let watched = WATCHED_PORTS.iter();
        rules.extend(watched.map(|port| leave(vec![Tcp, Port(Range::one((*port).into()))], "health, metrics")));
        let ports = flags.exclude_inbound_ports.iter();
        rules.extend(ports.map(|port| leave(vec![Tcp, Port(*port)], "excluded port")));
        let (kind, verdict) = match flags.mode {
            Mode::Redirect => (Kind::Nat, Verdict::Redirect(flags.inbound_port)),
            Mode::Tproxy => (Kind::Mangle, Verdict::Divert(flags.inbound_port)),
        };
        rules.push(Rule { matches: vec![Tcp], verdict, why: "everything else that calls the application" });
        Chain { name: "inbound", kind, hook: Hook::Prerouting, rules }
    }

    /// With TPROXY the sidecar calls the application from the caller's own address. The application's answers to it must
    /// come back to the sidecar, and not leave for the caller: they get a mark, and marked packets are routed to `lo`.
    fn replies(&self) -> Chain {
        let mark = self.routing_mark();
        let mut rules = self.own("the sidecar calls the application from its caller's address");
        for rule in &mut rules {
            rule.matches.extend([Match::Tcp, Match::Via(Interface::loopback()), Match::FromElsewhere]);
            rule.verdict = Verdict::MarkConnection(mark);
        }
        rules.push(Rule {
            matches: vec![Match::Tcp, Match::Reply, Match::ConnectionMark(mark)],
            verdict: Verdict::MarkPacket(mark),
            why: "the application's answer goes to the sidecar",
        });
        Chain { name: "replies", kind: Kind::Mangle, hook: Hook::Output, rules }
    }

    /// A query of the sidecar may use the same five-tuple as an earlier one of the application, which is still tracked as
    /// redirected: it would come back to the sidecar. So queries that are not captured are tracked in a zone of their own.
    fn dns_queries(&self) -> Chain {
        let mut rules = self.own("the sidecar's own queries");
        rules.extend(self.excluded_users());
        for rule in &mut rules {
            rule.matches.extend([Match::Udp, Match::Port(Range::one(DNS))]);
            rule.verdict = self.zone();
        }
        let matches = vec![Match::Udp, Match::SourcePort(DNS), Match::Via(Interface::loopback())];
        rules.push(Rule { matches, verdict: self.zone(), why: "answers to them from this namespace" });
        Chain { name: "dns_queries", kind: Kind::Raw, hook: Hook::Output, rules }
    }

    fn dns_replies(&self) -> Chain {
        let matches = vec![Match::Udp, Match::SourcePort(DNS), Match::NotVia(Interface::loopback())];
        let rules = vec![Rule { matches, verdict: self.zone(), why: "answers to queries that are not captured" }];
        Chain { name: "dns_replies", kind: Kind::Raw, hook: Hook::Prerouting, rules }
    }

    /// The mark by which answers are routed to the sidecar. Not the mark of its sockets: what these send to its callers
    /// has to leave.
    pub(super) fn routing_mark(&self) -> u32 {
        self.flags.mark.saturating_add(1)
    }

    fn zone(&self) -> Verdict {
        Verdict::Zone(self.flags.dns_port)
    }

    fn own(&self, why: &'static str) -> Vec<Rule> {
        let mut rules = users(&self.flags.uid, &self.flags.gid, why);
        rules.push(leave(vec![Match::Mark(self.flags.mark)], why));
        rules
    }

    fn excluded_users(&self) -> Vec<Rule> {
        users(&self.flags.exclude_uids, &self.flags.exclude_gids, "excluded user or group")
    }

    fn excluded_interfaces(&self) -> impl Iterator<Item = Rule> {
        let interfaces = self.flags.exclude_interfaces.iter();
        interfaces.map(|interface| leave(vec![Match::Via(interface.clone())], "excluded interface"))
    }
}

fn users(uids: &[Range], gids: &[Range], why: &'static str) -> Vec<Rule> {
    let uids = uids.iter().map(|uid| leave(vec![Match::Uid(*uid)], why));
    uids.chain(gids.iter().map(|gid| leave(vec![Match::Gid(*gid)], why))).collect()
}

/// Connection tracking takes the next packet of a connection that is older than the rules, from whichever end it comes, for
/// the first of a new one. To redirect it would break what the sidecar and the application have open.
fn midway() -> Rule {
    leave(vec![Match::Tcp, Match::Midway], "connections that are older than these rules")
}

fn leave(matches: Vec<Match>, why: &'static str) -> Rule {
    Rule { matches, verdict: Verdict::Leave, why }
}
