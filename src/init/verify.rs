//! Proof that connections are redirected: by dialling an address that exists nowhere.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use socket2::SockRef;
use tokio::time::Instant;

use super::backend::Backend;
use super::error::{Dial, InitError};
use super::flags::{Flags, Mode};
use super::iptables::Family;
use super::value::{Network, Range};

/// Documentation addresses: they exist nowhere, so nobody but the sidecar can answer.
const TEST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const TEST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const PATIENCE: Duration = Duration::from_secs(2);

/// Dials through the rules in every family that this namespace uses, and reads the inbound rules back.
///
/// Returns what was proved, one sentence each.
///
/// # Errors
/// The first thing that is not as it should be.
pub(super) fn verify(flags: &Flags, families: &[Family], program: &[String]) -> Result<Vec<String>, InitError> {
    let mut proved = Vec::new();
    let mut unreachable = Vec::new();
    for family in families.iter().filter(|family| in_use(**family)) {
        let Some(address) = test_address(flags, *family) else {
            proved.push(format!("no destination of {family:?} is redirected: --exclude-cidrs has them all"));
            continue;
        };
        let mut targets = vec![(SocketAddr::new(address, test_port(flags)), flags.outbound_port)];
        if flags.capture_dns {
            targets.push((SocketAddr::new(address, 53), flags.dns_port));
        }
        for (target, port) in targets {
            match prove(flags, target, port, program) {
                Ok(how) => proved.push(format!("{target} arrives at port {port}: {how}")),
                Err(Dial::NoRoute(address)) => unreachable.push(address.to_string()),
                Err(Dial::Failed(found)) => return Err(InitError::NotRedirected { target, port, found }),
            }
        }
    }
    if proved.is_empty() {
        return Err(InitError::NoRoute { tried: unreachable.join(", ") });
    }
    proved.extend(unreachable.iter().map(|address| format!("{address} was not dialled: no route")));
    proved.push(inbound(flags, families)?);
    Ok(proved)
}

/// What `init --dial ADDRESS` does: dials for a parent that may not do so itself.
///
/// # Errors
/// What it should tell its parent.
pub(super) fn dial_for_parent(target: SocketAddr) -> Result<(TcpStream, u16), String> {
    let stream = dial(target).map_err(|error| match error {
        Dial::NoRoute(_) => NO_ROUTE.to_owned(),
        Dial::Failed(found) => found,
    })?;
    let port = stream.local_addr().map_err(|error| error.to_string())?.port();
    Ok((stream, port))
}

const NO_ROUTE: &str = "no route";

/// Dials `target` and finds the other end of the connection at `port` of this namespace.
fn prove(flags: &Flags, target: SocketAddr, port: u16, program: &[String]) -> Result<String, Dial> {
    let local = SocketAddr::new(loopback(target), port);
    let listener = match TcpListener::bind(local) {
        Ok(listener) => Some(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
        Err(error) => return Err(Dial::Failed(format!("no listener of our own could be had on {local}: {error}"))),
    };
    let dialled = if exempt(flags) { Dialled::by_child(target, program)? } else { Dialled::here(target)? };
    let Some(listener) = listener else {
        // A listener that ends the connection at once is quicker than our look.
        return if other_end(port, dialled.port) {
            Ok("the listener there has it".to_owned())
        } else {
            Err(Dial::Failed("it was accepted by something else".to_owned()))
        };
    };
    let accepted =
        accept(&listener).map_err(|error| Dial::Failed(format!("the connection went elsewhere: {error}")))?;
    let socket = SockRef::from(&accepted);
    // Ended by a reset, it leaves nothing behind on the port that the sidecar is about to use.
    let _best_effort = socket.set_linger(Some(Duration::ZERO));
    let original = if target.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match original.map(|address| address.as_socket()) {
        Ok(Some(original)) if original == target => Ok("SO_ORIGINAL_DST says so to a listener of our own".to_owned()),
        Ok(original) => Err(Dial::Failed(format!("its original destination became {original:?}"))),
        Err(error) => Err(Dial::Failed(format!("its original destination is lost: {error}"))),
    }
}

/// A connection that is open until this is dropped.
struct Dialled {
    port: u16,
    _open: Open,
}

enum Open {
    Here { _stream: TcpStream },
    There(std::process::Child),
}

impl Dialled {
    fn here(target: SocketAddr) -> Result<Self, Dial> {
        let stream = dial(target)?;
        let port = stream.local_addr().map_err(|error| Dial::Failed(error.to_string()))?.port();
        Ok(Self { port, _open: Open::Here { _stream: stream } })
    }

    /// From a process of a user that the rules do not exempt.
    fn by_child(target: SocketAddr, program: &[String]) -> Result<Self, Dial> {
        let failed = |error: io::Error| {
            Dial::Failed(format!(
                "it could not be dialled, as our own user is exempt and another one cannot be had: {error}"
            ))
        };
        let nobody = 65_534;
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(program)
            .args(["init", "--dial", &target.to_string()])
            .uid(nobody)
            .gid(nobody)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut said = String::new();
        if let Some(stdout) = child.stdout.as_mut() {
            let mut byte = [0];
            while stdout.read(&mut byte).map_err(failed)? == 1 && byte != *b"\n" {
                said.push(char::from(byte[0]));
            }
        }
        let open = Open::There(child);
        match said.parse() {
            Ok(port) => Ok(Self { port, _open: open }),
            Err(_) if said == NO_ROUTE => Err(Dial::NoRoute(target.ip())),
            Err(_) => Err(Dial::Failed(said)),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Self::There(child) = self {
            drop(child.stdin.take());
            let _status = child.wait();
        }
    }
}

fn dial(target: SocketAddr) -> Result<TcpStream, Dial> {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable, TimedOut};
    TcpStream::connect_timeout(&target, PATIENCE).map_err(|error| match error.kind() {
        NetworkUnreachable | HostUnreachable | AddrNotAvailable => Dial::NoRoute(target.ip()),
        TimedOut => Dial::Failed(format!("nobody answered within {PATIENCE:?}")),
        _ => Dial::Failed(format!("dialling failed: {error}")),
    })
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
}

/// True when a socket of this namespace on `port` is connected to one on `peer`.
fn other_end(port: u16, peer: u16) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|file| {
        let table = fs::read_to_string(file).unwrap_or_default();
        table.lines().skip(1).any(|line| ports(line) == Some((port, peer)))
    })
}

