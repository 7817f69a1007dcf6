//! Hosts that are network namespaces: each with an interface and addresses of its own, all on one switch.
//!
//! ```ignore
//! let network = Network::start(Stack::Dual);
//! let (client, server) = (network.host("client"), network.host("server"));
//! let server_process = Process::spawn("server", &mut server.command("nc").args(["-l", "8080"]));
//! let response = client.curl(&[&format!("http://{}:8080/", server.ip())]);
//! ```
//!
//! Needs root and `ip`. Namespaces, and whatever still runs in them, are gone when their handles are dropped; those of a
//! test that was killed are removed by the next one.

use std::cell::Cell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::pillion;
use super::tools::{Curl, curl_of, output, run, tool};

/// User of applications. Not the sidecar's.
pub const APPLICATION: u32 = 1000;
/// User of sidecars.
pub const SIDECAR: u32 = 1337;

const PREFIX: &str = "pillion-test-";

/// Which addresses hosts have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// 10.77.0.0/24.
    V4,
    /// fd77::/64.
    V6,
    /// Both.
    Dual,
}

/// A switch, in a namespace of its own, that hosts hang on. It is their default gateway as well, and forwards nothing: what
/// is not on the network is never answered.
pub struct Network {
    switch: Namespace,
    stack: Stack,
    hosts: Cell<u8>,
}

/// A network namespace with the interface `eth0`.
pub struct Host {
    namespace: Namespace,
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl Network {
    /// A new one without hosts.
    ///
    /// # Panics
    /// Without root or `ip`, saying what to do.
    pub fn start(stack: Stack) -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(sweep);
        let switch = Namespace::new("switch");
        let network = Self { switch, stack, hosts: Cell::new(1) };
        network.switch.ip("link add switch type bridge");
        network.give_addresses(&network.switch, "switch", 1);
        network.switch.ip("link set switch up");
        network
    }

    /// A new host.
    pub fn host(&self, name: &str) -> Host {
        let number = self.hosts.get().checked_add(1).expect("fewer than 255 hosts");
        self.hosts.set(number);
        let namespace = Namespace::new(name);
        let port = format!("port{number}");
        self.switch.ip(&format!("link add {port} type veth peer name eth0 netns {}", namespace.name));
        self.switch.ip(&format!("link set {port} master switch up"));
        self.give_addresses(&namespace, "eth0", number);
        namespace.ip("link set eth0 up");
        let has = |family| self.stack == Stack::Dual || self.stack == family;
        if has(Stack::V4) {
            namespace.ip(&format!("route add default via {}", v4(1)));
        }
        if has(Stack::V6) {
            namespace.ip(&format!("-6 route add default via {}", v6(1)));
        }
        Host { namespace, v4: has(Stack::V4).then(|| v4(number)), v6: has(Stack::V6).then(|| v6(number)) }
    }

    fn give_addresses(&self, namespace: &Namespace, interface: &str, number: u8) {
        if self.stack != Stack::V6 {
            namespace.ip(&format!("addr add {}/24 dev {interface}", v4(number)));
        }
        if self.stack == Stack::V4 {
            // Not even link-local addresses, and none on lo: as on a host whose IPv6 is switched off.
            let mut exec = Command::new(tool("ip", "iproute2"));
            exec.args(["netns", "exec", &namespace.name, "sh", "-c"]);
            run(exec.arg("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"));
        } else {
            // No duplicate address detection: it would keep the address unusable for a second.
            namespace.ip(&format!("addr add {}/64 dev {interface} nodad", v6(number)));
        }
    }
}

fn v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

fn v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into())
}

impl Host {
    /// Its address: IPv4 where it has one.
    pub fn ip(&self) -> IpAddr {
        self.ips().into_iter().next().expect("an address")
    }