/// Local and remote port of a line of `/proc/net/tcp`: `0: 0100007F:3A99 0200000A:C350 01 …`.
fn ports(line: &str) -> Option<(u16, u16)> {
    let mut words = line.split_whitespace().skip(1);
    let mut port = || u16::from_str_radix(words.next()?.rsplit(':').next()?, 16).ok();
    Some((port()?, port()?))
}

/// True when our own connections would not be redirected.
fn exempt(flags: &Flags) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Real, effective, saved, file system id: the last is what sockets have.
    let id =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().nth(3)?.parse().ok());
    let has = |ranges: [&[Range]; 2], id: Option<u32>| {
        id.is_some_and(|id| ranges.concat().iter().any(|range| range.contains(id)))
    };
    has([&flags.uid, &flags.exclude_uids], id("Uid:")) || has([&flags.gid, &flags.exclude_gids], id("Gid:"))
}

/// An address that the rules redirect and that exists nowhere; or one that is included.
fn test_address(flags: &Flags, family: Family) -> Option<IpAddr> {
    let test = if family == Family::V4 { TEST_V4 } else { TEST_V6 };
    let has = |networks: &[Network], address| networks.iter().any(|network| network.contains(address));
    if has(&flags.include_cidrs, test) || !has(&flags.exclude_cidrs, test) {
        return Some(test);
    }
    let included = flags.include_cidrs.iter().find(|network| network.address.is_ipv4() == test.is_ipv4());
    included.map(|network| network.second_address())
}

fn test_port(flags: &Flags) -> u16 {
    let direct = |port: u16| port == 53 || flags.exclude_outbound_ports.iter().any(|range| range.contains(port.into()));
    (80..=u16::MAX).find(|port| !direct(*port)).unwrap_or(80)
}

fn loopback(target: SocketAddr) -> IpAddr {
    if target.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// True when the namespace has an address of this family.
pub(super) fn in_use(family: Family) -> bool {
    family == Family::V4 || fs::read_to_string("/proc/net/if_inet6").is_ok_and(|addresses| !addresses.is_empty())
}

fn inbound(flags: &Flags, families: &[Family]) -> Result<String, InitError> {
    let port = flags.inbound_port;
    let (nft, iptables) = match flags.mode {
        Mode::Redirect => (format!("redirect to :{port}"), format!("--to-ports {port}")),
        Mode::Tproxy => (format!("tproxy ip to :{port}"), format!("--on-port {port}")),
    };
    for backend in Backend::ALL {
        let rules = backend.rules(families).unwrap_or_default();
        let needle = if backend == Backend::Nft { &nft } else { &iptables };
        if rules.lines().any(|line| line.trim_end().ends_with(needle.as_str()) || line.contains(&format!("{needle} ")))
        {
            return Ok(format!("the kernel's rules ({}) lead inbound connections to port {port}", backend.name()));
        }
    }
    let looked = Backend::ALL.map(Backend::name).join(", ");
    Err(InitError::InboundMissing { port, looked: format!("looked at those of {looked}") })
}