    /// All its addresses.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.v4.map(IpAddr::from).into_iter().chain(self.v6.map(IpAddr::from)).collect()
    }

    /// The name that `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.namespace.name
    }

    /// The file that is the namespace: for `nsenter --net=…`, `setns`.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace.name)
    }

    /// A program, to be run in this namespace by root.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.wrap(&Command::new(program))
    }

    /// The same as another user and group, without root's capabilities.
    pub fn command_as(&self, user: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.wrap_as(user, &[], &Command::new(program))
    }

    /// A command with its arguments and environment, to be run in this namespace by root.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = self.exec();
        copy(command, &mut wrapped);
        wrapped
    }

    /// The same as another user and group with these capabilities (`net_admin`), and the right to read every file: the
    /// programs under test may lie in root's own folders.
    pub fn wrap_as(&self, user: u32, capabilities: &[&str], command: &Command) -> Command {
        let mut wrapped = self.exec();
        let capabilities: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
        let capabilities = format!("+dac_read_search{capabilities}");
        wrapped.arg(tool("setpriv", "util-linux")).args(["--reuid", &user.to_string(), "--regid", &user.to_string()]);
        wrapped.args(["--clear-groups", "--inh-caps", &capabilities, "--ambient-caps", &capabilities, "--"]);
        copy(command, &mut wrapped);
        wrapped
    }

    /// Runs `pillion proxy init` here as root, however it ends.
    pub fn init(&self, arguments: &[&str]) -> Output {
        let mut command = pillion();
        command.args(["proxy", "init"]).args(arguments);
        output(&mut self.wrap(&command))
    }

    /// Runs curl here as an application.
    pub fn curl(&self, arguments: &[&str]) -> Curl {
        curl_of(arguments, |command| self.wrap_as(APPLICATION, &[], command))
    }

    /// Gives it another address, `198.51.100.7/32`, on `eth0`.
    pub fn add_address(&self, address: &str) {
        let nodad = if address.contains(':') { " nodad" } else { "" };
        self.namespace.ip(&format!("addr add {address} dev eth0{nodad}"));
    }

    /// Runs `ip` here with these words: `route show`.
    pub fn ip_command(&self, words: &str) -> String {
        self.namespace.ip(words)
    }

    /// Replaces a file of `/etc`, for processes that start here from now on: `resolv.conf`.
    pub fn etc(&self, file: &str, text: &str) {
        let folder = self.namespace.etc();
        fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(file), text)).expect("a file below /etc/netns");
    }

    /// The processes that run here now.
    pub fn processes(&self) -> Vec<u32> {
        self.namespace.processes()
    }

    fn exec(&self) -> Command {
        let mut command = Command::new(tool("ip", "iproute2"));
        command.args(["netns", "exec", &self.namespace.name]);
        command
    }
}

fn copy(from: &Command, to: &mut Command) {
    to.arg(from.get_program()).args(from.get_args());
    for (name, value) in from.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
    if let Some(folder) = from.get_current_dir() {
        to.current_dir(folder);
    }
}

/// A network namespace that is removed when this is dropped.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(role: &str) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("{PREFIX}{}-{number}-{role}", std::process::id()) };
        run(Command::new(tool("ip", "iproute2")).args(["netns", "add", &namespace.name]));
        namespace.ip("link set lo up");
        namespace
    }

    fn ip(&self, words: &str) -> String {
        run(Command::new(tool("ip", "iproute2")).args(["-n", &self.name]).args(words.split(' ')))
    }

    fn etc(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.name)
    }

    fn processes(&self) -> Vec<u32> {
        let said = output(Command::new(tool("ip", "iproute2")).args(["netns", "pids", &self.name])).stdout;
        String::from_utf8_lossy(&said).split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _already_gone = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        let _not_made = fs::remove_dir_all(self.etc());
        let mut remove = Command::new(tool("ip", "iproute2"));
        let _already_gone = remove.args(["netns", "delete", &self.name]).output();
    }
}

/// Removes what tests left that were killed.
///
/// # Panics
/// Without root.
pub fn sweep() {
    let uid = fs::metadata("/proc/self").expect("a process").uid();
    assert!(uid == 0, "this test makes network namespaces, which needs root: run sudo tests/run");
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            drop(Namespace { name });
        }
    }
}
